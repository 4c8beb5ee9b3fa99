"""What a process does to itself before it runs untrusted code: namespaces, Landlock, capabilities, limits, seccomp.

Standard library only: this module's text is handed to a bare interpreter inside the sandbox. Every function either
does what its name says or raises OSError naming the step, so that a probe can report it. Linux on x86-64 and arm64.
"""

import ctypes
import fcntl
import os
import platform
import resource
import signal
import struct

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
_CLONE_NEWPID, _CLONE_NEWNET, _CLONE_THREAD = 0x20000000, 0x40000000, 0x00010000
_EPERM, _ENOSYS = 1, 38

# What a computation needs, and nothing that reaches another process, another file or the machine. Whatever is not
# listed, system calls of later kernels included, is denied. Numbers for (x86-64, arm64), None where there is none.
_ALLOWED = {
    "read": (0, 63), "write": (1, 64), "open": (2, None), "close": (3, 57), "stat": (4, None), "fstat": (5, 80),
    "lstat": (6, None), "poll": (7, None), "lseek": (8, 62), "mmap": (9, 222), "mprotect": (10, 226),
    "munmap": (11, 215), "brk": (12, 214), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139), "pread64": (17, 67), "pwrite64": (18, 68), "readv": (19, 65), "writev": (20, 66),
    "access": (21, None), "pipe": (22, None), "select": (23, None), "sched_yield": (24, 124), "mremap": (25, 216),
    "madvise": (28, 233), "dup": (32, 23), "dup2": (33, None), "pause": (34, None), "nanosleep": (35, 101),
    "getitimer": (36, 102), "alarm": (37, None), "setitimer": (38, 103), "getpid": (39, 172), "sendto": (44, 206),
    "recvfrom": (45, 207), "shutdown": (48, 210), "getsockname": (51, 204), "getsockopt": (55, 209), "exit": (60, 93),
    "wait4": (61, 260), "uname": (63, 160), "getdents": (78, None), "getcwd": (79, 17), "chdir": (80, 49),
    "readlink": (89, None), "gettimeofday": (96, 169), "getrlimit": (97, 163), "getrusage": (98, 165),
    "sysinfo": (99, 179), "times": (100, 153), "getuid": (102, 174), "getgid": (104, 176), "geteuid": (107, 175),
    "getegid": (108, 177), "getppid": (110, 173), "rt_sigpending": (127, 136), "rt_sigtimedwait": (128, 137),
    "rt_sigsuspend": (130, 133), "sigaltstack": (131, 132), "setrlimit": (160, 164), "gettid": (186, 178),
    "time": (201, None), "futex": (202, 98), "sched_getaffinity": (204, 123), "getdents64": (217, 61),
    "restart_syscall": (219, 128), "clock_gettime": (228, 113), "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115), "exit_group": (231, 94), "epoll_wait": (232, None), "epoll_ctl": (233, 21),
    "openat": (257, 56), "newfstatat": (262, 79), "readlinkat": (267, 78), "faccessat": (269, 48),
    "pselect6": (270, 72), "ppoll": (271, 73), "set_robust_list": (273, 99), "epoll_pwait": (281, 22),
    "eventfd2": (290, 19), "epoll_create1": (291, 20), "dup3": (292, 24), "pipe2": (293, 59), "getcpu": (309, 168),
    "getrandom": (318, 278), "membarrier": (324, 283), "statx": (332, 291), "rseq": (334, 293),
    "close_range": (436, 436), "faccessat2": (439, 439),
}  # fmt: skip
# Allowed with these values alone: (numbers, {argument: values}). Pipes to itself are sockets of type stream, which
# cannot be addressed; ioctl: about terminals, bytes waiting and closing on exec; fcntl: copies and flags.
_STREAM, _NONBLOCK, _CLOEXEC = 1, 0x800, 0x80000
_LIMITED = {
    "ioctl": ((16, 29), {1: (0x5401, 0x802C542A, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)}),
    "fcntl": ((72, 25), {1: (0, 1, 2, 3, 4, 1030)}),
    "socketpair": (
        (53, 199),
        {0: (1,), 1: (_STREAM, _STREAM | _NONBLOCK, _STREAM | _CLOEXEC, _STREAM | _NONBLOCK | _CLOEXEC)},
    ),
    "prlimit64": ((302, 261), {0: (0,)}),  # its own limits
}
# machine -> (column above, audit architecture, numbers of clone, tgkill and seccomp)
_MACHINES = {"x86_64": (0, 0xC000003E, 56, 234, 317), "aarch64": (1, 0xC00000B7, 220, 131, 277)}
_CLONE3 = 435
_NEW_LISTENER = 8
_MIN_LANDLOCK = 3  # Linux 6.2: older ones let a readable file be truncated
# The kernel's requests RECV and SEND about a held system call, and the size of struct seccomp_notif.
_RECEIVE, _ANSWER, _NOTICE_BYTES = 0xC0502100, 0xC0182101, 80
_CONTINUE, _EAGAIN = 1, 11


