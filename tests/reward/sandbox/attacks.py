"""Attacks on what lies outside a sandbox; standard library and `reward.sandbox` alone, so that any user can run them.

`python attacks.py PACKAGE FOLDER`: for every layer, its probe and what was not contained, as JSON.
"""

import json
import os
import sys

# Each writes to a file of ours, to the one device, or to the runner: by the library, by number, through a descriptor.
CHANGES = {
    "chmod": "os.chmod(path, 0o777)", "fchmodat2": "syscall(452, AT_CWD, name, 0o777, 0)",
    "fchmod of stderr": "os.fchmod(2, 0o600)", "chown": "os.chown(path, 1, 1)", "lchown": "os.lchown(path, 1, 1)",
    "fchown of stdin": "os.fchown(0, 1, 1)", "utime": "os.utime(path, (1, 1))", "futimens": "os.utime(2, (1, 1))",
    "setxattr": "os.setxattr(path, 'user.a', b'1')", "setxattrat": "syscall(463, AT_CWD, name, 0, name, name, 16)",
    "xattr of stdin": "os.setxattr(0, 'user.a', bytes(1 << 15))", "removexattr": "os.removexattr(path, 'user.kept')",
    "truncate": "os.truncate(path, 0)", "truncate by opening": "os.open(path, os.O_RDONLY | os.O_TRUNC)",
    "openat2": "syscall(437, AT_CWD, name, (ctypes.c_uint64 * 3)(2, 0, 0), 24)", "append": "open(path, 'a').write('x')",
    "rename": "os.rename(path, path + '.moved')", "unlink": "os.unlink(path)", "link": "os.link(path, path + '.link')",
    "symlink": "os.symlink(path, path + '.link')", "mkdir": "os.mkdir(path + '.folder')",
    "mknod": "os.mkfifo(path + '.pipe')", "rmdir": "os.rmdir(os.path.dirname(path))",
    "name to handle": "syscall(303, AT_CWD, name, ctypes.create_string_buffer(200), ctypes.byref(ctypes.c_int()), 0)",
    "file flags": "fcntl.ioctl(os.open(path, os.O_RDONLY), 0x40086602, bytes(8))",
    "flags of the device": "fcntl.ioctl(2, 0x40086602, bytes(8))", "lock": "fcntl.flock(2, fcntl.LOCK_EX)",
    "lease": "fcntl.fcntl(2, 1024, 0)", "signal by owner": "fcntl.fcntl(1, 8, os.getppid())",
    "pipe size": "fcntl.fcntl(1, 1031, 1 << 20)",
    "limits of the runner": "resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (0, 0))",
    "priority of the runner": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "processors of the runner": "os.sched_setaffinity(os.getppid(), {0})",
    "scheduler of the runner": "os.sched_setscheduler(os.getppid(), os.SCHED_BATCH, os.sched_param(0))",
    "input and output priority": "assert syscall(251, 1, os.getppid(), 3 << 13) != -1",
    "memory of the runner": "syscall(310, os.getppid(), 0, 0, 0, 0, 0)", "scratch": "open('/tmp/x', 'w')",
    "memory file": "os.memfd_create('x')", "shared memory": "open('/dev/shm/x', 'w')",
    "clock": "assert time.clock_settime(time.CLOCK_REALTIME, time.time())", "host name": "socket.sethostname('x')",
    "message to a path": "socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)", "mlock": "syscall(149, name, 8)",
    "raw process": "syscall(56, 17, 0, 0, 0, 0)", "clone3": "syscall(435, ctypes.create_string_buffer(64), 64)",
    "other architecture": "syscall(57 | 0x40000000)", "timer": "syscall(222, 0, 0, name)",
}  # fmt: skip
HARMLESS = {("/dev/null", "append"), ("/dev/null", "truncate by opening")}  # it is there to be written to
_ATTACK = """
import ctypes, fcntl, os, resource, socket, time
libc, AT_CWD = ctypes.CDLL(None, use_errno=True), -100
def syscall(number, *arguments):
    if libc.syscall(number, *arguments) == -1:
        raise OSError(ctypes.get_errno(), "denied")
path, _, action = input().partition("|")
name = path.encode()
try:
    exec(action)
    print("escaped")
except OSError:
    print("contained")
"""


def state(path):
    found = os.stat(path)
    extra = {name: os.getxattr(path, name) for name in os.listxattr(path)}
    times = (
        () if path == "/dev/null" else (found.st_atime_ns,)
    )  # anybody's reading of the device changes that one
    owner = (found.st_mode, found.st_uid, found.st_gid, found.st_nlink, found.st_size)
    return (*owner, found.st_mtime_ns, found.st_ctime_ns, *times, extra)


def escaped(layer, folder):
    """Names of the attacks that were not contained or changed something, on a new file in `folder` and the device."""
    from reward.sandbox.session import open_session

    victim = os.path.join(folder, "victim")
    with open(victim, "w") as file:
        file.write("kept")
    os.chmod(victim, 0o666)
    os.setxattr(victim, "user.kept", b"1")
    before, found = (state(victim), state("/dev/null"), os.listdir(folder)), []
    with open_session(_ATTACK, layer) as session:
        for path in (victim, "/dev/null"):
            for name, action in CHANGES.items():
                said = session.run({"stdin": f"{path}|{action}"}, 5.0)
                if said.stdout != "contained\n" and (path, name) not in HARMLESS:
                    found.append(f"{name} of {path}: {said.stdout or said.end}")
    if (state(victim), state("/dev/null"), os.listdir(folder)) != before:
        found.append("something has changed")
    os.unlink(victim)
    return found


if __name__ == "__main__":
    import types

    package = types.ModuleType(
        "reward"
    )  # without the parts of the real one that need more than this interpreter has
    package.__path__ = [sys.argv[1]]
    sys.modules["reward"] = package
    from reward.sandbox.session import LAYERS, probe

    results = {layer: probe(layer) for layer in LAYERS}
    print(json.dumps({k: why or escaped(k, sys.argv[2]) for k, why in results.items()}))
