"""The images of the page in docs/images, made anew from today's page and weights with Chromium without a window.

    python tools/page_images.py [FOLDER]

One HTML file for the README, the served page and the page on a phone for docs/serve.md. Look at them afterwards.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image

from fcos.export.browser import Browser, Tab
from fcos.system.files import ASSETS

DOCS = Path(__file__).parents[1] / "docs" / "images"
PHOTOS = [ASSETS / "photos" / f"{name}.jpg" for name in ("photographer", "cat", "astronaut", "coffee")]
PATIENCE = 300.0  # seconds for an answer of the page
RUNS = 12  # the page shows the time of its last detection: the first ones are slower


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "detector.html"
        _fcos("export", "--format", "html", "--model", "fcos-lite0", "--out", str(file))
        with Browser() as browser:
            _one_file(browser.open(file.as_uri(), 1200, 656), folder)
    with _served() as address, Browser() as browser:
        _served_page(browser.open(address, 1200, 750), folder)


def _one_file(tab: Tab, folder: Path) -> None:
    """A cat found by the file from disk; of several runs the quickest."""
    tab.evaluate("fcosPage.ready")
    best = 10**9
    for number in range(RUNS):
        tab.give_files("#files", [PHOTOS[1]])
        _wait(tab, f"fcosPage.state.images[{number}]?.found")
        taken = int(re.findall(r"(\d+) ms", tab.evaluate("document.getElementById('status').innerText"))[0])
        if taken < best:
            best = taken
            tab.evaluate("void (document.getElementById('strip').style.display = 'none')")
            _shoot(tab, folder / "detector-html.jpg")


def _served_page(tab: Tab, folder: Path) -> None:
    """Where a box came from, on a wide screen; a heat map on a dark phone."""
    tab.evaluate("fcosPage.ready")
    tab.give_files("#files", PHOTOS)
    _wait(tab, "fcosPage.state.images[0]?.found")
    _press(tab, "ArrowDown")
    _wait(tab, "!document.getElementById('story').hidden")
    _shoot(tab, folder / "serve-page.jpg")
    tab.resize(390, 844, phone=True)
    tab.dark(True)
    _press(tab, "Escape")
    _press(tab, "ArrowRight")
    _wait(tab, "fcosPage.state.images[1]?.found")
    for key in ("ArrowDown", "h"):
        _press(tab, key)
    _wait(tab, "fcosPage.state.images[1].found.maps")
    _press(tab, "h")
    _shoot(tab, folder / "serve-phone.jpg")


@contextmanager
def _served() -> Iterator[str]:
    """The address of a `fcos serve` of the detector in the package."""
    command = [sys.executable, "-m", "fcos", "serve", "--port", "0", "--model", "fcos-lite0", "--runtime", "torch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as server:
        try:
            assert server.stdout is not None
            for line in server.stdout:
                if found := re.search(r"ready: (http://\S+)", line):
                    yield found[1]
                    return
            raise SystemExit("fcos serve ended at its start")
        finally:
            server.terminate()


def _fcos(*words: str) -> None:
    subprocess.run([sys.executable, "-m", "fcos", *words], check=True)


def _press(tab: Tab, key: str) -> None:
    tab.evaluate(f"void dispatchEvent(new KeyboardEvent('keydown', {{key: {key!r}, bubbles: true}}))")


def _wait(tab: Tab, expression: str) -> None:
    end = time.monotonic() + PATIENCE
    while not tab.evaluate(f"!!({expression})"):
        if time.monotonic() > end:
            raise SystemExit(f"the page never came to: {expression}")
        time.sleep(0.1)


def _shoot(tab: Tab, path: Path) -> None:
    time.sleep(1.0)  # the last drawing
    with tempfile.TemporaryDirectory() as place:
        raw = Path(place) / "screen.png"
        tab.screenshot(raw)
        with Image.open(raw) as image:
            image.convert("RGB").save(path, quality=88)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else DOCS)
