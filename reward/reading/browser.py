"""Pages drawn in a headless Chromium without scripts, network or files: their picture, and where their words stand.

It is spoken to in its DevTools protocol over a pair of pipes (`--remote-debugging-pipe`): no port that others could
connect to, and no client library, of which two of its commands would be used. bubblewrap gives it an empty root with
the programs read-only, no network, a /tmp of its own, and process namespaces that end with the worker that started it.
"""

import base64
import functools
import io
import json
import os
import select
import shutil
import subprocess
import time
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from reward.types import Unavailable

WIDTH, HEIGHT = 1024, 1536  # CSS pixels of a page that are looked at
SCALE = 0.25  # of the picture: 256 x 384
MAX_PAGES = 200  # that one browser draws before it is replaced
START_SECONDS = 20.0
PAGE_SECONDS = 8.0
DATA_KILOBYTES = 2 << 20  # writable memory of each of its processes
_MAX_MESSAGE_BYTES = 64 << 20

# fmt: off
_FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-breakpad",
    "--disable-dev-shm-usage", "--hide-scrollbars",
    "--force-prefers-reduced-motion", "--user-data-dir=/tmp/profile", "--remote-debugging-pipe", "about:blank",
]
# fmt: on
# Chromium reads commands from descriptor 3 and writes to 4. The worker's own limit on address space is not for it.
_SHELL = f'ulimit -S -v unlimited; ulimit -d {DATA_KILOBYTES}; exec "$@" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null'


class BrowserUnavailable(Unavailable):
    """There is no browser on this machine, or it cannot be confined; the message says what to do."""


class BrowserFailed(Exception):
    """The browser gave up on this page: it crashed, or refused it."""


class BrowserTimeout(BrowserFailed):
    """The page was not drawn in time."""


class Word(NamedTuple):
    """A word of a page, case-folded, with its centre in CSS pixels."""

    text: str
    x: float
    y: float


class Rendering(NamedTuple):
    """A page as drawn: uint8 [HEIGHT * SCALE, WIDTH * SCALE, 3] on white, and the layout's text runs.

    runs: (text, x, y, width, height) of every visible piece of a line, in CSS pixels.
    """

    image: np.ndarray
    runs: list[tuple[str, float, float, float, float]]