def die_with_parent(parent_pid: int) -> None:
    """SIGKILL this process when its parent dies; exits at once if that has already happened."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(1)


def limit_resources(cpu_seconds: int, memory_bytes: int, file_bytes: int) -> None:
    """Hard limits on processor time, address space, file size, descriptors and core dumps of this process."""
    for name, value in (
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_FSIZE, file_bytes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(name, (value, value))


def unshare_namespaces() -> None:
    """New network, process, IPC and mount namespaces, inside a user namespace where that is possible.

    The next fork is process 1 of the new process namespace. OSError: the kernel or the container forbids it.
    """
    uid, gid = os.getuid(), os.getgid()
    spaces = _CLONE_NEWNET | _CLONE_NEWPID | _CLONE_NEWIPC | _CLONE_NEWNS
    if _libc.unshare(spaces | _CLONE_NEWUSER) == 0:
        for name, text in (
            ("setgroups", "deny"),
            ("uid_map", f"{uid} {uid} 1"),
            ("gid_map", f"{gid} {gid} 1"),
        ):
            with open(f"/proc/self/{name}", "w") as file:
                file.write(text)
    else:
        _check(_libc.unshare(spaces), "unshare(network, process, IPC, mount namespaces)")


def drop_capabilities() -> None:
    """Give up every capability of this process."""
    header = struct.pack("Ii", 0x20080522, 0)
    _check(_libc.capset(header, b"\0" * 24), "capset")


def restrict_files(readable: list[str], writable: list[str]) -> None:
    """Landlock: read and execute below `readable`, also write the existing files `writable`, nothing else.

    Where the kernel knows them, TCP and signals to processes outside are forbidden as well. OSError: no Landlock.
    """
    abi = _libc.syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint(1))
    _check(abi, "Landlock")
    if abi < _MIN_LANDLOCK:
        raise OSError(
            f"Landlock: version {abi} of its interface, wanted {_MIN_LANDLOCK} or later (Linux 6.2)"
        )
    every_right = (1 << (15 if abi < 5 else 16)) - 1
    attributes = struct.pack("QQQ", every_right, 0b11, 0b11)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = _libc.syscall(444, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    _check(ruleset, "landlock_create_ruleset")
    execute, write_file, read_file, read_directory = 1, 2, 4, 8
    rules = [(path, execute | read_file | read_directory) for path in readable]
    rules += [(path, read_file | write_file) for path in writable]
    for path, rights in rules:
        if not os.path.exists(path):
            continue
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("=Qi", rights if os.path.isdir(path) else rights & ~read_directory, parent)
        _check(
            _libc.syscall(445, ruleset, ctypes.c_int(1), rule, ctypes.c_uint(0)), f"landlock_add_rule({path})"
        )
        os.close(parent)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    _check(_libc.syscall(446, ruleset, ctypes.c_uint(0)), "landlock_restrict_self")
    os.close(ruleset)


def forbid_system_calls() -> None:
    """Seccomp filter: what `_ALLOWED` and `_LIMITED` list, threads, and signals to itself; all else is denied.

    Threads are clone with CLONE_THREAD; clone3 reports ENOSYS, so that libc falls back to clone. OSError: an unknown
    machine, or the kernel refuses filters.
    """
    column, architecture, clone, tgkill, _ = _machine()
    load_number = _load(0)
    allow, deny, missing, kill = (_return(v) for v in (0x7FFF0000, 0x50000 | _EPERM, 0x50000 | _ENOSYS, 0))
    program = [_load(4), _jump_equal(architecture, 1, 0), kill, load_number]
    for numbers in _ALLOWED.values():
        if numbers[column] is not None:
            program += [_jump_equal(numbers[column], 0, 1), allow]
    rules = {numbers[column]: arguments for numbers, arguments in _LIMITED.values()}
    for number, arguments in {**rules, tgkill: {0: (os.getpid(),)}}.items():
        checks = [step for index, values in arguments.items() for step in _one_of(index, values, deny)]
        program += [_jump_equal(number, 0, len(checks) + 1), *checks, allow]
    program += [_jump_equal(_CLONE3, 0, 1), missing]
    program += [_jump_equal(clone, 0, 3), _load_argument(0), _jump(0x45, _CLONE_THREAD, 0, 1), allow, deny]
    _filter(program, flags=0)


def hold_threads() -> int:
    """Seccomp filter that holds every clone until `allow_thread` answers; returns the descriptor that hears of it.

    The kernel's limit on processes does not hold for root, and memory bounds threads only roughly. OSError: a kernel
    without such filters (before Linux 5.5).
    """
    clone = _machine()[2]
    held, allow = _return(0x7FC00000), _return(0x7FFF0000)
    return _filter([_load(0), _jump_equal(clone, 0, 1), held, allow], _NEW_LISTENER)


def allow_thread(listener: int, allowed: bool) -> None:
    """Answer the held clone that `listener` tells of: let it go on, or fail with EAGAIN. OSError: it has gone."""
    notice = bytearray(_NOTICE_BYTES)
    fcntl.ioctl(listener, _RECEIVE, notice)
    (identity,) = struct.unpack_from("Q", notice)
    fcntl.ioctl(
        listener,
        _ANSWER,
        struct.pack("QqiI", identity, 0, 0 if allowed else -_EAGAIN, _CONTINUE if allowed else 0),
    )


def _machine() -> tuple[int, int, int, int, int]:
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(f"seccomp: no table for machine {machine!r}, there is one for {sorted(_MACHINES)}")
    return _MACHINES[machine]


def _filter(program: list[bytes], flags: int) -> int:
    """Install a BPF program; the descriptor of its listener where `flags` ask for one, else 0."""
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    code = ctypes.create_string_buffer(b"".join(program))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    result = _libc.syscall(_machine()[4], ctypes.c_ulong(1), ctypes.c_ulong(flags), header)
    _check(result, "seccomp filter")
    return result


def _one_of(index: int, values: tuple[int, ...], deny: bytes) -> list[bytes]:
    """BPF: go on when the low word of argument `index` is one of `values`, else deny."""
    tests = [_jump_equal(value, len(values) - position, 0) for position, value in enumerate(values)]
    return [_load_argument(index), *tests, deny]


def _load_argument(index: int) -> bytes:
    return _load(16 + 8 * index)


def _load(offset: int) -> bytes:
    """BPF: load the 32-bit word at `offset` of struct seccomp_data (0 number, 4 architecture, 16 low word of arg 0)."""
    return struct.pack("HBBI", 0x20, 0, 0, offset)


def _jump(operation: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("HBBI", operation, if_true, if_false, value)


def _jump_equal(value: int, if_true: int, if_false: int) -> bytes:
    return _jump(0x15, value, if_true, if_false)


def _return(value: int) -> bytes:
    return struct.pack("HBBI", 0x06, 0, 0, value)


def _prctl(option: int, value: int) -> None:
    _check(_libc.prctl(option, ctypes.c_ulong(value), 0, 0, 0), f"prctl({option})")


def _check(result: int, step: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{step}: {os.strerror(number)}")
