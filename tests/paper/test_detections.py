"""Detections as values: iterated, selected, compared, written, drawn."""

import copy
import csv
import gc
import json
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import NAMES, tiny_config

from fcos import kept
from fcos.detections import Detection, Detections, Results
from fcos.errors import FcosError
from fcos.inference.detector import Detector
from fcos.kept import Kept
from fcos.network import weights
from fcos.types import Classes

BOXES = [[10.0, 20.0, 30.0, 60.0], [0.5, 0.25, 8.0, 9.0], [40.0, 10.0, 90.0, 70.0]]


def some(**more):
    return Detections(
        torch.tensor(BOXES), torch.tensor([0.75, 0.5, 0.25]), torch.tensor([1, 0, 1]), torch.tensor([5, 6, 7]),
        **{"names": ("cat", "dog"), "ids": (17, 90), "size": (80, 100), **more},
    )  # fmt: skip


def test_iterating_and_selecting():
    found = some()
    assert [d.name for d in found] == ["dog", "cat", "dog"]
    assert [d.label for d in found] == [1, 0, 1]
    assert found[1] == Detection((0.5, 0.25, 8.0, 9.0), "cat", 0.5, 0, 6) == list(found)[1]
    assert found[-1].score == 0.25
    assert found["dog"].boxes.tolist() == [BOXES[0], BOXES[2]]
    assert found[["dog"]] == found["dog"]
    assert found[["cat", "dog"]] == found[("dog", "cat")] == found
    masks = (found.scores >= 0.5, (found.scores >= 0.5).numpy(), [True, True, False], slice(2), [0, 1])
    for mask in masks:
        assert found[mask] == found[:2]
    assert len(found[[]]) == len(found[found.scores > 2]) == 0
    assert found["dog"][0].point == 5
    with pytest.raises(IndexError):
        found[3]
    with pytest.raises(FcosError, match="no class 'dgo'; did you mean dog"):
        found["dgo"]
    with pytest.raises(FcosError, match="no class 'dgo'; did you mean dog"):
        found[["cat", "dgo"]]
    assert found[:0]["cat"].names == ("cat", "dog")


def test_equality():
    assert some() == some(source="elsewhere.jpg")
    for other in (some()[:2], some(names=("cat", "cow")), some(size=(1, 1)), Detections.empty(), 3):
        assert some() != other
    moved = some()
    moved.boxes[0, 0] += 1e-3
    assert some() != moved


def test_all_tensors_go_to_another_device():
    moved = some(track_ids=torch.tensor([3, -1, 4])).to("meta")
    tensors = (moved.boxes, moved.scores, moved.labels, moved.points, moved.track_ids)
    assert {tensor.device.type for tensor in tensors} == {"meta"}


def test_a_line_says_what_was_found():
    assert repr(some(source="a/b.jpg")) == "Detections(2 dog, 1 cat in b.jpg; 100x80)"
    assert repr(Detections.empty()) == "Detections(nothing)"
    assert len(repr(Results([some(), some()])).splitlines()) == 2


def test_arrays_tables_and_categories():
    boxes, scores, labels, points = some().numpy()
    np.testing.assert_array_equal(boxes, np.array(BOXES, np.float32))
    assert (scores.tolist(), labels.tolist(), points.tolist()) == ([0.75, 0.5, 0.25], [1, 0, 1], [5, 6, 7])
    assert [row["category_id"] for row in some().to_coco(4)] == [90, 17, 90]
    assert [row["category_id"] for row in some().to_coco(4, [1, 2])] == [2, 1, 2]
    assert [row["category_id"] for row in some(ids=()).to_coco(4)] == [1, 0, 1]
    assert some().to_coco(4)[0] == {"image_id": 4, "category_id": 90, "bbox": [10, 20, 20, 40], "score": 0.75}
    told = json.loads(json.dumps(some(source="b.jpg").to_dict()))
    assert (told["file"], told["width"], told["height"]) == ("b.jpg", 100, 80)
    assert told["detections"][1] == {
        "label": "cat",
        "name": "cat",
        "class": 0,
        "score": 0.5,
        "box": [0.5, 0.25, 8.0, 9.0],
    }


