"""Proposals: in each tool's form, never taken for the truth; the order in which to label."""

import csv
import json
from urllib.parse import unquote
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
from scripted import CONFIG, GREY, ByColour
from scripted import detector as scripted
from tiny import fcos, make_shapes

import fcos as package
from fcos.data.open import open_dataset
from fcos.data.write import convert
from fcos.errors import DataError
from fcos.inference.detector import Detector
from fcos.labels.evidence import Evidence
from fcos.labels.proposing import Look, looks_at, propose, select
from fcos.overlap import pairwise_iou

TOOLS = ("label-studio", "cvat", "labelme", "coco", "yolo")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("propose")
    truth = open_dataset(make_shapes(folder / "shapes", {"train": 8}, seed=4), "train")
    return Detector(ByColour(2), CONFIG, truth.classes), truth, folder / "shapes" / "images"


def in_file(to, out):
    """{image: [(class, corners, score, source or '')]} as the file of each tool has it, read by hand."""
    if to == "label-studio":
        result = {}
        for task in json.loads((out / "all.json").read_text()):
            assert "annotations" not in task
            (told,) = task["predictions"]
            rows = []
            for r in told["result"]:
                v, w, h = r["value"], r["original_width"] / 100, r["original_height"] / 100
                box = (v["x"] * w, v["y"] * h, (v["x"] + v["width"]) * w, (v["y"] + v["height"]) * h)
                rows.append((v["rectanglelabels"][0], box, r["score"], told["model_version"]))
            result[unquote(task["data"]["image"].rpartition("/")[2])] = rows
        return result
    if to == "cvat":
        return {
            image.get("name"): [
                (
                    b.get("label"),
                    tuple(float(b.get(k)) for k in ("xtl", "ytl", "xbr", "ybr")),
                    float(b.find("attribute").text),
                    "" if b.get("source") == "auto" else None,
                )
                for b in image.iter("box")
            ]
            for image in ElementTree.parse(out / "annotations.xml").iter("image")
        }
    if to == "labelme":
        result = {}
        for file in out.glob("all/*.json"):
            told = json.loads(file.read_text())
            rows = []
            for s in told["shapes"]:
                assert s["flags"] == {"proposed": True}
                by, score = s["description"].removeprefix("proposed by ").split(", score ")
                rows.append((s["label"], (*s["points"][0], *s["points"][1]), float(score), by))
            result[told["imagePath"]] = rows
        return result
    if to == "coco":
        told = json.loads((out / "instances_all.json").read_text())
        names = {c["id"]: c["name"] for c in told["categories"]}
        result = {i["file_name"]: [] for i in told["images"]}
        files = {i["id"]: i["file_name"] for i in told["images"]}
        for a in told["annotations"]:
            x, y, w, h = a["bbox"]
            row = (names[a["category_id"]], (x, y, x + w, y + h), a["score"], a["source"])
            result[files[a["image_id"]]].append(row)
        return result
    table = {(row["image"], row["row"]): row for row in csv.DictReader((out / "scores.csv").open())}
    data = open_dataset(out)
    assert sum(len(r.boxes) for r in data.records) == len(table)
    result = {}
    for r in data.records:
        rows = [table[r.path.name, str(k)] for k in range(1, len(r.boxes) + 1)]
        places = zip(r.boxes.tolist(), r.labels.tolist(), rows, strict=True)
        result[r.path.name] = [(data.classes.names[k], tuple(b), float(s["score"]), s["source"]) for b, k, s in places]
    return result


@pytest.mark.parametrize("to", TOOLS)
def test_every_tool_gets_boxes_scores_and_their_source(world, tmp_path, to):
    detector, truth, images = world
    done = package.labels.propose(images, model=detector, to=to, out=tmp_path / "out")
    told = in_file(to, tmp_path / "out")
    expected = {r.file_name: detector(r.path) for r in truth.records}
    assert {name.replace("_", " ") for name in told} == {name.replace("_", " ") for name in expected}
    total = 0
    for name, rows in told.items():
        mine = expected[name] if name in expected else expected[name.replace("_", " ")]
        assert len(rows) == len(mine), name
        total += len(rows)
        for label, box, score, source in rows:
            iou = pairwise_iou(np.array([box]), mine.boxes.numpy())[0]
            best = int(iou.argmax())
            assert iou[best] > 0.97
            assert label == mine.name(best)
            assert score == pytest.approx(float(mine.scores[best]), abs=1e-3)
            assert source in (CONFIG.name, "")
    assert done.boxes == total > 5
    assert any("score" in line for line in done.lost) == (to == "yolo")


