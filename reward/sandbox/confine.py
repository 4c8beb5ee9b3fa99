"""What a process does to itself before it runs untrusted code: namespaces, Landlock, capabilities, limits, seccomp.

Standard library only: this module's text is handed to a bare interpreter inside the sandbox. Every function either
does what its name says or raises OSError naming the step, so that a probe can report it. Linux on x86-64 and arm64.
"""

import ctypes
import os
import platform
import resource
import signal
import struct

_libc = ctypes.CDLL(None, use_errno=True)

_PR_SET_PDEATHSIG, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 22, 38
_CLONE_NEWNS, _CLONE_NEWIPC, _CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
_CLONE_NEWPID, _CLONE_NEWNET, _CLONE_THREAD = 0x20000000, 0x40000000, 0x00010000
_EPERM, _ENOSYS = 1, 38

# System calls that a solution to a programming task never needs: (x86-64, arm64) numbers, None where absent.
_DENIED = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "kill": (62, 129), "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "pidfd_send_signal": (424, 424), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "mount_setattr": (442, 442),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "kexec_load": (246, 104), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "shmget": (29, 194), "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "memfd_create": (319, 279), "setpriority": (141, 140), "sched_setaffinity": (203, 122),
}  # fmt: skip
# machine -> (column above, audit architecture, clone, tgkill)
_MACHINES = {"x86_64": (0, 0xC000003E, 56, 234), "aarch64": (1, 0xC00000B7, 220, 131)}
_CLONE3 = 435
_X32_BIT = 0x40000000


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
    every_right = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(abi, 16)) - 1
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
    """Seccomp filter: no new processes, programs, sockets, signals to others, mounts or kernel interfaces.

    Threads stay allowed (clone with CLONE_THREAD; clone3 reports ENOSYS, so that libc falls back to clone), and so
    does a signal to itself. OSError: an unknown machine, or the kernel refuses filters.
    """
    machine = platform.machine()
    if machine not in _MACHINES:
        raise OSError(f"seccomp: no table for machine {machine!r}, there is one for {sorted(_MACHINES)}")
    column, architecture, clone, tgkill = _MACHINES[machine]
    load_number, load_architecture, load_argument = _load(0), _load(4), _load(16)
    allow, deny, missing, kill = (_return(v) for v in (0x7FFF0000, 0x50000 | _EPERM, 0x50000 | _ENOSYS, 0))
    program = [load_architecture, _jump_equal(architecture, 1, 0), kill, load_number]
    program += [_jump(0x35, _X32_BIT, 0, 1), deny] if machine == "x86_64" else []
    for numbers in _DENIED.values():
        if numbers[column] is not None:
            program += [_jump_equal(numbers[column], 0, 1), deny]
    program += [_jump_equal(_CLONE3, 0, 1), missing]
    program += [_jump_equal(clone, 0, 4), load_argument, _jump(0x45, _CLONE_THREAD, 0, 1), allow, deny]
    program += [_jump_equal(tgkill, 0, 4), load_argument, _jump_equal(os.getpid(), 0, 1), allow, deny]
    program += [allow]
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    code = ctypes.create_string_buffer(b"".join(program))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    _check(_libc.prctl(_PR_SET_SECCOMP, 2, header, 0, 0), "seccomp filter")


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