def test_a_data_frame():
    pytest.importorskip("pandas", reason="pip install 'fcos-detector[pandas]'")
    frame = some().to_pandas()
    assert frame.columns.tolist() == ["name", "score", "x1", "y1", "x2", "y2", "label"]
    assert frame[frame.name == "dog"].x2.tolist() == [30, 90]


def test_saving_by_suffix(tmp_path):
    pixels = np.full((80, 100, 3), 200, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = some(source=str(tmp_path / "a.png"))
    assert json.loads(found.save(tmp_path / "out.json").read_text()) == found.to_dict()
    assert (
        found.save(tmp_path / "out.txt").read_text().splitlines()[0] == "1 0.200000 0.500000 0.200000 0.500000 0.750000"
    )
    rows = list(csv.DictReader(found.save(tmp_path / "out.csv").open()))
    assert [(row["name"], row["score"]) for row in rows] == [("dog", "0.7500"), ("cat", "0.5000"), ("dog", "0.2500")]
    for name in ("out.png", "out.JPG"):
        assert Image.open(found.save(tmp_path / name)).size == (100, 80)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), np.asarray(found.draw(pixels)))
    with pytest.raises(FcosError, match=r"out\.docx"):
        found.save(tmp_path / "out.docx")


def test_crops_are_what_lies_in_the_boxes():
    pixels = np.random.default_rng(0).integers(0, 255, (80, 100, 3), dtype=np.uint8)
    first, second, _ = some().crop(pixels)
    np.testing.assert_array_equal(np.asarray(first), pixels[20:60, 10:30])
    np.testing.assert_array_equal(np.asarray(second), pixels[0:9, 0:8])  # every pixel that the box touches
    between, *_ = replace(some(), boxes=some().boxes - 0.4).crop(pixels)
    np.testing.assert_array_equal(np.asarray(between), pixels[19:60, 9:30])


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(1)
    config = tiny_config(decode={"threshold": 0.0, "max_detections": 10})
    return Detector(weights.build(config, 2).eval(), config, Classes(NAMES, (2, 7)))


def test_a_model_gives_what_is_shown_and_all_when_asked(model):
    image = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    every = model(image, score=0)
    assert len(every) == 10
    assert float(every.scores.max()) < model.shown  # random weights are sure of nothing
    assert len(model(image)) == 0
    assert model.replace(config=model.config.override("decode.shown=0"))(image) == every
    middle = float(every.scores[4])
    assert model(image, score=middle) == every[every.scores >= middle]
    assert every.to_coco()[0]["category_id"] == (2, 7)[int(every.labels[0])]


