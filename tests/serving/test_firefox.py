"""The page and the HTML file in Firefox: the same detections as Python's, offline."""

import base64
import json
import time

import pytest
from firefox import Firefox, find_firefox
from localserver import ONNX, PHOTOS, odd_pictures, serving
from matching import assert_close

from fcos.export.about import About
from fcos.export.formats import html
from fcos.inference.load import load
from fcos.system.files import ASSETS
from fcos.zoo.find import find_weights, load_network

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.skipif(find_firefox() is None, reason="there is no Firefox here: apt install firefox-esr"),
]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """fcos-lite0 as one HTML file, its weights in single precision."""
    pytest.importorskip("onnxscript", reason="pip install 'fcos-detector[onnx]'")
    network, config, classes = load_network(find_weights("fcos-lite0"), ())
    file = tmp_path_factory.mktemp("firefox") / "detector.html"
    html.write(network.eval(), About(config, classes), file)
    return file


@pytest.fixture(scope="module")
def pictures():
    odd = [data for name, data in odd_pictures() if name in ("rotated by EXIF", "grey", "palette", "large")]
    return [path.read_bytes() for path in PHOTOS] + odd


def wait_for(firefox, expression, seconds=120):
    end = time.monotonic() + seconds
    while not (value := firefox.evaluate(expression)):
        assert time.monotonic() < end, expression
        time.sleep(0.1)
    return value


def compare(firefox, pictures):
    detector = load("fcos-lite0", device="cpu", runtime="torch")
    for data in pictures:
        url = "data:image/png;base64," + base64.b64encode(data).decode()
        found = firefox.evaluate(f"await window.fcosPage.detect({json.dumps(url)})")
        assert_close(html.told(found), detector(data, score=0.0))


def test_one_html_file_detects_from_disk(page, pictures, shared_data):
    with Firefox() as firefox:
        firefox.open(page.as_uri())
        wait_for(firefox, "document.getElementById('status').textContent === 'ready, offline'")
        firefox.give_files("#files", [ASSETS / "photos" / "cat.jpg"])
        wait_for(firefox, "fcosPage.state.images[0]?.found?.detections.length")
        assert firefox.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
        real = sorted((shared_data / "coco_val2017_60").rglob("*.jpg"))[:50]
        compare(firefox, pictures + [path.read_bytes() for path in real])


def test_the_served_page_detects_in_the_browser(page, pictures, tmp_path):
    pytest.importorskip("onnxruntime")
    graph = tmp_path / "fcos-lite0.onnx"
    text = page.read_text().split('<script id="packed-model" type="text/plain">')[1].partition("</script>")[0]
    graph.write_bytes(base64.b64decode(text))
    with serving(models=(str(graph),), settings=(), placing=ONNX) as (address, _), Firefox() as firefox:
        firefox.open(address)
        firefox.evaluate("await fcosPage.ready")
        assert firefox.evaluate("crossOriginIsolated") is True
        firefox.evaluate("document.getElementById('local').click()")
        compare(firefox, pictures)
        asked = firefox.evaluate("performance.getEntriesByType('resource').map((entry) => entry.name)")
    assert f"{address}/web/ort.wasm" in asked
    assert all(url.startswith((address + "/", "data:", "blob:")) for url in asked), asked
