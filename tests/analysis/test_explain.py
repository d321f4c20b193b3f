"""The story of a box, the stages that lose an object, and TIDE's errors, on scenes made by hand."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch
from matching import assert_same_detections
from scripted import CLASSES, CONFIG, GREY, TRUTH, Scripted, detector
from tiny import NAMES, fcos, make_shapes, tiny_config

from fcos.analysis import explain as explaining
from fcos.analysis.explain import explain, who_silenced
from fcos.analysis.explain_tiles import explain_tiles
from fcos.analysis.misses import STAGES, gallery, miss_study
from fcos.analysis.scan import scan
from fcos.analysis.tide import tide
from fcos.config import DecodeConfig
from fcos.data.open import open_splits
from fcos.data.write import convert
from fcos.detections import Detections
from fcos.errors import ConfigError, ImageError, ModelError
from fcos.inference.composite import Composite, Looks
from fcos.inference.detector import Detector
from fcos.inference.tiles import Tiling, parse_tile
from fcos.network import weights
from fcos.points import padded
from fcos.types import Classes


def test_a_model_may_be_named(tmp_path):
    torch.manual_seed(0)
    config = tiny_config(decode={"threshold": 0.0, "max_detections": 5})
    network = weights.build(config, len(NAMES))
    file = weights.save(tmp_path / "best.safetensors", network.state_dict(), config, Classes(NAMES))
    expected = explain(Detector(network.eval(), config, Classes(NAMES)), GREY, score=0)
    for name in (file, str(file), tmp_path):
        assert_same_detections(explain(name, GREY, score=0).detections, expected.detections)
    with pytest.raises(ModelError, match="no model called"):
        explain("fcos-lite9", GREY)


@pytest.mark.parametrize("to", ["csv", "ndjson", "cvat"])
def test_a_file_of_annotations_is_a_data_set_whatever_its_format(tmp_path, capsys, to):
    make_shapes(tmp_path / "set", {"train": 2})
    convert(open_splits(tmp_path / "set"), tmp_path / "out", to)
    files = [p for p in sorted((tmp_path / "out").rglob("*")) if p.suffix in (".csv", ".ndjson", ".xml")]
    torch.manual_seed(0)
    config, classes = tiny_config(), Classes(("disc", "square"))
    model = weights.save(tmp_path / "m.safetensors", weights.build(config, 2).state_dict(), config, classes)
    code, out, err = fcos(capsys, "explain", files[0], "--model", model)
    assert code == 0, err
    assert "object" in out


def test_the_story_of_two_boxes():
    rows = [
        ((36, 36), (12, 12, 60, 60), 0, 0.81, 0.64),
        ((44, 36), (14, 12, 60, 60), 0, 0.64, 0.49),  # the same cat, weaker
        ((36, 44), (12, 14, 60, 60), 1, 0.5, 0.5),  # a dog at the same place stays
        ((88, 88), (70, 70, 110, 110), 1, 0.9, 0.9),
    ]
    story = explain(detector(rows), GREY, score=0.3)
    assert [s.label for s in story.stories] == ["dog", "cat", "dog"]
    assert [s.label for s in explain(detector(rows), GREY, {"dog": 0.8, "cat": 0.7}).stories] == ["dog", "cat"]
    for score in (2, -0.5, [0.5]):
        with pytest.raises(ConfigError, match="give a number from 0 to 1"):
            explain(detector(rows), GREY, score)
    cat = story.stories[1]
    assert cat.score == pytest.approx(0.72, abs=1e-4)  # sqrt(.81 * .64)
    assert (cat.probability, cat.centerness) == (pytest.approx(0.81, abs=1e-5), pytest.approx(0.64, abs=1e-5))
    assert cat.location == (36, 36)
    assert cat.distances == pytest.approx((24, 24, 24, 24))
    assert cat.level == "P3"
    assert [(s["label"], round(s["score"], 2)) for s in cat.silenced] == [("cat", 0.56)]
    told = story.to_dict()["detections"]
    assert [(d["name"], [s["name"] for s in d["silenced"]]) for d in told][1] == ("cat", ["cat"])
    assert story.stories[0].silenced == ()
    assert story.to_dict()["detections"][1]["silenced"][0]["location"] == [44, 36]
    assert "P3" in story.text()
    assert story.draw().shape == GREY.shape
    assert [m[1].shape for m in story.maps] == [(16, 16), (8, 8), (4, 4), (2, 2), (1, 1)]
    assert story.maps[0][1][4, 4] == pytest.approx(0.81, abs=1e-5)
    assert story.peaks[:2] == ("cat", "dog")  # the point (88, 88) is of P4
    assert story.draw_maps().ndim == 3


@pytest.mark.parametrize("shape", [(75, 128), (128, 75)])
def test_the_hot_cell_of_a_map_is_drawn_at_its_location(shape):
    """Also where a side is no multiple of the strides: cells that reach beyond the image are cut, not squeezed."""
    image = np.full((*shape, 3), 127, np.uint8)
    for level, cells in enumerate(((9, 15), (4, 7), (2, 3), (1, 1))):
        side = 8 << level
        row, column = sorted(cells, reverse=shape[0] > shape[1])
        x, y = side * (column + 0.5), side * (row + 0.5)
        rows = [((x, y), (x - 9, y - 9, x + 9, y + 9), 0, 0.9, 0.9)]
        story = explain(Detector(Scripted(rows, padded(shape, 32)), CONFIG, CLASSES), image, score=0)
        _, values, _ = story.maps[level]
        assert story.extents[level] == (values.shape[1] * side, values.shape[0] * side)
        drawn = explaining._over(image, values, story.extents[level])
        wanted = np.zeros(shape, bool)
        wanted[row * side : (row + 1) * side, column * side : (column + 1) * side] = True
        assert np.array_equal((drawn != drawn[0, 0]).any(axis=2), wanted), level


def test_the_story_fits_a_terminal_of_80_columns():
    rows = [((36, 36), (12, 12, 60, 60), 0, 0.81, 0.64)]
    story = explain(detector(rows), GREY, score=0.3)
    wide = replace(
        story.stories[0], label="pottedplant", location=(1216.0, 1264.0), distances=(1202.0, 1259.0, 1152.0, 1211.0)
    )
    assert max(map(len, replace(story, stories=(wide,) * 9).text().splitlines())) <= 80


def test_the_maps_are_named_with_level_stride_and_the_surest_class(monkeypatch):
    rows = [((36, 36), (12, 12, 60, 60), 0, 0.81, 0.64), ((88, 88), (70, 70, 110, 110), 1, 0.9, 0.9)]
    story = explain(detector(rows), GREY)
    seen = []
    honest = explaining.sheet

    def sheet(images, columns=None, titles=None, cell=320):
        seen.extend(titles)
        return honest(images, columns, titles, cell)

    monkeypatch.setattr(explaining, "sheet", sheet)
    story.draw_maps()
    assert seen[:2] == ["P3, stride 8: class, up to 0.81 (cat)", "P4, stride 16: class, up to 0.90 (dog)"]
    assert [title.partition(":")[0] for title in seen[:5]] == [f"P{k}, stride {2**k}" for k in range(3, 8)]
    assert seen[5].startswith("P3, stride 8: centerness, up to 0.64")
    assert "0 (dark) to 1" in seen[10]


def test_pixels_are_those_of_the_image():
    rows = [((36, 36), (12, 12, 60, 60), 0, 0.9, 0.9)]
    story = explain(detector(rows), np.full((256, 256, 3), 127, np.uint8))
    assert story.stories[0].location == (72, 72)
    assert story.stories[0].box == pytest.approx((24, 24, 120, 120))
    assert story.stories[0].distances == pytest.approx((48, 48, 48, 48))


def test_the_same_detections_as_the_detector():
    rows = [((36, 36), (12, 12, 60, 60), 0, 0.8, 0.6), ((44, 36), (14, 12, 62, 60), 0, 0.7, 0.6)]
    d = detector(rows)
    plain, story = d(GREY, score=0.3), explain(d, GREY, 0.3)
    assert_same_detections(plain, story.detections, box=1e-4, score=1e-6)
    assert sorted(plain.points.tolist()) == sorted(story.detections.points.tolist())


def test_scores_are_the_networks_own_where_the_detector_calibrates_them():
    """Else class x centerness would not be the score, and a limit meant for probabilities would cut raw scores."""
    lines = tuple((2.0, 1.0) for _ in NAMES)
    plain = detector([((36, 36), (12, 12, 60, 60), 0, 0.8, 0.6)])
    sure = plain.replace(config=plain.config.override({"decode": {"calibrated": True, "calibration": lines}}))
    assert sure(GREY, score=0.0).scores.tolist() != plain(GREY, score=0.0).scores.tolist()
    assert explain(sure, GREY).to_dict() == explain(plain, GREY).to_dict()


def test_nothing_found():
    story = explain(detector([]), GREY)
    assert story.text() == "nothing was found"
    assert story.draw().shape == GREY.shape


def test_a_dropped_box_cannot_silence():
    # a silences b; b overlaps c, but b is gone, so c stays
    boxes = torch.tensor([[0.0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10], [4, 0, 14, 10]])
    labels = torch.tensor([0, 0, 0, 1])
    silencer = who_silenced(boxes, labels, torch.tensor([0, 2, 3]), DecodeConfig(nms_iou=0.4))
    assert silencer.tolist() == [-1, 0, -1, -1]
    assert who_silenced(boxes, labels, torch.tensor([0, 2]), DecodeConfig(nms="agnostic", nms_iou=0.4)).tolist() == [
        -1,
        0,
        -1,
        0,
    ]
    # 5 of 15 px are shared; with the last pixels 6 of 16
    pair, cat, first = (
        torch.tensor([[0.0, 0, 10, 10], [5, 0, 15, 10]]),
        torch.zeros(2, dtype=torch.int64),
        torch.tensor([0]),
    )
    assert who_silenced(pair, cat, first, DecodeConfig(nms_iou=0.35)).tolist() == [-1, -1]
    assert who_silenced(pair, cat, first, DecodeConfig(nms_iou=0.35, nms_plus_one=True)).tolist() == [-1, 0]


# --------------------------------------------------------------------------- missed objects


CASES = {
    "no location": ([], [(5, 5, 11, 11, 0, 0)]),
    "suppressed": (
        # a larger cat is surer; both overlap by more than 0.6
        [((36, 36), (16, 16, 64, 60), 0, 0.9, 0.9), ((44, 44), (20, 20, 60, 60), 0, 0.6, 0.6)],
        [(*TRUTH, 0, 0), (16, 16, 64, 60, 0, 0)],
    ),
    "wrong class": ([((36, 36), TRUTH, 1, 0.9, 0.9)], [(*TRUTH, 0, 0)]),
    "box too poor": ([((36, 36), (20, 20, 44, 44), 0, 0.9, 0.9)], [(*TRUTH, 0, 0)]),
    "below threshold": ([((36, 36), TRUTH, 0, 0.2, 0.2)], [(*TRUTH, 0, 0)]),
}


@pytest.mark.parametrize("stage", [s for s in STAGES if s not in ("outranked", "unknown class")])
def test_each_stage(world, stage):
    rows, truth = CASES[stage]
    data = world(*truth)
    study = miss_study(detector(rows), data)
    assert [m.stage for m in study.misses] == [stage]
    assert study.counts()[stage] == 1
    assert study.objects == len(truth)
    assert stage in study.text()
    assert gallery(study, data, cell=64).ndim == 3


def test_a_class_that_the_model_does_not_know_is_said(world):
    """Whatever else would explain it: the second is too small for any location too."""
    data = world((*TRUTH, 2, 0), (5, 5, 11, 11, 2, 0), (80, 80, 120, 120, 0, 0))
    data = replace(data, classes=Classes(("cat", "dog", "teapot")))
    study = miss_study(detector([((36, 36), TRUTH, 1, 0.9, 0.9)]), data)
    assert [(m.label, m.stage) for m in study.misses] == [
        ("teapot", "unknown class"),
        ("teapot", "unknown class"),
        ("cat", "below threshold"),
    ]
    assert study.by_class["teapot"]["unknown class"] == 2
    assert "unknown class" in study.text()
    assert gallery(study, data, cell=64).ndim == 3
    assert "unknown class" not in miss_study(detector([]), world((*TRUTH, 0, 0))).text()


def test_outranked(world):
    data = world((1, 1, 8, 8, 0, 0), (1, 1, 7, 7, 0, 0))
    study = miss_study(detector([((4, 4), (1, 1, 7, 7), 0, 0.95, 0.95)]), data)
    # the one detection fits both truths; the better fit is found, the larger box was outranked
    assert [(m.stage, m.box) for m in study.misses] == [("outranked", (1, 1, 8, 8))]


def test_numbers_of_a_miss(world):
    study = miss_study(detector(CASES["below threshold"][0]), world((*TRUTH, 0, 0)), image=7)
    assert study.misses[0].best_score == pytest.approx(0.2, abs=1e-4)
    assert study.misses[0].best_iou == 0.0
    assert study.to_dict()["found"] == 0


def test_found_and_difficult_objects_are_no_misses(world):
    data = world((*TRUTH, 0, 0), (80, 80, 120, 120, 1, 1))
    study = miss_study(detector([((36, 36), TRUTH, 0, 0.9, 0.9)]), data)
    assert study.misses == ()
    assert study.objects == 1
    assert study.tide.ap50 == pytest.approx(1.0)


def test_an_image_that_cannot_be_read_is_told_and_its_objects_are_left_out(world, capsys, tmp_path):
    data = world((*TRUTH, 0, 0))
    found = detector([((36, 36), TRUTH, 0, 0.9, 0.9)])
    alone = miss_study(found, data)
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    other = replace(data.records[0], id=99, path=broken, file_name="broken.png")
    study = miss_study(found, replace(data, records=(*data.records, other)))
    assert (study.objects, study.misses, study.tide) == (alone.objects, alone.misses, alone.tide)
    assert len(study.detections) == 2  # one for each image
    assert "its objects are left out" in capsys.readouterr().err
    with pytest.raises(ImageError):
        miss_study(detector([]), replace(data, records=(*data.records, other)), image=99)


def test_a_box_that_goes_beyond_the_image_is_learned_as_training_cuts_it(world):
    """Uncut it is too long for every level; 40 pixels of it are in the image."""
    data = world((-3000, 20, 40, 60, 0, 0))
    assert [m.stage for m in miss_study(detector([]), data).misses] == ["below threshold"]
    assert scan(data, CONFIG).recall == 1.0


FOUR = Tiling(128, overlap=0.0, whole=False)  # of an image of 256 pixels, which a network for 128 sees at half its size


@pytest.fixture
def large(world, tmp_path):
    def make(*boxes):
        data = world(*boxes)
        cv2.imwrite(str(tmp_path / "1.png"), np.full((256, 256, 3), 127, np.uint8))
        return replace(data, records=(replace(data.records[0], size=(256, 256)),))

    return make


def test_objects_are_looked_for_in_every_tile(large):
    """The network says the same of each tile, so a cat at one place in each."""
    cats = [(20 + x, 20 + y, 60 + x, 60 + y, 0, 0) for x in (0, 128) for y in (0, 128)]
    cat = detector([((36, 36), TRUTH, 0, 0.9, 0.9)])
    study = miss_study(cat, large(*cats), tiling=FOUR)
    assert (study.objects, study.misses) == (4, ())
    assert study.tide.ap50 == pytest.approx(1.0)
    dogs = [(*row[:4], 1, 0) for row in cats[1:3]]
    study = miss_study(cat, large(cats[0], *dogs), tiling=FOUR)
    assert [(m.stage, m.box) for m in study.misses] == [("wrong class", row[:4]) for row in dogs]
    assert len(miss_study(cat, large(*cats)).misses) == 4  # looked at whole, the one box is twice as large


@pytest.mark.parametrize("stage", ["suppressed", "box too poor", "below threshold"])
def test_stages_in_a_tile(large, stage):
    """The cases above, all in the fourth tile; what stands in the others is of no object."""
    rows, truth = CASES[stage]
    moved = [(*(v + 128 for v in row[:4]), *row[4:]) for row in truth]
    study = miss_study(detector(rows), large(*moved), tiling=FOUR)
    assert [m.stage for m in study.misses] == [stage]


def test_what_is_too_small_in_the_whole_image_is_not_in_a_tile(large):
    data = large((140, 140, 152, 152, 0, 0))
    assert [m.stage for m in miss_study(detector([]), data).misses] == ["no location"]
    assert [m.stage for m in miss_study(detector([]), data, tiling=FOUR).misses] == ["below threshold"]


def test_an_object_that_every_tile_cuts_counts_where_most_of_it_is(large):
    study = miss_study(detector([]), large((90, 20, 150, 60, 0, 0), (126, 126, 130, 129, 0, 0)), tiling=FOUR)
    assert [m.stage for m in study.misses] == ["below threshold", "no location"]


def test_answers_through_tiles_are_those_of_prediction(in_tiles, tmp_path, world):
    network, image = in_tiles
    cv2.imwrite(str(tmp_path / "1.png"), image[..., ::-1])
    data = world(*[(10, 10, 40, 40, 0, 0)])
    data = replace(data, classes=Classes(NAMES), records=(replace(data.records[0], size=image.shape[:2]),))
    study = miss_study(network, data, 0.0, tiling=parse_tile(64, network.config.data))
    (found,) = Composite((network,), Looks(tile=64)).detect([image], [None])
    assert_same_detections(study.detections[0], found, box=1e-3, score=1e-5)


def test_an_unknown_image_is_one_line(world):
    from fcos.errors import DataError

    with pytest.raises(DataError, match="no image with the id 99"):
        miss_study(detector([]), world((*TRUTH, 0, 0)), image=99)


# --------------------------------------------------------------------------- TIDE


def judged(world, *found, second=1):
    data = world((0, 0, 40, 40, 0, 0), (60, 60, 100, 100, second, 0))
    boxes = torch.tensor([f[:4] for f in found], dtype=torch.float32).reshape(-1, 4)
    labels = torch.tensor([f[4] for f in found], dtype=torch.int64)
    scores = torch.tensor([f[5] for f in found], dtype=torch.float32)
    return tide([Detections(boxes, scores, labels, labels)], data)


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("class", (60, 60, 100, 100, 0, 0.8)),
        ("box", (60, 60, 80, 75, 1, 0.8)),
        ("both", (60, 60, 80, 75, 0, 0.8)),
        ("duplicate", (0, 0, 40, 38, 0, 0.8)),
        ("background", (110, 110, 120, 120, 0, 0.8)),
    ],
)
def test_tide_kinds(world, kind, found):
    result = judged(world, (0, 0, 40, 40, 0, 0.9), found)
    claimed = kind in ("class", "box")
    assert {k: v for k, v in result.count.items() if v} == {kind: 1} | ({} if claimed else {"missed": 1})
    assert result.ap50 == pytest.approx(0.5)
    # the second object found makes both classes perfect; other mended errors stand behind all right ones
    assert result.cost[kind] == pytest.approx(0.5 if claimed else 0.0)
    assert result.cost["missed"] == pytest.approx(0.0 if claimed else 0.5)


def test_tide_costs_of_a_wrong_detection_above_the_right_one(world):
    result = judged(world, (0, 0, 40, 40, 0, 0.5), (110, 110, 120, 120, 0, 0.8), (60, 60, 100, 100, 1, 0.5))
    assert result.ap50 == pytest.approx(0.75)
    assert result.cost["background"] == pytest.approx(0.25)


def test_two_claims_to_one_object_are_mended_once(world):
    first, second = (60, 60, 100, 100, 0, 0.8), (61, 60, 100, 100, 0, 0.7)
    result = judged(world, (0, 0, 40, 40, 0, 0.9), first, second)
    assert result.count["class"] == 2
    assert result.cost["class"] == pytest.approx(0.5)
    assert replace(result, ap50=0.0).text().startswith("AP50 0.00")


def test_a_claim_to_an_object_that_is_found_costs_nothing(world):
    """A right and a misnamed box lie on the first object; the second one, of the same class, is missed."""
    result = judged(world, (0, 0, 40, 40, 0, 0.9), (0, 0, 40, 38, 1, 0.8), second=0)
    assert (result.count["class"], result.count["missed"]) == (1, 1)
    assert result.cost["class"] == 0


@pytest.fixture(scope="module")
def in_tiles():
    """A small network that nobody trained, and an image of 120 x 150 pixels: it sees much, and all sorts."""
    torch.manual_seed(0)
    config = tiny_config(decode={"threshold": 0.0, "max_detections": 1000})
    image = np.random.default_rng(0).integers(0, 255, (120, 150, 3), dtype=np.uint8)
    return Detector(weights.build(config, len(NAMES)).eval(), config, Classes(NAMES)), image


def test_the_stories_of_tiles_are_the_detections_and_leave_nothing_out(in_tiles):
    network, image = in_tiles
    told = explain_tiles(network, image, Tiling(64), score=0.0)
    (found,) = Composite((network,), Looks(tile=64)).detect([image], [None])
    assert torch.equal(told.detections.boxes, found.boxes)
    assert torch.equal(told.detections.scores, found.scores)
    # every box that a tile saw is in one story, once: it is shown, it gave way, or it was silenced
    shown = [s for story in told.stories for s in (*story.seen, *story.silenced)]
    gone = [s for story in told.stories for s in story.gave_way]
    assert len(set(shown)) == len(shown) <= told.rows
    assert len(set(gone)) == len(gone)
    assert not set(gone) & set(shown)
    assert {s.kind for s in (*shown, *gone)} == {"tile", "larger tile", "whole image"}
    # without the larger windows, nothing whole takes the pieces of a box that is joined
    flat = explain_tiles(network, image, Tiling(64, whole=False), score=0.0)
    assert any(len(story.seen) > 1 for story in flat.stories)
    for story in (*told.stories, *flat.stories):
        box = np.array([s.box for s in story.seen])
        joined = [*box[:, :2].min(axis=0), *box[:, 2:].max(axis=0)]
        np.testing.assert_allclose(story.box, joined, atol=1e-3)
    assert told.draw().shape == image.shape
    assert len(told.to_dict()["detections"]) == len(found)
    assert [row["name"] for row in told.to_dict()["detections"]] == [s.label for s in told.stories]


def test_a_sight_is_what_its_tile_alone_tells(in_tiles):
    """Level and location of a box are those of `explain` on the crop, moved to the tile's place."""
    network, image = in_tiles
    told = explain_tiles(network, image, Tiling(64), score=0.0)
    sight = next(s for story in told.stories for s in story.seen if s.kind == "tile" and s.tile[:2] != (0, 0))
    left, top, right, bottom = sight.tile
    alone = explain(network, image[top:bottom, left:right], score=0.0)
    place = np.array([left, top])
    match = [s for s in alone.stories if np.allclose(np.array(s.box) + np.tile(place, 2), sight.box, atol=1e-2)]
    assert any(
        s.level == sight.level and np.allclose(np.array(s.location) + place, sight.location, atol=1e-3) for s in match
    )


def test_an_image_of_one_tile_has_no_story_of_tiles(in_tiles):
    network, image = in_tiles
    with pytest.raises(ConfigError, match="one tile; leave --tile out"):
        explain_tiles(network, image, Tiling(200))
