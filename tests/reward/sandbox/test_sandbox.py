"""The sandbox: each layer runs honest code, contains hostile code, and refuses by name where it cannot."""

import ctypes
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import pytest

from reward.sandbox import session as sandbox
from reward.sandbox.runner import MAX_THREADS
from reward.sandbox.session import (
    LAYERS,
    SandboxDied,
    SandboxUnavailable,
    available_layer,
    open_session,
    probe,
)
from tests.reward.sandbox import attacks

WORKING = [layer for layer in LAYERS if probe(layer) is None]
PR_SET_CHILD_SUBREAPER = 36
layers = pytest.mark.parametrize("layer", WORKING)


@pytest.fixture(autouse=True)
def adopts_orphans():
    """As under the launcher: a process that a session leaves behind, even a dead one, comes to stand below us."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    yield
    libc.prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


def run(code, layer, *, seconds=3.0, **test):
    with open_session(code, layer) as session:
        return session.run(test or {"stdin": ""}, seconds)


def test_a_layer_works_here():
    assert WORKING
    assert available_layer() == WORKING[0]


@layers
def test_honest_programs(layer):
    assert run("print(int(input()) + int(input()))", layer, stdin="2\n3\n").stdout == "5\n"
    assert (
        run("import sys, math\nprint(len(sys.stdin.read()), math.gcd(12, 18))", layer, stdin="é" * 9).stdout
        == "9 6\n"
    )
    assert run("def add(a, b=1):\n    return a + b", layer, call="add", args=[2], kwargs={"b": 3}).record == (
        '{"value": ["int", "0x5"]}'
    )
    assert (
        run("class Solution:\n    def f(self): return [1, 'a']", layer, expression="Solution().f()").end
        == "done"
    )
    assert (
        run(
            "import threading\nt = threading.Thread(target=print, args=('t',)); t.start(); t.join()", layer
        ).stdout
        == "t\n"
    )
    assert run("print(1); raise SystemExit", layer).end == "done"


@layers
def test_one_session_runs_many_independent_tests(layer):
    with open_session("import builtins\nprint(getattr(builtins, 'x', 0))\nbuiltins.x = 1", layer) as session:
        assert [session.run({"stdin": ""}, 3.0).stdout for _ in range(5)] == ["0\n"] * 5


ENDS = {
    "endless loop": ("while True: pass", "timeout"),
    "endless sleep": ("import time; time.sleep(99)", "timeout"),
    "closes its pipes and stays": ("import os, time\nos.close(1); os.close(3)\nwhile True: time.sleep(1)", "timeout"),
    "leaves early": ("import os\nprint('5', flush=True); os._exit(0)", "exit"),
    "exit status": ("print('5'); raise SystemExit(1)", "exit"),
    "exception": ("print('5'); 1 / 0", "exit"),
    "syntax error": ("def f(:", "exit"),
    "fork bomb": ("import os\nwhile True: os.fork()", "exit"),
    "daemon": ("import os, time\nif os.fork() == 0:\n    os.setsid(); time.sleep(99)", "exit"),
    "process pool": ("import subprocess; subprocess.run(['/bin/sh', '-c', 'sleep 99'])", "exit"),
    "kill everything": ("import os; os.kill(-1, 9)", "exit"),
    "kill the runner": ("import os; os.kill(os.getppid(), 9)", "exit"),
    "memory bomb": ("x = bytearray(10 << 30)", "exit"),
    "memory bomb in steps": ("x = []\nwhile True: x.append(bytearray(1 << 24))", "exit or timeout"),
    "output flood": ("while True: print('x' * 10000)", "output"),
    "record flood": ("import os\nwhile True: os.write(3, b'x' * 65536)", "output"),
    "deep recursion": (
        "import sys; sys.setrecursionlimit(10**9)\ndef f(): return f()\nf()", "exit or timeout",
    ),
    "segmentation fault": ("import ctypes; ctypes.string_at(0)", "exit"),
    "compiler bomb": ("(" * 5000 + ")" * 5000, "exit"),
    "thread bomb": (
        "import threading, time\nwhile True: threading.Thread(target=time.sleep, args=(99,)).start()",
        "exit or timeout",
    ),
    "network": ("import socket; socket.create_connection(('1.1.1.1', 53), 1)", "exit"),
    "unix socket": ("import socket; socket.socket(socket.AF_UNIX)", "exit"),
    "passwd": ("print(open('/etc/passwd').read())", "exit"),
    "another process": ("print(open('/proc/1/environ').read())", "exit"),
    "write to the system": ("open('/usr/x', 'w')", "exit"),
    "huge file": ("f = open('/tmp/x', 'wb')\nwhile True: f.write(bytes(1 << 20)); f.flush()", "exit or timeout"),
    "new namespaces": ("import ctypes\nassert ctypes.CDLL(None).unshare(0x10000000) == 0", "exit"),
}  # fmt: skip


@layers
@pytest.mark.parametrize("name", ENDS)
def test_hostile_programs_are_contained(name, layer):
    code, end = ENDS[name]
    limit = 0.5 if end == "timeout" else 1.5
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    start = time.monotonic()
    with open_session(code, layer) as session:
        outcome = session.run({"stdin": ""}, limit)
        assert outcome.end in end
        assert session.run({"stdin": ""}, limit).end in end  # and the runner is still there
    assert time.monotonic() - start < 30.0  # no program ends by itself in that time
    assert {process.pid for process in psutil.Process().children(recursive=True)} <= before
    assert "root:" not in outcome.stdout


@layers
def test_nothing_outside_is_changed(layer, tmp_path):
    """Mode, owner, times, attributes, size and names of a file of ours and of the device stay as they were."""
    os.chmod(tmp_path, 0o777)
    assert attacks.escaped(layer, str(tmp_path)) == []


@layers
def test_threads_are_bounded(layer):
    """Some are needed, thousands are not; by the library and by bare clone on one shared stack."""
    start = "import threading\nlock = threading.Lock(); lock.acquire(); threading.stack_size(65536)\n"
    several = start.replace("lock.acquire();", "") + (
        "ts = [threading.Thread(target=lambda: None) for _ in range(100)]\n"
        "for t in ts: t.start()\nfor t in ts: t.join()\nprint('ok')"
    )
    assert run(several, layer).stdout == "ok\n"
    many = start + (
        "import os\nn = 0\n"
        "try:\n    while True: threading._start_new_thread(lock.acquire, ()); n += 1\n"
        "except RuntimeError: print(n, flush=True); os._exit(0)"
    )
    assert run(many, layer).stdout == f"{MAX_THREADS}\n"
    bare = (
        "import ctypes\nlibc = ctypes.CDLL(None)\nstack = ctypes.create_string_buffer(1 << 20)\nn = 0\n"
        "libc.clone.restype = ctypes.c_int\nflags = 0x100 | 0x200 | 0x400 | 0x800 | 0x10000 | 0x40000\n"
        "pause = ctypes.cast(libc.pause, ctypes.c_void_p)\ntop = ctypes.addressof(stack) + (1 << 19)\n"
        "while n < 5000 and libc.clone(pause, ctypes.c_void_p(top + 64 * n), flags, None) > 0: n += 1\n"
        "print(n, flush=True)"
    )
    counted = run(bare, layer, seconds=5.0).stdout
    assert counted == "" or int(counted) <= MAX_THREADS


@layers
def test_nothing_survives_a_killed_session(layer):
    """Killing the outermost process alone ends everything inside, also in the middle of an endless loop."""
    with open_session("while True: pass", layer) as session:
        session._send({"stdin": "", "time_limit_seconds": 30.0})
        time.sleep(0.3)
        inside = psutil.Process(session._process.pid).children(recursive=True)
        assert inside
        session._process.kill()
        with pytest.raises(SandboxDied):
            session._receive(time.monotonic() + 5.0)
    assert psutil.wait_procs(inside, timeout=3.0)[1] == []


def test_no_layer_is_refused_by_name(monkeypatch):
    broken = {"bubblewrap": lambda: ["/bin/false"], "landlock": lambda: ["/no/such/program"]}
    monkeypatch.setattr(sandbox, "LAYERS", broken)
    available_layer.cache_clear()
    try:
        with pytest.raises(SandboxUnavailable, match=r"bubblewrap: .*landlock: .*no/such/program"):
            available_layer()
    finally:
        available_layer.cache_clear()


def test_a_layer_that_contains_nothing_is_refused(monkeypatch):
    """The probe judges by what happens: an interpreter without walls does its sums and is still turned down."""
    bare = sandbox._interpreter("from reward.sandbox.runner import main; main()")
    monkeypatch.setitem(sandbox.LAYERS, "bare", lambda: bare)
    assert "read:escaped" in probe("bare")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become someone else")
def test_as_an_ordinary_user(tmp_path_factory):
    """The same probes and attacks as nobody, under an interpreter that nobody may read: root's own often is not."""
    python = next((p for p in ("/usr/bin/python3", sys.executable) if os.access(p, os.X_OK)), None)
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "reward"  # a copy: root's checkout may be closed to others
        shutil.copytree(
            Path(sandbox.__file__).parents[1], package, ignore=shutil.ignore_patterns("__pycache__")
        )
        shutil.copy(attacks.__file__, folder)
        for path in (Path(folder), *Path(folder).rglob("*")):
            path.chmod(0o755)
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        result = subprocess.run(
            [python, str(Path(folder) / "attacks.py"), str(package), folder],
            user=nobody.pw_uid, group=nobody.pw_gid, extra_groups=[], capture_output=True, text=True, cwd="/",
            check=False,
        )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert {k: v for k, v in json.loads(result.stdout).items() if k in WORKING} == {k: [] for k in WORKING}