def test_the_image_is_kept_for_drawing(model, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    encoded = path.read_bytes()
    expected = np.asarray(model(path, score=0).draw())
    for source in (path, pixels, Image.fromarray(pixels), torch.from_numpy(pixels).permute(2, 0, 1), encoded):
        found = model(source, score=0)
        np.testing.assert_array_equal(np.asarray(found.draw()), expected)
        assert found._repr_png_().startswith(b"\x89PNG")
        np.testing.assert_array_equal(np.asarray(found[:3].draw()), np.asarray(found[:3].draw(pixels)))
    sheet = model([pixels, path], score=0)
    assert isinstance(sheet, list)
    assert sheet.draw().size[0] > 2 * 90
    assert sheet._repr_png_().startswith(b"\x89PNG")
    again = pickle.loads(pickle.dumps(model(pixels, score=0)))
    np.testing.assert_array_equal(np.asarray(again.draw()), expected)


def test_a_large_image_lives_as_long_as_its_owner_keeps_it(model, monkeypatch):
    monkeypatch.setattr(kept, "_LARGE", 1000)
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    found = model(pixels, score=0)
    expected = np.asarray(found.draw())
    copy = pixels.copy()
    del pixels
    gc.collect()
    assert found._repr_png_() is None
    with pytest.raises(FcosError, match="give it: draw"):
        found.draw()
    np.testing.assert_array_equal(np.asarray(found.draw(copy)), expected)
    assert pickle.loads(pickle.dumps(Kept(copy, copy))).get() is None


def test_a_buffer_that_is_used_again_does_not_change_what_was_found(model):
    """The pixels were the caller's own, so crops and drawings showed whatever a camera wrote next."""
    pixels = np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)
    expected = np.asarray(model(pixels, score=0).draw())
    for given in (pixels.copy(), torch.from_numpy(pixels.copy()), torch.from_numpy(pixels.copy()).permute(2, 0, 1)):
        found = model(given, score=0)
        given[:] = 0
        np.testing.assert_array_equal(np.asarray(found.draw()), expected)
    view = (buffer := pixels.copy()).view()
    view.flags.writeable = False
    found = model(view, score=0)
    buffer[:] = 0
    np.testing.assert_array_equal(np.asarray(found.draw()), expected)
    fixed = pixels.copy()
    fixed.flags.writeable = False
    assert Kept(fixed, fixed).get() is fixed
    assert Kept(pixels, b"a file").get() is pixels


def test_copies_and_pickles_have_the_pixels(model):
    found = model(np.random.default_rng(0).integers(0, 255, (700, 900, 3), dtype=np.uint8), score=0)
    for other in (copy.deepcopy(found), pickle.loads(pickle.dumps(found))):
        np.testing.assert_array_equal(np.asarray(other.draw()), np.asarray(found.draw()))
    assert copy.deepcopy(found).image is found.image  # nothing writes into them


