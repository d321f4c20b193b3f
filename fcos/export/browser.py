"""A Chromium without a window, driven through its debugging pipe: what the HTML format is checked with, and the page
tested. Nothing but the standard library; the protocol is Chromium's own (https://chromedevtools.github.io)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from ..errors import FcosError
from ..system import files
from ..system.machine import python_program

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "microsoft-edge")
_START = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execv(sys.argv[3], sys.argv[3:])"
)
_WAIT = 120.0  # seconds for an answer


def find_chromium() -> str | None:
    """The program: $FCOS_CHROMIUM, or the first of its usual names on the path; None where there is none, and on
    Windows, where a program is not handed pipes by their numbers, or where no other Python can be started."""
    if files.WINDOWS or python_program() is None:
        return None
    return os.environ.get("FCOS_CHROMIUM") or next((p for p in map(shutil.which, _NAMES) if p), None)


class Browser:
    """Chromium without a window and with a profile of its own, which is gone afterwards. A context manager.

    It reaches this machine only: names of other hosts lead nowhere.
    """

    def __init__(self, flags: Sequence[str] = ()) -> None:
        program, python = find_chromium(), python_program()
        if program is None or python is None:
            raise FcosError("there is no Chromium or Chrome here; install one, or name it in FCOS_CHROMIUM")
        self._profile = tempfile.TemporaryDirectory(prefix="fcos-chromium-", ignore_cleanup_errors=True)
        (read_end, self._write), (self._read, write_end) = _pipe(), _pipe()
        options = [
            "--headless=new",
            "--disable-gpu",
            "--no-first-run",
            "--mute-audio",
            "--remote-debugging-pipe",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
            f"--user-data-dir={self._profile.name}",
            *(["--no-sandbox"] if os.geteuid() == 0 else []),
        ]
        self._process = subprocess.Popen(
            [python, "-c", _START, str(read_end), str(write_end), program, *options, *flags, "about:blank"],
            pass_fds=(read_end, write_end),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(read_end)
        os.close(write_end)
        self._number = 0
        self._lock = threading.Condition()
        self._answers: dict[int, dict[str, Any]] = {}
        self._ended = False
        self.requests: list[str] = []  # every URL that a page or one of its workers asked for
        threading.Thread(target=self._listen, daemon=True).start()

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        self._profile.cleanup()

    def open(self, url: str, width: int = 1280, height: int = 800) -> Tab:
        """A tab that shows `url`, as soon as its document is complete."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        tab = Tab(self, session)
        self._watch(session)
        for domain in ("Page", "Runtime", "DOM"):
            tab.call(f"{domain}.enable")
        tab.resize(width, height)
        tab.call("Page.navigate", {"url": url})
        tab.evaluate(
            "new Promise(done => document.readyState === 'complete' ? done() : addEventListener('load', () => done()))"
        )
        return tab

    def call(self, method: str, parameters: dict[str, Any] | None = None, session: str | None = None) -> dict[str, Any]:
        """The answer to one command; FcosError where Chromium refuses, is gone or takes too long."""
        number = self._send(method, parameters, session)
        with self._lock:
            if not self._lock.wait_for(lambda: number in self._answers or self._ended, _WAIT):
                raise FcosError(f"Chromium did not answer {method} in {_WAIT:.0f} s")
            if number not in self._answers:
                raise FcosError("Chromium ended; try it by hand with --headless")
            answer = self._answers.pop(number)
        if "error" in answer:
            raise FcosError(f"Chromium refuses {method}: {answer['error'].get('message', '')}")
        result: dict[str, Any] = answer["result"]
        return result

    def _send(self, method: str, parameters: dict[str, Any] | None, session: str | None) -> int:
        with self._lock:
            self._number += 1
            number = self._number
            message = {"id": number, "method": method, "params": parameters or {}}
            if session:
                message["sessionId"] = session
            data = json.dumps(message).encode() + b"\0"
            try:
                while data:
                    data = data[os.write(self._write, data) :]
            except OSError:
                self._ended = True
        return number

    def _watch(self, session: str) -> None:
        """Hear of the requests of a page or worker, and of the workers it starts."""
        attach = {"autoAttach": True, "waitForDebuggerOnStart": True, "flatten": True}
        for method, parameters in (("Network.enable", {}), ("Target.setAutoAttach", attach)):
            self._send(method, parameters, session)
        self._send("Runtime.runIfWaitingForDebugger", {}, session)

    def _listen(self) -> None:
        rest = b""
        while True:
            try:
                part = os.read(self._read, 1 << 16)
            except OSError:
                part = b""
            if not part:
                break
            *messages, rest = (rest + part).split(b"\0")
            for raw in messages:
                self._hear(json.loads(raw))
        with self._lock:
            self._ended = True
            self._lock.notify_all()
        os.close(self._read)

    def _hear(self, message: dict[str, Any]) -> None:
        if "id" in message:
            with self._lock:
                self._answers[message["id"]] = message
                self._lock.notify_all()
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        elif message.get("method") == "Target.attachedToTarget":
            # a thread of its own is not needed: nothing is waited for
            self._watch(message["params"]["sessionId"])


class Tab:
    """One page of a Browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser, self.session = browser, session

    def call(self, method: str, parameters: dict[str, Any] | None = None) -> dict[str, Any]:
        return self.browser.call(method, parameters, self.session)

    def resize(self, width: int, height: int, phone: bool = False) -> None:
        """The window's size; `phone`: with a finger in place of a mouse, two dots a pixel."""
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if phone else 1, "mobile": phone}
        self.call("Emulation.setDeviceMetricsOverride", size)

    def dark(self, on: bool) -> None:
        """Whether the person prefers dark pages."""
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [feature]})

    def evaluate(self, expression: str) -> Any:
        """The JSON value of a JavaScript expression, awaited; FcosError with the first line of what it throws."""
        answer = self.call(
            "Runtime.evaluate",
            {"expression": expression, "awaitPromise": True, "returnByValue": True, "userGesture": True},
        )
        if "exceptionDetails" in answer:
            told = answer["exceptionDetails"]
            text = told.get("exception", {}).get("description") or told.get("text", "")
            raise FcosError(f"the page failed: {text.splitlines()[0] if text else 'no reason given'}")
        return answer["result"].get("value")

    def give_files(self, selector: str, paths: Sequence[Path]) -> None:
        """Choose files in a file input, as a person would."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", {"nodeId": root, "selector": selector})["nodeId"]
        self.call("DOM.setFileInputFiles", {"nodeId": node, "files": [str(p.resolve()) for p in paths]})

    def screenshot(self, path: Path) -> None:
        """What a person would see, a PNG file."""
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))


def _pipe() -> tuple[int, int]:
    """(read end, write end) with numbers above those that the program will be given."""
    import fcntl  # not on Windows

    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]
