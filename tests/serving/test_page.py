"""The page in a headless Chromium: the same detections as Python's, nothing from elsewhere, hands and keys."""

import base64
import gzip
import hashlib
import io
import json
import re
import time
from functools import partial

import numpy as np
import pytest
import torch
from exporting import PLAIN, network_of
from localserver import CAT, ONNX, PHOTOS, ask, odd_pictures, serving
from matching import assert_close
from PIL import Image
from tiny import NAMES, fcos, tiny_config

from fcos.data.images.reading import read_image
from fcos.decode import decode
from fcos.errors import ModelError
from fcos.export import seal
from fcos.export.browser import Browser, find_chromium
from fcos.export.formats import html
from fcos.export.job import Job, run
from fcos.export.judging import judge
from fcos.export.named import named
from fcos.inference.detector import Detector
from fcos.inference.load import load
from fcos.network import weights
from fcos.points import make_points
from fcos.presets import with_dialect
from fcos.system.files import ASSETS
from fcos.types import Classes, Predictions

WEB = ASSETS / "web"
DIALECTS = ("fcos", "original", "adelaidet", "detectron2", "mmdet", "torchvision")
needs_chromium = pytest.mark.skipif(find_chromium() is None, reason="there is no Chromium here: apt install chromium")


def test_the_files_of_others_are_what_they_were():
    """As npm gave them, by the table that tools/vendor_web.py wrote; nothing lies beside them unlisted."""
    table = json.loads((WEB / "vendor" / "vendor.json").read_text())
    for name, told in table.items():
        data = gzip.decompress((WEB / "vendor" / f"{name}.gz").read_bytes())
        assert (len(data), hashlib.sha256(data).hexdigest()) == (told["bytes"], told["sha256"]), name
        assert told["terms"].startswith(("MIT", "Apache-2.0"))
    assert {p.name.removesuffix(".gz") for p in (WEB / "vendor").iterdir()} - set(table) == {
        "vendor.json", "onnxruntime.LICENSE.txt",
    }  # fmt: skip


def test_what_is_served_comes_from_this_server_only():
    """Pages, scripts and their policy name no other host."""
    for path in (*WEB.glob("*.html"), *WEB.glob("*.js"), *WEB.glob("*.css")):
        assert "//" not in path.read_text().replace("// ", "").replace("http://www.w3.org", ""), path.name


# ------------------------------------------------------------------ the arithmetic


@pytest.fixture(scope="module")
def tab():
    """An empty page with core.js in it."""
    with Browser() as browser:
        tab = browser.open("about:blank")
        tab.evaluate(f"(0, eval)({json.dumps((WEB / 'core.js').read_text() + '; self.Fcos = Fcos')}), 0")
        yield tab


def about_of(config, size=None):
    return {"config": config.model_dump(mode="json"), "classes": {"names": NAMES}, "graph": {"size": size}}


def text(values):
    return base64.b64encode(np.ascontiguousarray(values)).decode()


UNPACK = "const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));"


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("fixed", [None, (96, 96)])
def test_images_are_prepared_as_in_python(tab, dialect, fixed):
    config = with_dialect(tiny_config(), dialect)
    detector = Detector(lambda _: None, config, Classes(NAMES), size=fixed)
    cat = read_image(CAT)
    for shape in ((300, 451), (64, 80), (31, 45), (128, 128), (200, 33), (1, 40)):
        image = np.ascontiguousarray(cat[: shape[0], : shape[1]])
        expected, size = detector.prepare(image)
        rgba = np.dstack((image, np.full(shape, 255, np.uint8)))
        ours = tab.evaluate(
            f"""(() => {{ {UNPACK}
            const ready = Fcos.prepare({{data: bytes("{text(rgba)}"), width: {shape[1]}, height: {shape[0]}}},
              {json.dumps(about_of(config, fixed))});
            const kind = ready.input.constructor.name;
            return [ready.height, ready.width, ready.size, kind, Array.from(ready.input)]; }})()"""
        )
        assert tuple(ours[2]) == tuple(size)
        assert tuple(ours[:2]) == tuple(expected.shape[1:])
        assert ours[3] == ("Uint8Array" if expected.dtype == torch.uint8 else "Float32Array")
        difference = (torch.tensor(ours[4]).reshape(expected.shape) - expected.float()).abs()
        # OpenCV interpolates in fixed point, Pillow rounds its weights: a grey level here and there
        assert difference.max() <= 1.01, (shape, float(difference.max()))
        assert difference.mean() < 0.2


