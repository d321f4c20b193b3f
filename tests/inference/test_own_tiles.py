"""A model that learned from tiles looks at tiles wherever it is used, unless told otherwise."""

import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from tiny import fcos

from fcos.inference.composite import Looks, compose
from fcos.inference.load import load
from fcos.network import weights
from fcos.scale import BatchDetector
from fcos.system.files import ASSETS
from fcos.zoo.find import find_weights

SIDE = 200


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """The package's detector with `data.tile` in its file, as training keeps it, and an image of several tiles."""
    folder = tmp_path_factory.mktemp("own")
    state, config, classes, _ = weights.read(find_weights("fcos-lite0"))
    changes = {"data": {"tile": SIDE, "size": 192, "max_size": 256}}
    weights.save(folder / "tiled.safetensors", state, config.override(changes), classes)
    Image.open(ASSETS / "photos" / "cat.jpg").resize((400, 300)).save(folder / "large.png")
    return folder


@pytest.fixture(scope="module")
def ways(work):
    """(through its tiles, as a whole)."""
    model = load(work / "tiled.safetensors", device="cpu")
    pixels = np.asarray(Image.open(work / "large.png"))
    found = tuple(compose([model], Looks(tile)).detect([pixels], [None], 0.1)[0] for tile in (SIDE, None))
    assert rows(found[0]) != rows(found[1])
    return found


def rows(detections):
    boxes = np.asarray(detections.boxes).round(2).tolist()
    return sorted((label, *box) for label, box in zip(detections.labels.tolist(), boxes, strict=True))


def test_in_python(work, ways):
    model = load(work / "tiled.safetensors", device="cpu")
    assert rows(model(work / "large.png", score=0.1)) == rows(ways[0])
    assert rows(model([work / "large.png"], score=0.1)[0]) == rows(ways[0])
    assert rows(model(work / "large.png", score=0.1, tile=None)) == rows(ways[1])
    whole = replace(model, config=model.config.override("data.tile=0"))
    assert rows(whole(work / "large.png", score=0.1)) == rows(ways[1])
    frame = np.asarray(Image.open(work / "large.png"))
    assert [rows(f.detections) for f in model.stream([frame], score=0.1)] == [rows(ways[0])]
    assert [rows(f.detections) for f in model.stream([frame], score=0.1, tile=None)] == [rows(ways[1])]
    assert [rows(f.detections) for f in whole.stream([frame], score=0.1, tile=SIDE)] == [rows(ways[0])]
    mirrored = whole(frame, score=0.1, tta="flip")
    assert [rows(f.detections) for f in whole.stream([frame], score=0.1, tta="flip")] == [rows(mirrored)]
    assert rows(mirrored) != rows(ways[1])


@pytest.mark.parametrize(("words", "way"), [((), 0), (("--tile", "none"), 1), (("--tile", "0"), 1)])
def test_by_the_command(work, ways, capsys, words, way):
    file = work / "tiled.safetensors"
    code, out, err = fcos(capsys, "predict", work / "large.png", "--model", file, "--score", "0.1", "--json", *words)
    assert code == 0, err
    assert len(json.loads(out)["detections"]) == len(ways[way])
    assert (f"learned from tiles of {SIDE} pixels" in err) == (not words)
    code, out, err = fcos(capsys, "explain", work / "large.png", "--model", file, "--score", "0.1", *words)
    assert code == 0, err
    assert ("tile" in out) == (way == 0)
    assert (f"learned from tiles of {SIDE} pixels" in err) == (not words)


def test_proposals_are_of_the_whole_image(work, capsys):
    words = ("--model", work / "tiled.safetensors", "--proposals", "--json")
    code, _, err = fcos(capsys, "predict", work / "large.png", *words)
    assert code == 0, err
    assert "tiles" not in err
    code, _, err = fcos(capsys, "predict", work / "large.png", *words, "--tile", "200")
    assert (code, "no --tile" in err) == (2, True)


def test_in_rows(work, ways):
    for tile, way in ((None, 0), ("none", 1)):
        detect = BatchDetector(str(work / "tiled.safetensors"), score=0.1, device="cpu", tile=tile)
        out = detect({"path": [str(work / "large.png")]})
        assert len(out["names"][0]) == len(ways[way])


def test_in_a_video(work, ways, capsys, tmp_path):
    cv2 = pytest.importorskip("cv2")
    frame = cv2.imread(str(work / "large.png"))
    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (400, 300))
    for _ in range(3):
        video.write(frame)
    video.release()
    lines = {}
    for words in ((), ("--tile", "none")):
        arguments = ("--model", work / "tiled.safetensors", "--no-video", "--out", tmp_path / f"o{len(words)}", *words)
        code, _, err = fcos(capsys, "track", tmp_path / "v.avi", *arguments)
        assert code == 0, err
        assert (f"learned from tiles of {SIDE} pixels" in err) == (not words)
        lines[words] = (tmp_path / f"o{len(words)}" / "v.jsonl").read_text()
    assert lines[()] != lines["--tile", "none"]