def test_boxes_lie_right_on_a_rotated_photograph(tmp_path):
    """A PIL image that its EXIF turns by a quarter was drawn on as it lies in the file."""
    pixels = np.full((60, 100, 3), 90, np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored lying, shown standing: 100 high, 60 wide
    Image.fromarray(pixels).save(tmp_path / "phone.jpg", exif=exif)
    found = Detections(
        torch.tensor([[10.0, 60.0, 50.0, 95.0]]), torch.ones(1), torch.zeros(1).long(), torch.zeros(1).long()
    )
    with Image.open(tmp_path / "phone.jpg") as opened:
        by_image = np.asarray(found.draw(opened))
    assert by_image.shape == (100, 60, 3)
    np.testing.assert_array_equal(by_image, np.asarray(found.draw(tmp_path / "phone.jpg")))


def test_indices_as_of_a_list():
    boxes = torch.arange(12.0).reshape(3, 4)
    found = Detections(boxes, torch.tensor([0.9, 0.6, 0.3]), torch.tensor([0, 1, 0]), torch.zeros(3, dtype=torch.int64))
    assert [round(s, 1) for s in found[::-1].scores.tolist()] == [0.3, 0.6, 0.9]
    assert [round(s, 1) for s in found[np.arange(3)[::-1]].scores.tolist()] == [0.3, 0.6, 0.9]
    assert [round(s, 1) for s in found[(0, 2)].scores.tolist()] == [0.9, 0.3]


def test_category_ids_have_to_reach_every_class():
    found = Detections(torch.zeros(1, 4), torch.ones(1), torch.tensor([2]), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(FcosError, match="category_ids has 2 numbers"):
        found.to_coco(category_ids=[1, 2])
    assert json.dumps(found.to_coco(image_id=np.int64(3), category_ids=[1, 2, 7]))


@pytest.mark.parametrize("of", [list, np.array, torch.tensor])
def test_numbers_of_other_programs_are_checked_and_become_those_of_the_fields(of):
    def made(boxes=((1, 2, 30, 40), (5, 6, 50, 60)), scores=(0.5, 1), labels=(0.0, 2.0)):
        return Detections(of(list(map(list, boxes))), of(list(scores)), of(list(labels)), names=("a", "b", "c"))

    found = made()
    assert [(d.box, d.name, d.score) for d in found] == [((1, 2, 30, 40), "a", 0.5), ((5, 6, 50, 60), "c", 1.0)]
    assert (found.boxes.dtype, found.scores.dtype, found.labels.dtype) == (torch.float32, torch.float32, torch.int64)
    with pytest.raises(ValueError, match=r"scores must be 0..1, not 2"):
        made(scores=(1, 2), labels=(0, 1))  # the two in each other's place
    with pytest.raises(ValueError, match=r"labels must be whole numbers, not 0\.5"):
        made(scores=(1, 1), labels=(1, 0.5))
    with pytest.raises(ValueError, match=r"of \[50.0, 60.0, 8.0, 9.0\] x2 or y2 is the smaller"):
        made(boxes=((1, 2, 30, 40), (50, 60, 8, 9)))
    for scores in ((0.5, float("nan")), (0.5, float("inf")), (-1, 0)):
        if of is not torch.tensor or scores == (-1, 0):  # of a tensor that is right already the values are its owner's
            with pytest.raises(ValueError, match="scores must be"):
                made(scores=scores)


def test_what_rounding_made_is_no_fault():
    found = Detections(
        [[1, 2, 30, 40], [30, 40, 30 - 1e-5, 50]], [1 + 1e-7, -1e-9], torch.tensor([1, 0], dtype=torch.uint16)
    )
    assert (found.scores.tolist(), found.labels.tolist()) == ([1, 0], [1, 0])
    half = Detections(torch.zeros(1, 4), torch.tensor([1.001], dtype=torch.float16), torch.tensor([0]))
    assert half.scores.dtype == torch.float32


def test_what_is_no_list_of_numbers_is_named():
    for wrong, field in (
        (([[1, 2], [3]], [0.5], [0]), "boxes"),
        ((5, 0.5, 0), "boxes"),
        (([[1, 2, 3, 4]], ["a"], [0]), "scores"),
    ):
        with pytest.raises(ValueError, match=f"^{field} must be a list of"):
            Detections(*wrong)


@pytest.mark.parametrize("field", ["points", "track_ids"])
def test_locations_and_objects_are_whole_numbers(field):
    found = Detections([[1, 2, 30, 40]], [0.5], [0], **{field: torch.tensor([3], dtype=torch.int32)})
    assert getattr(found, field).dtype == torch.int64
    for wrong in ([0.5], np.array([np.nan]), torch.tensor([3.5])):
        with pytest.raises(ValueError, match=f"{field} must be whole numbers"):
            Detections([[1, 2, 30, 40]], [0.5], [0], **{field: wrong})


def test_boxes_that_say_their_form_become_corners():
    from torchvision.tv_tensors import BoundingBoxes

    for form, box in (("XYXY", (10, 20, 40, 60)), ("XYWH", (10, 20, 30, 40)), ("CXCYWH", (25, 40, 30, 40))):
        for dtype in (torch.int64, torch.float32):
            boxes = Detections(BoundingBoxes([box], format=form, canvas_size=(80, 100), dtype=dtype), [0.5], [0]).boxes
            assert type(boxes) is torch.Tensor
            assert boxes.tolist() == [[10, 20, 40, 60]]
    turned = BoundingBoxes([[10.0, 20.0, 30.0, 40.0, 5.0]], format="XYWHR", canvas_size=(80, 100))
    with pytest.raises(ValueError, match="boxes are in the form XYWHR"):
        Detections(turned, [0.5], [0])


def test_a_number_format_is_no_device():
    with pytest.raises(TypeError):
        some().to(torch.float16)


def test_an_empty_table_has_the_types_of_a_full_one():
    pytest.importorskip("pandas", reason="pip install fcos-detector[pandas]")
    assert some()[:0].to_pandas().dtypes.equals(some().to_pandas().dtypes)