@pytest.mark.browser
@needs_chromium
@pytest.mark.parametrize("nms", ["class", "agnostic", "none", "soft-linear", "soft-gaussian"])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_predictions_are_decoded_as_in_python(tab, dialect, nms):
    config = with_dialect(tiny_config(), dialect).override({"decode": {"topk": 40, "max_detections": 25, "nms": nms}})
    size, shape, image = (64, 96), (60, 90), (120, 180)
    points = make_points(size, config.model, config.assign)
    generator = torch.Generator().manual_seed(3)
    count = len(points.xy)
    said = Predictions(
        torch.randn(1, count, 2, generator=generator) * 2 - 1,
        torch.rand(1, count, 4, generator=generator) * 60,
        torch.randn(1, count, generator=generator),
    )
    (expected,) = decode(said, points, [shape], config.decode)
    assert len(expected) > 5
    flat = {name: text(getattr(said, name).numpy()) for name in said._fields}
    story = tab.evaluate(
        f"""(() => {{ {UNPACK}
        const flat = {json.dumps(flat)}, said = {{}};
        for (const name of Object.keys(flat)) said[name] = new Float32Array(bytes(flat[name]).buffer);
        const ready = {{height: {size[0]}, width: {size[1]}, size: {list(shape)}}};
        const told = Fcos.tell(said, ready, {{height: {image[0]}, width: {image[1]}}}, {json.dumps(about_of(config))});
        return {{...told, maps: told.maps.map((map) => [map.width, map.height, ...map.extent])}}; }})()"""
    )
    found = html.told(story)
    order = [np.lexsort((d.labels, d.points)) for d in (found, expected)]
    found, expected = (d[torch.tensor(o)] for d, o in zip((found, expected), order, strict=True))
    assert torch.equal(found.points, expected.points)
    assert torch.equal(found.labels, expected.labels)
    torch.testing.assert_close(found.scores, expected.scores, rtol=0, atol=1e-5)
    further = torch.tensor([0.0, 0, 1, 1]) * config.data.inclusive_boxes
    torch.testing.assert_close(found.boxes, expected.boxes * 2 + further, rtol=0, atol=2e-3)
    # the maps cover whole cells, also beyond the image
    for (wide, high, across, down), grid in zip(story["maps"], points.grids, strict=True):
        assert (across, down) == (2 * wide * grid.step_x, 2 * high * grid.step_y)


# ------------------------------------------------------------------ the page


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """(checkpoint, its page as `fcos export` wrote it, the ONNX file inside, what the command said)"""
    pytest.importorskip("onnxscript", reason="pip install 'fcos-detector[onnx]'")
    folder = tmp_path_factory.mktemp("page")
    config = tiny_config(model={**PLAIN, "strides": (16, 32)}, decode={"topk": 60, "max_detections": 30})
    checkpoint = weights.save(folder / "small.safetensors", network_of(config).state_dict(), config, Classes(NAMES))
    result = run(Job(partial(named, str(checkpoint)), "html", folder / "small.html", dtype="fp32"))
    graph = folder / "small.onnx"
    packed = re.search(r'<script id="packed-model" type="text/plain">(.*?)</script>', result.file.read_text())
    graph.write_bytes(base64.b64decode(packed[1]))
    return checkpoint, result, graph