class Browser:
    """One browser process; `draw` pages with it, `close` it. Not for several threads."""

    def __init__(self) -> None:
        """Start it. BrowserUnavailable: it is not installed or does not start."""
        command = [*_confinement(), "/bin/sh", "-c", _SHELL, "sh", executable(), *_FLAGS]
        self.num_pages = 0
        self._buffer = bytearray()
        self._last_id = 0
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0
        )
        try:
            self._deadline = time.monotonic() + START_SECONDS
            self._call("Browser.getVersion")
        except BrowserFailed as error:
            self.close()
            assert self._process.stderr is not None
            reason = self._process.stderr.read(2000).decode("utf-8", "replace").strip()
            raise BrowserUnavailable(
                f"{executable()} does not start under bubblewrap: {reason or error}"
            ) from error

    def draw(self, html: str) -> Rendering:
        """Lay out and paint a page. BrowserFailed: it cannot be drawn; the browser must then be closed."""
        self._deadline = time.monotonic() + PAGE_SECONDS
        self.num_pages += 1
        target = self._call("Target.createTarget", url="about:blank")["targetId"]
        session = self._call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        call = functools.partial(self._call, session=session)
        call("Emulation.setScriptExecutionDisabled", value=True)
        call(
            "Emulation.setDeviceMetricsOverride",
            width=WIDTH,
            height=HEIGHT,
            deviceScaleFactor=1,
            mobile=False,
        )
        frame = call("Page.getFrameTree")["frameTree"]["frame"]["id"]
        call("Page.setDocumentContent", frameId=frame, html=html)
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": HEIGHT, "scale": SCALE}
        shot = call("Page.captureScreenshot", format="png", clip=clip, optimizeForSpeed=True)
        snapshot = call("DOMSnapshot.captureSnapshot", computedStyles=["visibility"])
        self._call("Target.closeTarget", targetId=target)
        with Image.open(io.BytesIO(base64.b64decode(shot["data"]))) as image:
            pixels = np.asarray(image.convert("RGB"))
        return Rendering(pixels, _runs(snapshot))

    def close(self) -> None:
        """End the browser and all its processes."""
        self._process.kill()  # bubblewrap; what runs inside ends with it
        self._process.wait()

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send one command and wait for its result; events in between are dropped."""
        self._last_id += 1
        message = {"id": self._last_id, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        self._send(json.dumps(message).encode() + b"\0")
        while True:
            reply = self._receive()
            if reply.get("method") == "Inspector.targetCrashed":
                raise BrowserFailed("the page crashed the browser's renderer")
            if reply.get("id") == self._last_id:
                break
        if "error" in reply:
            raise BrowserFailed(f"{method}: {reply['error'].get('message')}")
        return reply["result"]

    def _send(self, data: bytes) -> None:
        assert self._process.stdin is not None
        view, descriptor = memoryview(data), self._process.stdin.fileno()
        os.set_blocking(descriptor, False)
        while view:
            self._wait([], [descriptor])
            try:
                view = view[os.write(descriptor, view) :]
            except BrokenPipeError as error:
                raise BrowserFailed("the browser ended") from error

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        descriptor, searched = self._process.stdout.fileno(), 0
        while (end := self._buffer.find(b"\0", searched)) < 0:
            searched = len(self._buffer)
            self._wait([descriptor], [])
            chunk = os.read(descriptor, 1 << 20)
            if not chunk:
                raise BrowserFailed("the browser ended")
            self._buffer += chunk
            if len(self._buffer) > _MAX_MESSAGE_BYTES:
                raise BrowserFailed(f"the layout takes more than {_MAX_MESSAGE_BYTES >> 20} MB")
        message = json.loads(self._buffer[:end])
        del self._buffer[: end + 1]
        return message

    def _wait(self, readers: list[int], writers: list[int]) -> None:
        remaining = max(self._deadline - time.monotonic(), 0.0)
        if not any(select.select(readers, writers, [], remaining)):
            raise BrowserTimeout("the page was not drawn in time")


_browser: Browser | None = None


def draw(html: str) -> Rendering:
    """Draw a page with this process's browser, started at first use and replaced when it has failed or grown old.

    BrowserUnavailable: there is none. BrowserFailed: the page cannot be drawn.
    """
    global _browser  # noqa: PLW0603
    if _browser is not None and _browser.num_pages >= MAX_PAGES:
        close()
    if _browser is None:
        _browser = Browser()
    try:
        return _browser.draw(html)
    except BrowserFailed:
        close()
        raise


def close() -> None:
    """End this process's browser, if it has one."""
    global _browser  # noqa: PLW0603
    if _browser is not None:
        _browser.close()
        _browser = None


def executable() -> str:
    """Path of Chromium. BrowserUnavailable: it or bubblewrap is missing."""
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    for name, path in (("chromium", found), ("bubblewrap", shutil.which("bwrap"))):
        if path is None:
            raise BrowserUnavailable(
                f"html-code with `render: true` draws pages in {name}, which is not installed; "
                "run: bash install.sh --render"
            )
    return found


def _confinement() -> list[str]:
    command = ["bwrap", "--unshare-all", "--die-with-parent", "--clearenv", "--cap-drop", "ALL"]
    command += ["--setenv", "HOME", "/tmp", "--setenv", "PATH", "/usr/bin:/bin", "--ro-bind", "/usr", "/usr"]
    for name in ("/bin", "/lib", "/lib64"):
        if os.path.islink(name):
            command += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            command += ["--ro-bind", name, name]
    for name in (
        "/etc/fonts",
        "/etc/alternatives",
        "/etc/chromium",
        "/etc/chromium.d",
        "/var/cache/fontconfig",
    ):
        command += ["--ro-bind-try", name, name]
    return [*command, "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp", "--chdir", "/tmp", "--"]


def _runs(snapshot: dict[str, Any]) -> list[tuple[str, float, float, float, float]]:
    """Visible pieces of lines of the main document, from a DOMSnapshot."""
    strings, document = snapshot["strings"], snapshot["documents"][0]
    layout, boxes = document["layout"], document["textBoxes"]
    runs = []
    for index, bounds, start, length in zip(
        boxes["layoutIndex"], boxes["bounds"], boxes["start"], boxes["length"], strict=True
    ):
        style = layout["styles"][index]
        if not style or strings[style[0]] != "visible" or layout["text"][index] < 0:
            continue
        # offsets count UTF-16 units
        units = strings[layout["text"][index]].encode("utf-16-le", "surrogatepass")
        text = units[2 * start : 2 * (start + length)].decode("utf-16-le", "replace")
        runs.append((text, *bounds))
    return runs
