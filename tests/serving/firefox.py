"""A Firefox without a window, driven through Marionette, the door that every Firefox has: length, colon, JSON over TCP.

Source: https://firefox-source-docs.mozilla.org/testing/marionette/Protocol.html
"""

import json
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path


def find_firefox():
    return next((p for p in map(shutil.which, ("firefox-esr", "firefox")) if p), None)


class Firefox:
    """A context manager with a profile of its own. Names of other hosts lead nowhere, and every attempt to reach one
    fails: the proxy does not exist."""

    def __init__(self, **preferences):
        self._profile = tempfile.TemporaryDirectory(prefix="fcos-firefox-", ignore_cleanup_errors=True)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        settings = {
            "marionette.port": port, "browser.shell.checkDefaultBrowser": False, "app.update.auto": False,
            "datareporting.policy.dataSubmissionEnabled": False, "toolkit.telemetry.enabled": False,
            "network.proxy.type": 1, "network.proxy.http": "127.0.0.1", "network.proxy.http_port": 9,
            "network.proxy.ssl": "127.0.0.1", "network.proxy.ssl_port": 9, "network.proxy.no_proxies_on": "127.0.0.1",
            "network.proxy.allow_hijacking_localhost": False, **preferences,
        }  # fmt: skip
        lines = [f"user_pref({json.dumps(name)}, {json.dumps(value)});" for name, value in settings.items()]
        Path(self._profile.name, "user.js").write_text("\n".join(lines))
        self._process = subprocess.Popen(
            [find_firefox(), "--headless", "--marionette", "--no-remote", "--profile", self._profile.name],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        self._number = 0
        end = time.monotonic() + 180
        while True:
            try:
                self._socket = socket.create_connection(("127.0.0.1", port), timeout=300)
                break
            except OSError:
                assert time.monotonic() < end, "Firefox does not start"
                assert self._process.poll() is None, "Firefox ended"
                time.sleep(0.2)
        self._read()  # its greeting
        self.call("WebDriver:NewSession", {"capabilities": {"alwaysMatch": {"acceptInsecureCerts": True}}})
        self.call("WebDriver:SetTimeouts", {"script": 240_000, "pageLoad": 240_000})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()
        self._process.terminate()
        try:
            self._process.wait(20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._profile.cleanup()

    def _read(self):
        text = b""
        while not text.endswith(b":"):
            part = self._socket.recv(1)
            assert part, "Firefox ended"
            text += part
        size, data = int(text[:-1]), bytearray()
        while len(data) < size:
            data += self._socket.recv(min(size - len(data), 1 << 20))
        return json.loads(data)

    def call(self, command, parameters=None):
        self._number += 1
        message = json.dumps([0, self._number, command, parameters or {}]).encode()
        self._socket.sendall(b"%d:" % len(message) + message)
        _, number, error, result = self._read()
        assert number == self._number
        assert error is None, error["message"]
        return result

    def open(self, url):
        self.call("WebDriver:Navigate", {"url": url})

    def evaluate(self, expression):
        """The JSON value of a JavaScript expression, awaited."""
        script = f"""const done = arguments[arguments.length - 1];
            (async () => ({expression}))().then(
              (value) => done(JSON.stringify({{value: value === undefined ? null : value}})),
              (error) => done(JSON.stringify({{error: String(error)}})));"""
        told = self.call("WebDriver:ExecuteAsyncScript", {"script": script, "args": [], "sandbox": None})["value"]
        answer = json.loads(told)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def give_files(self, selector, paths):
        """Choose files in a file input, as a person would."""
        found = self.call("WebDriver:FindElement", {"using": "css selector", "value": selector})["value"]
        text = "\n".join(str(Path(p).resolve()) for p in paths)
        self.call("WebDriver:ElementSendKeys", {"id": next(iter(found.values())), "text": text})

    def screenshot(self, path):
        import base64

        data = self.call("WebDriver:TakeScreenshot", {"full": False})["value"]
        Path(path).write_bytes(base64.b64decode(data))