@pytest.mark.browser
@needs_chromium
def test_the_page_detects_in_the_browser_as_python_does(files):
    detector = load(files[0], device="cpu", runtime="torch")
    pictures = [path.read_bytes() for path in PHOTOS] + [
        data for name, data in odd_pictures() if name in ("rotated by EXIF", "grey", "palette", "large")
    ]
    with serving(models=(str(files[2]),), settings=(), placing=ONNX) as (address, _), Browser() as browser:
        tab = browser.open(address)
        tab.evaluate("fcosPage.ready")
        assert tab.evaluate("crossOriginIsolated") is True
        tab.evaluate("document.getElementById('local').click()")
        for data in pictures:
            url = "data:image/png;base64," + base64.b64encode(data).decode()
            story = tab.evaluate(f"fcosPage.detect({json.dumps(url)})")
            expected = detector(data, score=0.0)
            assert (story["height"], story["width"]) == expected.size
            assert_close(html.told(story), expected)
        asked = {url for url in browser.requests if not url.startswith(("data:", "blob:"))}
    assert all(url.startswith((address + "/", "about:")) for url in asked), asked
    assert f"{address}/web/ort.wasm" in asked


@pytest.mark.browser
@pytest.mark.slow
@needs_chromium
def test_the_page_detects_on_real_pictures_as_python_does(shared_data):
    detector = load("fcos-lite0", device="cpu", runtime="torch")
    paths = sorted((shared_data / "coco_val2017_60").rglob("*.jpg"))[:50]
    with serving(settings=()) as (address, _), Browser() as browser:
        tab = browser.open(address)
        tab.evaluate("fcosPage.ready")
        tab.evaluate("document.getElementById('local').click()")
        for path in paths:
            url = "data:image/jpeg;base64," + base64.b64encode(path.read_bytes()).decode()
            assert_close(html.told(tab.evaluate(f"fcosPage.detect({json.dumps(url)})")), detector(path, score=0.0))


def wait_for(tab, expression, seconds=60):
    end = time.monotonic() + seconds
    while not (value := tab.evaluate(expression)):
        assert time.monotonic() < end, expression
        time.sleep(0.05)
    return value


def press(tab, key):
    tab.evaluate(f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: '{key}', bubbles: true}})), 0")


@pytest.mark.browser
@needs_chromium
def test_a_page_without_https_says_why_there_is_no_camera():
    """Browsers take `mediaDevices` away from pages of another computer over http."""
    with serving() as (address, _), Browser() as browser:
        tab = browser.open(address)
        tab.evaluate("fcosPage.ready")
        tab.evaluate("Object.defineProperty(navigator, 'mediaDevices', {value: undefined}), 0")
        tab.evaluate("document.getElementById('camera').click()")
        wait_for(tab, "document.body.innerText.includes('only to pages of https or of localhost')", 10)