@pytest.mark.parametrize("nms", ["class", "agnostic", "soft-linear", "soft-gaussian", "none"])
def test_the_nms_is_the_detectors_own(tmp_path, nms):
    """Of two boxes that overlap by less than `gather` drops."""
    cv2.imwrite(str(tmp_path / "1.png"), GREY)
    rows = [((36, 36), (20, 20, 60, 60), 0, 0.95, 0.9), ((52, 36), (32, 20, 72, 60), 0, 0.9, 0.9)]
    line = {"calibration": ((1.5, -0.5),), "calibrated": True}  # and so are its probabilities
    mine = scripted(rows, CONFIG.override({"decode": {"nms": nms, "nms_iou": 0.4, **line}}))
    propose(tmp_path / "1.png", model=mine, to="coco", out=tmp_path / "out", score=0.1)
    told = in_file("coco", tmp_path / "out")["1.png"]
    expected = mine(tmp_path / "1.png", score=0.1)
    assert len(expected) == (1 if nms in ("class", "agnostic") else 2)
    assert [score for *_, score, _ in told] == pytest.approx(expected.scores.tolist(), abs=1e-4)


def look(name, scores, labels, features):
    boxes = np.tile(np.array([[0, 0, 10, 10]], np.float32), (len(scores), 1))
    values, kinds = np.array(scores, np.float32), np.array(labels, np.int64)
    e = Evidence(boxes, np.zeros((len(scores), 3), np.float32), boxes, kinds, values, values, np.ones(3, bool))
    return Look(name, (20, 20), e, np.array(features, float))


def test_what_is_worth_labelling_comes_first():
    sure = look("sure", [0.98], [0], [1, 0, 0])
    unsure = look("unsure", [0.5, 0.5], [0, 0], [0, 1, 0])
    twin = look("twin of unsure", [0.5, 0.48], [0, 0], [0, 1, 0.001])
    other = look("other", [0.4], [0], [0, 0, 1])
    assert select([sure, unsure, twin, other], 2) == [1, 3]
    # of two alike in doubt the one of the rare class
    many = [look(str(k), [0.97, 0.97, 0.97], [0, 0, 0], np.eye(6)[k]) for k in range(4)]
    pool = [*many, look("often", [0.5], [0], np.eye(6)[4]), look("rare", [0.5], [1], np.eye(6)[5])]
    assert select(pool, 1) == [5]
    assert sorted(select(pool, 99)) == list(range(6))
    assert select([], 3) == []


def test_an_order_of_the_images(world, tmp_path):
    detector, _, images = world
    done = propose(images, model=detector, to="coco", out=tmp_path / "out", uncertain=3)
    told = json.loads((tmp_path / "out" / "instances_all.json").read_text())
    assert [i["file_name"] for i in told["images"]] == [p.name for p in done.images]
    assert len(done.images) == 3


def test_the_bundled_detector_from_the_command_line(capsys, tmp_path):
    photos = package.__path__[0] + "/assets/photos"
    code, said, _ = fcos(capsys, "labels", "propose", photos, "--to", "labelme", "-o", tmp_path / "o", "--uncertain", 2)
    assert code == 0
    assert "on 2 images" in said


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("nowhere", "--to", "coco"), "there is no image or folder nowhere"),
        (("IMAGES", "--to", "voc"), "proposals cannot be written as 'voc'; choose from label-studio, cvat"),
        (("IMAGES", "--to", "coco", "--uncertain", "0"), "give the number of images to label"),
        (("IMAGES", "--to", "coco", "--model", "fcos-lite9"), "fcos-lite9"),
    ],
)
def test_bad_input_is_one_line(capsys, world, tmp_path, arguments, line):
    given = [str(world[2]) if a == "IMAGES" else a for a in arguments]
    code, _, told = fcos(capsys, "labels", "propose", *given, "--out", tmp_path / "out")
    assert code == 2
    assert line in told
    assert told.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_format_without_a_place_for_scores_takes_no_proposals(world, tmp_path):
    with pytest.raises(DataError, match="voc cannot hold proposals with their scores; choose from labelstudio, cvat"):
        convert({"all": world[1]}, tmp_path / "out", "voc", model="some model")
    assert not (tmp_path / "out").exists()


def test_of_an_image_that_was_looked_at_the_peaks_alone_are_kept(world):
    model, truth, _ = world
    (one, *_), _ = looks_at(model, [r.path for r in truth.records[:2]])
    assert len(one.evidence.peaks) == len(one.evidence.votes) > 0
    assert len(one.evidence.boxes) == len(one.evidence.scores) == 0
    assert one.evidence.scores.base is None  # of a view all would stay
    assert one.evidence.scores.shape[1] == len(truth.classes)