@pytest.mark.browser
@needs_chromium
def test_a_person_looks_at_a_picture(tmp_path):
    """Images are opened, the score moved, classes switched off, a box chosen; all without a mouse where possible."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    with serving() as (address, _), Browser() as browser:
        every = json.loads(ask(address, "/predict?score=0", CAT)[2])["results"][0]["detections"]
        tab = browser.open(address)
        tab.evaluate("fcosPage.ready")
        assert tab.evaluate("document.title") == "fcos-lite0"
        assert tab.evaluate("document.getElementById('classes').innerText").split()[:2] == ["aeroplane", "bicycle"]
        tab.give_files("#files", [ASSETS / "photos" / "cat.jpg", ASSETS / "photos" / "astronaut.jpg", broken])
        wait_for(tab, "fcosPage.state.images[0]?.found?.detections.length")
        boxes = "document.querySelectorAll('#list button').length"
        set_score = "(s => {{ s.value = {}; s.oninput({{target: s}}); return {} }})(document.getElementById('score'))"
        for least in (0.0, 0.2, 0.5):
            wanted = sum(d["score"] >= least for d in every)
            assert tab.evaluate(set_score.format(least, boxes)) == min(wanted, 100)
        tab.evaluate(set_score.format(0.1, 0))
        assert tab.evaluate("document.querySelectorAll('#strip button').length") == 3
        tab.evaluate("document.getElementById('none').click()")
        assert tab.evaluate(boxes) == 0
        tab.evaluate("document.getElementById('all').click()")
        press(tab, "ArrowDown")
        told = wait_for(tab, "!document.getElementById('story').hidden && document.getElementById('story').innerText")
        assert every[0]["label"] in told
        assert "centerness" in told
        press(tab, "h")
        assert tab.evaluate("document.getElementById('map-kind').value") == "class"
        wait_for(tab, "fcosPage.state.images[0].found.maps.length")
        press(tab, "Escape")
        assert tab.evaluate("document.getElementById('story').hidden") is True
        before = tab.evaluate("fcosPage.state.view.scale")
        press(tab, "+")
        assert tab.evaluate("fcosPage.state.view.scale") > before
        press(tab, "ArrowRight")
        wait_for(tab, "fcosPage.state.images[1].found")
        press(tab, "ArrowRight")
        wait_for(tab, "document.getElementById('status').classList.contains('wrong')")
        tab.resize(390, 844, phone=True)
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth") is True
        hosts = {url for url in browser.requests if not url.startswith(("data:", "blob:", address + "/"))}
        assert not hosts
        docs = browser.open(address + "/docs")
        assert wait_for(docs, "document.querySelectorAll('.opblock').length") > 10


@pytest.mark.browser
@needs_chromium
def test_keys_keep_their_place_and_the_page_says_what_is_not_there(tmp_path):
    """A control that was used has the focus afterwards; nothing found, a file that is no image, a server that ended."""
    names = [tmp_path / f"{i:02}.png" for i in range(12)]
    for path in names:
        Image.fromarray(np.full((48, 64, 3), 90, np.uint8)).save(path)
    other = tmp_path / "notes.txt"
    other.write_text("no image")
    status = "document.getElementById('status').textContent"
    focused = "document.activeElement.closest('#classes, #list, #strip')?.id"
    with Browser() as browser:
        with serving() as (address, _):
            tab = browser.open(address)
            tab.evaluate("fcosPage.ready")
            tab.resize(390, 844, phone=True)
            tab.give_files("#files", [ASSETS / "photos" / "cat.jpg", *names, other])
            wait_for(tab, "fcosPage.state.images[0]?.found?.detections.length")
            wait_for(tab, f"{status}.endsWith('left out, as no image: notes.txt')")
            score = "(s => {{ s.value = {}; s.oninput({{target: s}}); }})(document.getElementById('score'))"
            tab.evaluate(score.format(1))
            assert ", nothing from score 1.00 on" in tab.evaluate(status)
            assert tab.evaluate("document.getElementById('count').textContent").startswith("(0 of ")
            tab.evaluate(score.format(0.1))
            assert "nothing" not in tab.evaluate(status)
            for where, part in (("classes", "input"), ("list", "button"), ("strip", "button")):
                tab.evaluate(f"(e => {{ e.focus(); e.click(); }})(document.querySelector('#{where} {part}'))")
                assert tab.evaluate(focused) == where
            # the thumbnail of the image that is looked at lies in the strip's sight
            press(tab, "ArrowRight")
            tab.evaluate("document.querySelector('#strip button:last-child').click()")
            wait_for(tab, "fcosPage.state.now === 12 && fcosPage.state.images[12].found")
            rect = "(r => r.left >= 0 && r.right <= innerWidth)(document.querySelector('{}').getBoundingClientRect())"
            wait_for(tab, rect.format("#strip [aria-current=true]"))
        press(tab, "ArrowLeft")
        wait_for(tab, f"{status}.includes('the server does not answer')")


@pytest.mark.browser
@needs_chromium
def test_going_back_shows_what_was_found_there(tmp_path):
    """The list, the counts, the status and the heat map are those of the image on the screen."""
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    names = ("cat.jpg", "astronaut.jpg")
    with serving() as (address, _), Browser() as browser:
        tab = browser.open(address)
        tab.evaluate("fcosPage.ready")
        tab.give_files("#files", [*(ASSETS / "photos" / name for name in names), broken])
        there = (
            "(['list', 'count', 'classes', 'status'].map((id) => document.getElementById(id).textContent))"
            ".concat(document.getElementById('status').classList.contains('wrong'))"
        )
        status = "document.getElementById('status').textContent.startsWith('{}: ')"
        seen = []
        for name in (*names, "broken.jpg"):
            wait_for(tab, status.format(name))
            seen.append(tab.evaluate(there))
            press(tab, "ArrowRight")
        assert seen[0] != seen[1]
        assert seen[2][:2] == ["", ""]
        assert "cannot show" in seen[2][3]
        for expected in (seen[1], seen[0]):
            press(tab, "ArrowLeft")
            assert wait_for(tab, f"JSON.stringify({there}) === JSON.stringify({json.dumps(expected)})")
        press(tab, "h")
        wait_for(tab, "fcosPage.state.images[0].found.maps")
        press(tab, "ArrowRight")
        wait_for(tab, "fcosPage.state.images[1].found.maps")


@pytest.mark.browser
@needs_chromium
def test_a_heat_map_is_as_large_as_its_cells():
    """Two cells of 400 px over an image of 451: the second is cut at the edge."""
    with serving() as (address, _), Browser() as browser:
        tab = browser.open(address)
        tab.evaluate("fcosPage.ready")
        tab.give_files("#files", [ASSETS / "photos" / "cat.jpg"])
        wait_for(tab, "fcosPage.state.images[0]?.found?.detections.length")
        press(tab, "h")
        wait_for(tab, "fcosPage.state.images[0].found.maps")
        seen = tab.evaluate(
            """(async () => {
            const state = fcosPage.state, image = state.images[0], canvas = document.getElementById("canvas");
            async function look(values) {
              image.found.maps = [{level: "P7", width: 2, height: 1, extent: [800, 400], class: values}];
              state.map = {kind: "class", level: 0};
              state.view = {scale: 0.5, x: 20, y: 20};
              dispatchEvent(new Event("resize"));
              const score = document.getElementById("score");
              score.value = 1;
              score.oninput({target: score});
              for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);
              const { scale, x, y } = state.view, ratio = devicePixelRatio, context = canvas.getContext("2d");
              return [30, 380, 420, 456].map((at) =>
                context.getImageData((at * scale + x) * ratio, (280 * scale + y) * ratio, 1, 1).data.join());
            }
            const cold = await look([0, 0]), hot = [await look([255, 0]), await look([0, 255])];
            return hot.map((row) => row.map((value, i) => value !== cold[i])); })()"""
        )
        assert seen == [[True, True, False, False], [False, False, True, False]]


def mouse(tab, kind, x, y, **more):
    tab.call("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, **more})


def click(tab, x, y):
    for kind in ("mousePressed", "mouseReleased"):
        mouse(tab, kind, x, y, button="left", clickCount=1)


@pytest.mark.browser
@needs_chromium
def test_a_folder_is_dropped_a_picture_pasted_and_a_box_clicked(tmp_path):
    """With the browser's own events: files from outside, the clipboard, mouse, wheel and fingers."""
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    for name in ("folder/a.jpg", "folder/inner/b.jpg", "folder/notes.txt"):
        (tmp_path / name).write_bytes(CAT)
    with serving() as (address, _), Browser() as browser:
        tab = browser.open(address)
        tab.evaluate("fcosPage.ready")
        dropped = {"items": [], "files": [str(tmp_path / "folder")], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            tab.call("Input.dispatchDragEvent", {"type": kind, "x": 300, "y": 300, "data": dropped})
        wait_for(tab, "fcosPage.state.images.length === 2 && fcosPage.state.images[0].found")
        assert sorted(tab.evaluate("fcosPage.state.images.map(p => p.name)")) == ["a.jpg", "b.jpg"]
        tab.evaluate(
            f"""(() => {{ {UNPACK}
            const data = new DataTransfer();
            data.items.add(new File([bytes("{text(np.frombuffer(CAT, np.uint8))}")], "p.jpg", {{type: "image/jpeg"}}));
            dispatchEvent(new ClipboardEvent("paste", {{clipboardData: data}})); }})()"""
        )
        wait_for(tab, "fcosPage.state.now === 2 && fcosPage.state.images[2].found")

        best = "fcosPage.state.images[2].found.detections[0]"
        tab.evaluate("(s => { s.value = 0.05; s.oninput({target: s}); })(document.getElementById('score'))")
        x1, y1, x2, y2 = tab.evaluate(f"{best}.box")
        scale, left, top = tab.evaluate("(v => [v.scale, v.x, v.y])(fcosPage.state.view)")
        area = tab.evaluate("(r => [r.left, r.top])(document.getElementById('canvas').getBoundingClientRect())")
        spot = [area[0] + left + scale * (x1 + x2) / 2, area[1] + top + scale * (y1 + y2) / 2]
        click(tab, *spot)
        wait_for(tab, "!document.getElementById('story').hidden")
        # of the boxes under the pointer, the smallest
        middle = ((x1 + x2) / 2, (y1 + y2) / 2)
        under = [
            d["box"]
            for d in tab.evaluate("fcosPage.state.images[2].found.detections.filter(d => d.score >= 0.05)")
            if d["box"][0] <= middle[0] <= d["box"][2] and d["box"][1] <= middle[1] <= d["box"][3]
        ]
        smallest = min(under, key=lambda b: (b[2] - b[0]) * (b[3] - b[1]))
        assert tab.evaluate("fcosPage.state.chosen.box") == pytest.approx(smallest, abs=0.01)
        for part in ("score", "class probability", "centerness", "level", "location", "left, top", "dropped by NMS"):
            assert part in tab.evaluate("document.getElementById('story').innerText")
        # the heat map opens at the level that fired
        press(tab, "h")
        wait_for(tab, "fcosPage.state.images[2].found.maps")
        level = tab.evaluate("fcosPage.state.chosen.level")
        wait_for(tab, f"document.getElementById('map-level').selectedOptions[0]?.text === '{level}'")
        before = tab.evaluate("fcosPage.state.view.scale")
        mouse(tab, "mouseWheel", *spot, deltaX=0, deltaY=-200)
        wait_for(tab, f"fcosPage.state.view.scale > {before}")
        # what is under the pointer stays there
        scale, left, top = tab.evaluate("(v => [v.scale, v.x, v.y])(fcosPage.state.view)")
        there = [(spot[0] - area[0] - left) / scale, (spot[1] - area[1] - top) / scale]
        assert there == pytest.approx(middle, abs=0.5)
        # one class after the other
        count = "document.querySelectorAll('#list button').length"
        first = tab.evaluate("document.querySelector('#classes input').checked")
        boxes = tab.evaluate(count)
        gone = int(tab.evaluate("document.querySelector('#classes .number').textContent"))
        tab.evaluate("document.querySelector('#classes input').click()")
        assert (first, tab.evaluate(count)) == (True, boxes - gone)
        # two fingers
        tab.resize(390, 844, phone=True)
        tab.call("Emulation.setTouchEmulationEnabled", {"enabled": True, "maxTouchPoints": 2})
        tab.evaluate("document.getElementById('zoom-fit').click()")
        before = tab.evaluate("fcosPage.state.view.scale")
        for kind, apart in (("touchStart", 20), ("touchMove", 40), ("touchMove", 60), ("touchEnd", None)):
            fingers = [] if apart is None else [{"x": 190 - apart, "y": 250}, {"x": 190 + apart, "y": 250}]
            tab.call("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
        wait_for(tab, f"fcosPage.state.view.scale > 1.5 * {before}")


@pytest.mark.browser
@needs_chromium
def test_the_camera(files):
    flags = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]
    with serving(models=(str(files[2]),), settings=(), placing=ONNX) as (address, _), Browser(flags) as browser:
        tab = browser.open(address)
        tab.evaluate("fcosPage.ready")
        tab.evaluate("document.getElementById('camera').click()")
        wait_for(tab, "fcosPage.state.camera?.rate && fcosPage.state.camera.found.detections.length >= 0")
        assert "frames a second" in tab.evaluate("document.getElementById('status').textContent")
        tab.evaluate("document.getElementById('camera').click()")
        wait_for(tab, "fcosPage.state.camera === null")


# ------------------------------------------------------------------ the page as one file


@pytest.mark.browser
@needs_chromium
def test_one_html_file_detects_from_disk_and_sends_nothing(files):
    _, result, _ = files
    assert not result.wrong
    assert result.report.share < 1e-4  # the check ran in Chromium
    assert "good: every difference is within the limits for fp32\nnext: open" in result.text()
    assert html.read(result.file).classes.names == NAMES
    with Browser() as browser:
        tab = browser.open(result.file.as_uri())
        wait_for(tab, "document.getElementById('status').textContent === 'ready, offline'")
        listed = "[...document.querySelectorAll('#classes label')].map((l) => l.innerText.trim())"
        assert tab.evaluate(listed) == sorted(NAMES)  # before an image is there
        tab.evaluate("document.getElementById('none').click()")
        assert tab.evaluate("document.querySelectorAll('#classes input:checked').length") == 0
        tab.evaluate("document.getElementById('all').click()")
        assert tab.evaluate("[document.title, document.querySelector('h1').innerText]") == ["small", "small"]
        tab.give_files("#files", [ASSETS / "photos" / "cat.jpg"])
        wait_for(tab, "fcosPage.state.images[0]?.found")
        assert tab.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
        asked = {url for url in browser.requests if not url.startswith(("data:", "blob:"))}
    assert asked <= {result.file.as_uri(), "about:blank", "http://127.0.0.1:9/"}


def test_a_page_is_called_as_its_file(files):
    """Two exports of one preset are told apart."""
    page = html._page(b"", html.read(files[1].file), "a<b")
    assert "<title>a&lt;b</title>" in page
    assert "<h1>a&lt;b</h1>" in page
    assert "<title>small</title>" in files[1].file.read_text()


@pytest.mark.browser
@needs_chromium
def test_a_damaged_page_is_rejected(files, tmp_path):
    reference = load(files[0], device="cpu")
    page = files[1].file.read_text()
    out = tmp_path / "detector.html"

    def write(old, new):
        """The page with a fault that its seal knows nothing of."""
        assert old in page
        unset = seal._PLACE.sub(rb"\g<1>" + seal.UNSET.encode(), page.replace(old, new).encode())
        out.write_bytes(seal.sealed(unset))

    write('id="packed-model" type="text/plain">', 'id="packed-model" type="text/plain">AAAA')
    assert "cannot be run" in judge(reference, out, None)[1][0]
    write("f(x - distances[0])", "f(x - 2 * distances[0])")
    assert "boxes differ" in " ".join(judge(reference, out, None)[1])
    out.write_text(page.replace("f(x - distances[0])", "f(x - 2 * distances[0])"))
    with pytest.raises(ModelError, match="not as fcos export wrote it"):
        html.read(out)


def test_half_weights_are_half_as_large_and_compute_in_single(files):
    """onnxruntime gives the outputs of the weights rounded to float16, in float32."""
    onnx = pytest.importorskip("onnx")
    ort = pytest.importorskip("onnxruntime")
    model = onnx.load(str(files[2]))
    rounded = onnx.load(str(files[2]))
    for tensor in rounded.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32 and values.size >= 256:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16).astype(np.float32), tensor.name))
    html._halve(model)
    onnx.checker.check_model(model, full_check=True)
    assert len(model.SerializeToString()) < 0.6 * len(rounded.SerializeToString())
    image = np.random.default_rng(0).integers(0, 255, (1, 3, 64, 96), dtype=np.uint8)
    outputs = [ort.InferenceSession(m.SerializeToString()).run(None, {"images": image}) for m in (model, rounded)]
    for ours, theirs in zip(*outputs, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4)


def test_a_page_of_others_is_one_line(capsys, tmp_path):
    other = tmp_path / "other.html"
    other.write_text("<!doctype html><title>hello</title>")
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    picture = tmp_path / "a.png"
    picture.write_bytes(stream.getvalue())
    code, _, err = fcos(capsys, "predict", picture, "--model", other)
    assert code == 2
    assert str(other) in err
    assert err.count("\n") == 1
