"""The doctor: leaks, same boxes, what it calls serious, the search, and the page."""

import json
import re
import shlex
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from photos import photo, write
from tiny import fcos, make_shapes

import fcos as package
from fcos.analysis import doctor, findings, image_findings, search
from fcos.analysis.search import Rates, lost_share
from fcos.config import Config, DataConfig
from fcos.data import kinds
from fcos.data.dataset import Dataset, Note
from fcos.data.duplicates import fingerprint
from fcos.data.kinds import Kind
from fcos.data.open import open_splits
from fcos.data.records import Record
from fcos.data.tree import DataSource
from fcos.errors import ConfigError, ImageWarning
from fcos.types import Classes
from fcos.zoo.find import find_weights

CONFIG = Config(data=DataConfig(size=128, max_size=256))


def record(number, boxes, path=None, size=(128, 128)):
    rows = np.array(boxes, np.float32).reshape(-1, 5)
    areas = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
    labels = rows[:, 4].astype(np.int64)
    name = path.name if path else f"{number}.png"
    return Record(number, path, size, rows[:, :4].copy(), labels, np.zeros(len(rows), bool), areas, name)


def dataset(records, split="train", notes=(), names=("a", "b")):
    return Dataset(tuple(records), Classes(tuple(names)), "coco", split, Path("made"), tuple(notes))


def test_pairs_are_counted_and_the_nearest_named(tmp_path):
    """Forty alike images, half of them in another split, two of them one file."""
    paths = [tmp_path / f"{k}.png" for k in range(40)]
    for k, path in enumerate(paths):
        pixels = photo(1)
        pixels[0, 0] = k
        write(path, pixels)
    paths[39].write_bytes(paths[1].read_bytes())
    train = dataset([record(k, [], path) for k, path in enumerate(paths[:20])])
    val = dataset([record(k, [], path) for k, path in enumerate(paths[20:])], "val")
    found = {f.kind.many: f for f in image_findings.in_images({"train": train, "val": val})}
    across = found["pairs of images that are in two splits"]
    within = found["pairs of images that show the same, in one split"]
    assert (across.count, within.count) == (400, 380)
    assert across.examples[:2] == ("train/1.png = val/39.png", "train/0.png = val/20.png")
    assert [spot.title for spot in across.spots[:4]] == [
        "train/1.png",
        "val/39.png (same file)",
        "train/0.png",
        "val/20.png (0 bits apart)",
    ]
    assert len(across.examples) == len(within.examples) == 20


def test_images_of_fewer_bits_than_their_files_have_are_named(tmp_path):
    paths = [tmp_path / f"{k}.png" for k in range(3)]
    for path in paths:
        write(path, photo(1))
    for path in paths[:2]:
        cv2.imwrite(str(path), photo(2).max(axis=2).astype(np.uint16) * 16)
    train = dataset([record(k, [], path) for k, path in enumerate(paths)])
    found = {f.kind: f for f in image_findings.in_images({"train": train})}
    assert (found[kinds.DARK].level, found[kinds.DARK].count) == ("warning", 2)
    assert list(found[kinds.DARK].examples) == list(map(str, paths[:2]))
    assert found[kinds.DAMAGED].count == 0


def test_damaged_images_are_named(tmp_path):
    """All of them, though the same is wrong with each; nothing is left to be told on stderr."""
    whole = cv2.imencode(".jpg", photo(1))[1].tobytes()
    paths = [tmp_path / f"{k}.jpg" for k in range(4)]
    for k, path in enumerate(paths):
        path.write_bytes(whole if k == 3 else whole[: len(whole) * (k + 3) // 8] + b"\xff\xd9")
    with warnings.catch_warnings(record=True) as told:
        found = {
            f.kind: f
            for f in image_findings.in_images({"train": dataset([record(k, [], p) for k, p in enumerate(paths)])})
        }
    assert not told
    damaged = found[kinds.DAMAGED]
    assert (damaged.level, damaged.count) == ("warning", 3)
    assert [e.partition(": ")[0] for e in damaged.examples] == list(map(str, paths[:3]))
    assert [spot.path for spot in damaged.spots] == paths[:3]
    assert found[kinds.UNREADABLE].count == 0
    with pytest.warns(ImageWarning, match="1.jpg: .* missing"):
        fingerprint(paths[1:2])


@pytest.mark.parametrize(
    ("first", "second", "pairs"), [("train", "val", 1), ("train", "trainval", 0), ("test", "trainval", 1)]
)
def test_one_file_in_two_splits_is_a_leak_unless_one_is_a_part_of_the_other(tmp_path, first, second, pairs):
    files = [write(tmp_path / f"{k}.png", photo(k)) for k in range(3)]
    splits = {
        first: dataset([record(k, [], files[k]) for k in (0, 1)], first),
        second: dataset([record(k, [], files[k]) for k in (1, 2)], second),
    }
    found = {f.kind.many: f.count for f in image_findings.in_images(splits)}
    assert found["cases of one file in the lists of two splits"] == pairs


def test_copies_that_splits_share_are_one_pair(tmp_path):
    """Two copies that are both in train and val are a pair of train, and no further leak."""
    files = [write(tmp_path / f"{k}.png", photo(1)) for k in range(3)]
    splits = {
        "train": dataset([record(k, [], files[k]) for k in (0, 1)]),
        "val": dataset([record(k, [], files[k]) for k in (0, 1)], "val"),
    }
    several = {f.kind.many: f for f in image_findings.in_images(splits)}
    assert several["pairs of images that show the same, in one split"].count == 1
    assert several["pairs of images that are in two splits"].count == 0
    assert several["cases of one file in the lists of two splits"].count == 2
    splits["val"] = dataset([record(k, [], files[k]) for k in (1, 2)], "val")
    several = {f.kind.many: f for f in image_findings.in_images(splits)}
    pairs = several["pairs of images that are in two splits"]
    assert pairs.examples == ("train/0.png = val/2.png",)
    assert several["pairs of images that show the same, in one split"].count == 2


def test_a_pair_of_files_counts_once_however_many_lists_they_stand_in(tmp_path):
    """VOC's trainval holds train and val; a list may name a file twice."""
    one, two = (write(tmp_path / f"{k}.png", photo(1)) for k in range(2))
    rows = {"train": [one, one], "val": [two], "trainval": [one, two], "test": [two, two]}
    sets = {name: dataset([record(k, [], f) for k, f in enumerate(files)], name) for name, files in rows.items()}

    def found(*names):
        rows = image_findings.in_images({name: sets[name] for name in names})
        return [(f.count, f.examples) for f in rows if f.kind.many.startswith(("cases of one", "pairs of"))]

    leak, none = (1, ("train/0.png = test/1.png",)), (0, ())
    assert found("train", "test") == [none, leak, none]
    within = (1, ("trainval/0.png = trainval/1.png",))
    assert found("train", "trainval") == [none, none, within]
    assert found("train", "val", "trainval") == [none, (1, ("train/0.png = val/1.png",)), within]
    shared = (2, ("val/1.png = test/1.png", "trainval/1.png = test/1.png"))
    assert found("train", "val", "trainval", "test") == [shared, (1, ("train/0.png = val/1.png",)), within]


def test_a_box_marked_twice():
    boxes = [(0, 0, 50, 50, 0), (0, 0, 50, 49, 0), (1, 0, 50, 50, 1), (60, 60, 90, 90, 0)]
    assert findings.same_boxes(record(1, boxes)) == [(0, 1), (0, 2), (1, 2)]
    found = {f.kind.many: f.count for f in findings.in_boxes("train", dataset([record(1, boxes)]))}
    assert found == {"boxes marked twice (train)": 1, "boxes marked as two classes (train)": 2}


def test_leakage_and_unseen_classes_are_serious(tmp_path):
    one, two, three = (write(tmp_path / f"{k}.png", photo(k)) for k in range(3))
    again = write(tmp_path / "again.jpg", photo(0), cv2.IMWRITE_JPEG_QUALITY, 60)
    train = dataset([record(1, [(10, 10, 90, 90, 0)], one), record(2, [], two)])
    val = dataset([record(1, [(10, 10, 90, 90, 1)], again), record(2, [], three)], "val")
    d = doctor.diagnose({"train": train, "val": val}, CONFIG, tune=False)
    serious = {f.kind.many: f.count for f in d.findings if f.level == "serious"}
    assert serious == {"pairs of images that are in two splits": 1, "classes that train never shows": 1}
    assert d.serious
    clean = doctor.diagnose({"train": train}, CONFIG, tune=False)
    assert not clean.serious


def test_a_leak_comes_first_and_a_fault_of_files_that_splits_share_stands_once(tmp_path):
    """As with `train: images` and `val: images` in data.yaml."""
    whole, cut = write(tmp_path / "0.jpg", photo(0)), tmp_path / "1.jpg"
    cut.write_bytes(whole.read_bytes()[:-900])
    rows = [record(1, [(10, 10, 60, 60, 0), (10, 10, 60, 60, 0)], whole), record(2, [], cut)]
    notes = (Note(kinds.NO_AREA, 9, "row 1 of 0.txt", "skipped"),)
    splits = {name: replace(dataset(rows, name), notes=notes) for name in ("train", "val")}
    d = doctor.diagnose(splits, CONFIG, tune=False)
    assert [(f.count, f.kind.many) for f in d.findings[:3]] == [
        (1, "cases of one file in the lists of two splits"),
        (9, "boxes without an area, or with corners exchanged (train, val)"),
        (1, "images that cannot be read"),
    ]
    assert d.verdict().startswith("fix 3 serious problems before training: ")
    assert {f.kind.many: f.count for f in d.findings}["boxes marked twice (train, val)"] == 1
    other = splits | {"val": replace(splits["val"], notes=())}
    assert "boxes marked twice (val)" in {f.kind.many for f in doctor.diagnose(other, CONFIG, tune=False).findings}


def test_no_other_input_size_is_advised_for_a_box_marked_twice():
    once, twice = (
        doctor.diagnose({"train": dataset([record(1, [(10, 10, 60, 60, 0)] * n)])}, CONFIG, images=False, tune=False)
        for n in (1, 2)
    )
    assert twice.numbers() == once.numbers()
    assert {f.kind.many for f in twice.findings} - {f.kind.many for f in once.findings} == {
        "boxes marked twice (train)"
    }


def test_classes_of_one_name_are_told(tmp_path):
    boxes = [record(1, [(10, 10, 90, 90, 0)]), record(2, [(10, 10, 90, 90, 1)])]
    splits = {
        "train": dataset(boxes, names=("red cell", "dog")),
        "val": dataset(boxes, "val", names=("Red-cell", "dog")),
    }
    found = next(f for f in findings.in_classes(splits, "train") if f.kind == findings._ALIKE)
    assert (found.count, found.examples) == (1, ("red cell, Red-cell",))
    same = findings.in_classes({"train": dataset(boxes)}, "train")
    assert not any(f.count for f in same if f.kind == findings._ALIKE)


def test_no_larger_input_is_advised_for_boxes_in_another_unit():
    """They learn nothing because they are a pixel wide."""
    note = Note(kinds.SHARES, 2, level="warning")
    for notes, advice in (((), "data.size"), ((note,), "multiply x and width by the width of the image")):
        found = package.doctor(
            dataset([record(1, [(0.1, 0.2, 0.5, 0.6, 0)])], notes=notes), CONFIG, images=False, budget=0
        )
        lost = next(f for f in found.findings if "without a location" in f.kind.many)
        assert advice in lost.kind.do
        assert ("data.size" in lost.kind.do) == (not notes)


def test_what_the_reader_skipped_is_serious():
    notes = (
        Note(
            kinds.NO_AREA,
            1203,
            "annotation 5 (of 7; first: x) of x.jpg",
            "skipped",
        ),
        Note(kinds.PARTLY_OUTSIDE, 2, "annotation 1 of y.jpg", "warning"),
        Note(Kind("some remark")),
    )
    found = findings.in_notes("val", dataset([], notes=notes))
    assert [(f.level, f.count) for f in found] == [("serious", 1203), ("warning", 2), ("note", 1)]
    assert found[0].kind.many == "boxes without an area, or with corners exchanged (val)"
    assert found[0].examples == ("annotation 5 (of 7; first: x) of x.jpg",)


def test_every_kind_says_one_and_what_is_left_out_says_what_to_do():
    """One thing is not said as many, and whoever loses rows learns what to do."""
    every = {name: kind for name, kind in vars(kinds).items() if isinstance(kind, Kind)}
    assert len(every) > 15
    for name, kind in every.items():
        first = kind.many.split()[0]
        if (first.endswith("s") and " that " in kind.many) or first in ("boxes", "images"):
            assert kind.told(1).split()[0] != first, name
        assert kind.told(2) == kind.many
        if "cannot" in kind.many or "missing" in kind.many or "not in the file" in kind.many:
            assert kind.do, name
    assert kinds.NO_AREA.at("val").told(1) == "box without an area, or with corners exchanged (val)"
    bare = kinds.without("a label file", kinds.UNLABELLED)
    assert bare.told(1) == "image without a label file, used as an image without objects"
    assert bare.told(7) == "images without a label file, used as images without objects"


def test_small_boxes_between_the_points_are_serious_when_many():
    boxes = [(5, 5, 11, 11, 0), (1, 1, 7, 7, 1)]
    d = doctor.diagnose({"train": dataset([record(1, boxes)])}, CONFIG, images=False, tune=False)
    assert d.numbers()["best_possible_recall"] == 0.5
    assert [f.kind.many for f in d.findings if f.level == "serious"] == ["boxes without a location to learn them"]
    assert [v.boxes for v in d.levels] == [1, 0, 0, 0, 0]
    assert d.together.tolist() == [[1, 1], [1, 1]]
    assert json.dumps(d.to_dict(), allow_nan=False)


def test_what_is_serious_rare_tiny_or_unused_by_its_limit():
    """Serious are more than 5 % of the boxes without a location, rare are classes of fewer than 20 boxes, tiny is one
    short side; of a class that another split shows, nothing is said to be nowhere."""
    good, small = (10, 10, 60, 60), (5, 5, 11, 11)
    for count, level, rare in ((20, "warning", None), (19, "serious", ("a: 19",))):
        train = dataset([record(k, [(*(good if k else small), 0)]) for k in range(count)])
        several = doctor.diagnose({"train": train}, CONFIG, images=False, tune=False).findings
        found = {f.kind.many: f for f in several}
        unlearned = found["boxes without a location to learn them"]
        assert (unlearned.level, unlearned.count) == (level, 1)
        few = found.get("classes with fewer than 20 boxes (train)")
        assert (few and few.examples) == rare
    data = dataset([record(1, [(10, 10, 13, 70, 0), (20, 20, 80, 23, 0), (20, 20, 25, 25, 0)])], names=("a", "b", "c"))
    val = dataset([record(1, [(*good, 1)])], "val", names=("a", "b", "c"))
    several = doctor.diagnose({"train": data, "val": val}, CONFIG, images=False, tune=False).findings
    found = {f.kind.many: f for f in several}
    assert found["boxes with a side below 4 px at this input size"].count == 2
    assert found["classes without a box anywhere"].examples == ("c",)


def test_beside_a_box_that_learns_nothing_stand_the_smaller_ones_that_take_its_locations(tmp_path):
    """And boxes are cut to the image, as training cuts them: the last is as small as what is seen of it."""
    rows = [(1, 1, 8, 8, 0), (1, 1, 7, 7, 1), (0, 0, 90, 90, 0), (60, 60, 70, 70, 0), (125, 40, 160, 90, 1)]
    data = dataset([record(1, rows, write(tmp_path / "0.png", photo(0)))])
    several = doctor.diagnose({"train": data}, CONFIG, images=False, tune=False).findings
    found = {f.kind.many: f for f in several}
    (spot,) = found["boxes whose locations all learn a smaller box"].spots
    assert (spot.boxes, spot.others) == (((1, 1, 8, 8),), ((1, 1, 7, 7),))
    assert found["boxes with a side below 4 px at this input size"].examples == ("0.png: b 3x50 px",)


def test_a_crowd_shows_no_class_together_with_another():
    first = record(1, [(5, 5, 60, 70, 0), (70, 70, 99, 99, 1)])
    data = dataset([replace(first, ignore=np.array([False, True])), record(2, [(5, 5, 60, 70, 0)])])
    assert doctor.diagnose({"train": data}, CONFIG, images=False, tune=False).together.tolist() == [[2, 0], [0, 0]]


def test_boxes_are_those_that_training_learns():
    """The dialects of the original code take a pixel off; then none of the second box is left."""
    data = dataset([record(1, [(8, 8, 21, 21, 0), (40, 40, 41, 48, 1)])])
    inclusive = CONFIG.override("data.inclusive_boxes=true")
    d = doctor.diagnose({"train": data}, inclusive, images=False, tune=False)
    assert (d.scan.boxes, d.splits["train"]) == (1, (1, 2))
    assert [(f.level, f.count) for f in d.findings if f.kind == kinds.ONE_PIXEL.at("train")] == [("warning", 1)]
    assert doctor.diagnose({"train": data}, CONFIG, images=False, tune=False).scan.boxes == 2


def test_lost_share_by_hand():
    # the large box holds 4 points, the small one takes 2 of them; the third box has none
    boxes = [(0, 0, 16, 16, 0), (0, 0, 8, 16, 0), (101, 101, 107, 107, 0)]
    config = CONFIG.override({"assign": {"center_radius": 0}})
    found = search.scan(dataset([record(1, boxes)]), config)
    assert lost_share(found) == pytest.approx((0.5 + 0 + 1) / 3)


def test_search_stays_within_the_budget_and_gains():
    rng = np.random.default_rng(3)
    records = []
    for i in range(3):
        corner = rng.uniform(0, 110, (12, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(4, 9, (12, 2)), np.zeros((12, 1))], axis=1)
        records.append(record(i + 1, boxes))
    rates = Rates(pixel=1000.0, point=50000.0)
    today, best, tried = search.search(dataset(records), CONFIG, rates, budget=4.0)
    assert tried
    assert all(o.gflop <= 4.0 * today.gflop * (1 + 1e-6) for o in tried)
    assert best.lost < today.lost
    dear = sorted({o.gflop / today.gflop for o in tried})[-1]
    *_, fewer = search.search(dataset(records[:1]), CONFIG, rates, budget=0.95 * dear)
    assert 0 < max(o.gflop for o in fewer) <= 0.95 * dear * today.gflop
    same, alone, _ = search.search(dataset(records), CONFIG, rates, budget=0.01)
    assert alone == same
    assert best.config_lines().startswith("data.size=")
    words = shlex.split(best.command("my data"))
    assert words == ["fcos", "train", "my data", *best.config_lines().split()]


def test_the_search_leaves_out_what_the_model_cannot_have():
    """Inputs above the largest there is, and strides that a neck does not make."""
    high = CONFIG.override({"data": {"size": 4200, "max_size": 7000}})
    tried = search.variants(high, (1.0, 2.0))
    assert tried
    assert max(v.data.size for v in tried) <= 8192
    assert search.variants(CONFIG.override({"data": {"size": 8000, "max_size": 8192}}), (2.0,)) == []


def test_the_advised_commands_name_what_was_diagnosed(tmp_path, capsys):
    from tiny import fcos, make_shapes

    data = make_shapes(tmp_path / "my shapes", {"train": 6, "val": 2})
    words = ("--model", "fcos-lite1", "--budget", "4", "--no-images", "data.size=64", "data.max_size=107")
    code, out, err = fcos(capsys, "doctor", data, *words)
    assert code == 0, err
    (page,) = (line for line in out.splitlines() if "doctor.html" in line)
    said = ["--model", "fcos-lite1", "data.size=64", "data.max_size=107"]
    assert shlex.split(page.partition(": ")[2]) == ["fcos", "doctor", str(data), *said, "--out", "doctor.html"]
    advised = [shlex.split(line) for line in out.splitlines() if line.strip().startswith("fcos train")]
    assert all(command[:7] == ["fcos", "train", str(data), *said] for command in advised)


def test_tiles_are_said_to_be_looked_at_whole(tmp_path, capsys):
    from tiny import fcos, make_shapes

    data = make_shapes(tmp_path / "shapes", {"train": 2})
    words = ("doctor", data, "--no-images", "--no-search")
    assert "whole images" not in fcos(capsys, *words)[2]
    code, _, err = fcos(capsys, *words, "data.tile=320")
    assert (code, err.count("\n")) == (0, 1)
    assert "data.tile=320: the doctor looks at whole images" in err


def test_the_advised_training_names_a_preset_where_a_file_was_diagnosed(tmp_path, capsys):
    """`fcos train --model` takes no run and no file."""
    from tiny import fcos, make_shapes

    data, file = make_shapes(tmp_path / "shapes", {"train": 6}), tmp_path / "mine.safetensors"
    file.write_bytes(find_weights("fcos-lite1").read_bytes())
    code, out, err = fcos(capsys, "doctor", data, "--model", file, "--budget", "9", "--no-images", "data.size=64")
    assert code == 0, err
    (page,) = (line for line in out.splitlines() if "doctor.html" in line)
    assert str(file) in page
    (advised,) = (shlex.split(line) for line in out.splitlines() if line.strip().startswith("fcos train"))
    assert advised[3:5] == ["--model", "fcos-lite1"]


def test_no_advice_that_costs_more_than_it_gains(monkeypatch):
    """A larger input at 41 % more FLOPs for a hundredth of a point was called better."""
    records = [record(1, [(10, 10, 60, 60, 0)])]
    today = search.option(dataset(records), CONFIG, Rates(pixel=1000.0, point=50000.0))
    for lost, gflop, advised in ((0.009, 1.41, False), (0.001, 1.41, True), (0.02, 0.5, True), (0.02, 0.97, False)):
        other = replace(today, size=999, lost=lost, gflop=gflop)
        offers = iter([replace(today, lost=0.01 if lost < 0.02 else 0.02, gflop=1.0), other])
        monkeypatch.setattr(search, "variants", lambda *_: [CONFIG])
        monkeypatch.setattr(search, "cost", lambda *_: (0.0, 0.0))
        monkeypatch.setattr(search, "option", lambda *_, offers=offers: next(offers))
        _, best, _ = search.search(dataset(records), CONFIG, Rates(pixel=1000.0, point=50000.0), budget=2.0)
        assert (best.size == 999) is advised, (lost, gflop)


def test_other_levels_are_not_advised_where_those_of_the_model_do_as_well(monkeypatch):
    data, rates = dataset([record(1, [(10, 10, 60, 60, 0)])]), Rates(pixel=1000.0, point=50000.0)
    today = replace(search.option(data, CONFIG, rates), lost=0.01, gflop=1.0)
    for gflop, advised in ((0.505, today.strides), (0.52, (4, 8))):
        offers = iter([today, replace(today, strides=(4, 8), gflop=0.5), replace(today, size=96, gflop=gflop)])
        monkeypatch.setattr(search, "variants", lambda *_: [CONFIG] * 2)
        monkeypatch.setattr(search, "cost", lambda *_: (0.0, 0.0))
        monkeypatch.setattr(search, "option", lambda *_, offers=offers: next(offers))
        assert search.search(data, CONFIG, rates)[1].strides == advised


def test_the_verdict_stands_on_top():
    train = dataset([record(1, [(10, 10, 60, 60, 0)])])
    d = doctor.diagnose({"train": train}, CONFIG, images=False, tune=False)
    found = {
        "ready to train": (),
        "worth a look": (doctor.Finding("warning", Kind("few boxes"), 3),),
        "fix 1 serious problem before training: no boxes at all": (
            doctor.Finding("serious", Kind("no boxes at all"), 1), doctor.Finding("warning", Kind("few boxes"), 3)),
    }  # fmt: skip
    for words, several in found.items():
        assert words in replace(d, findings=several).text().splitlines()[0]


def test_data_without_boxes_or_without_images_is_not_ready_to_train():
    bare = doctor.diagnose({"train": dataset([record(1, [])])}, CONFIG, images=False, tune=False)
    assert bare.serious
    assert "split to train on that has no boxes" in bare.verdict()
    alone = doctor.diagnose({"train": dataset([record(1, [(10, 10, 60, 60, 0)])])}, CONFIG, tune=False)
    assert not alone.serious
    assert alone.verdict().startswith("only boxes were checked, as there are no images to train on; ")


def test_one_is_singular_and_each_serious_thing_says_what_to_do(tmp_path):
    one = write(tmp_path / "0.png", photo(0))
    again = write(tmp_path / "again.jpg", photo(0), cv2.IMWRITE_JPEG_QUALITY, 60)
    train = dataset([record(1, [(10, 10, 90, 90, 0), (10, 10, 90, 89, 0)], one)])
    val = dataset([record(1, [(10, 10, 90, 90, 1)], again)], "val")
    d = replace(doctor.diagnose({"train": train, "val": val}, CONFIG, tune=False), data="my data")
    text = d.text()
    assert text.startswith("my data: fix 2 serious problems before training")
    for words in ("pair of images that is in two splits", "box marked twice (train)", "class that train never shows"):
        assert words in text
    assert "fcos labels check 'my data' finds more" in text
    assert all(f.kind.do for f in d.findings if f.level == "serious")


def test_all_bad_rows_are_listed_up_to_a_limit_that_is_said(tmp_path):
    from fcos.analysis.doctor_page import write_page

    (tmp_path / "images" / "train").mkdir(parents=True)
    (tmp_path / "labels" / "train").mkdir(parents=True)
    for i in range(27):
        write(tmp_path / "images" / "train" / f"p{i:02}.png", photo(i))
        (tmp_path / "labels" / "train" / f"p{i:02}.txt").write_text("0 0.5 0.5 0.3 0.3\n0 what\n")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [a]\n")
    splits = {"train": open_splits(tmp_path)["train"]}
    d = doctor.diagnose(splits, CONFIG, images=False, tune=False)
    (rows,) = (f for f in d.findings if f.kind.many == "label rows that cannot be used (train)")
    assert rows.count == 27
    for page, most in ((d.text(), 5), (write_page(tmp_path / "page.html", d).read_text(), 20)):
        assert len(re.findall(r"p\d\d\.txt, line 2", page)) == most
        assert f"and {27 - most} more" in page


def test_bad_boxes_of_one_file_are_all_named(tmp_path):
    write(tmp_path / "0.png", photo(0))
    (tmp_path / "instances_train.json").write_text(json.dumps({
        "images": [{"id": 1, "file_name": "0.png", "width": 128, "height": 128}],
        "annotations": [{"id": k, "image_id": 1, "category_id": 1, "bbox": [5, 5, 0, 9]} for k in (11, 12, 13)]
        + [{"id": 14, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 20]}],
        "categories": [{"id": 1, "name": "a"}],
    }))  # fmt: skip
    (found,) = findings.in_notes("train", open_splits(tmp_path)["train"])
    assert [re.search(r"annotation (\d+)", line)[1] for line in found.examples] == ["11", "12", "13"]
    assert len(found.spots) == 1  # they are of one image


@pytest.mark.parametrize(
    ("example", "shown"),
    [
        ("annotation 3 of 1.jpg", "1.jpg"),
        ("1.jpg, bbox [1]", "1.jpg"),
        ("PATH: cut short", "1.jpg"),
        ("annotation 3 of sub/1.jpg", "sub/1.jpg"),
        ("PATH.png: cut short", None),
        ("annotation 3 of 11.jpg", None),
        ("annotation 3 of other/1.jpg", None),
        ("annotation 3 of a-1.jpg", None),
        ("annotation 3 of 1.jpg.png", None),
    ],
)
def test_a_note_is_shown_by_the_image_that_it_names(tmp_path, example, shown):
    records = []
    for number, name in enumerate(("1.jpg", "sub/1.jpg"), 1):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        one = record(number, [], write(tmp_path / name, photo(number)))
        records.append(replace(one, file_name=name))
    example = example.replace("PATH", str(tmp_path / "1.jpg"))
    (told,) = findings.in_notes("val", dataset(records, notes=(Note(kinds.NO_AREA, 1, example, "skipped"),)))
    assert [spot.title for spot in told.spots] == ([] if shown is None else [shown])
    (told,) = findings.in_notes("val", dataset(records, notes=(Note(kinds.MISSING, 1, "copy of 1.jpg", "skipped"),)))
    assert (told.examples, told.spots) == (("copy of 1.jpg",), ())


def test_numbers_of_some_boxes_or_images_say_so(tmp_path):
    """Crowd and difficult boxes learn no locations, and the search looks at a part of the images."""
    from fcos.analysis.doctor_page import write_page

    first = record(0, [(5, 5, 60, 70, 0), (70, 70, 99, 99, 1), (5, 5, 60, 70, 0)])
    rest = [record(i, [(5, 5, 60, 70, 0)]) for i in range(1, 501)]
    data = dataset([replace(first, ignore=np.array([False, True, False])), *rest])
    d = doctor.diagnose({"train": data}, CONFIG, images=False, tune=False)
    today = search.Option(128, 256, (8, 16), (64,), 0.1, 1.0, 320, 1.0)
    d = replace(d, today=today, best=today)
    for told in (d.text(), write_page(tmp_path / "page.html", d).read_text()):
        assert "501 of 503 boxes (the rest are crowd, difficult, marked twice or left out by the dialect)" in told
        assert "on 500 of the 501 images" in told
    whole = doctor.diagnose({"train": dataset(rest)}, CONFIG, images=False, tune=False)
    assert "split, 500 boxes:" in whole.text()
    assert not whole.searched()


@pytest.mark.parametrize(
    "names", [("red_blood_cell_mature", "white_blood_cell_large", "platelets"), ("é" * 22, "b" * 22)]
)
def test_long_names_leave_room_for_the_title_and_the_plot(names):
    from fcos.analysis.doctor_page import classes_plot, together_plot

    box = (5, 5, 60, 70)
    data = dataset([record(1, [(*box, k) for k in range(len(names))])], names=names)
    d = doctor.diagnose({"train": data}, CONFIG, images=False, tune=False)
    for figure in (together_plot(d), classes_plot(d)):
        figure.draw_without_rendering()
        title, plot = figure._suptitle.get_window_extent(), figure.axes[0].get_window_extent()
        assert title.x0 >= 0
        assert title.x1 <= figure.bbox.x1
        assert min(plot.width, plot.height) > 0.7 * figure.dpi


def test_boxes_by_class_go_by_name(tmp_path):
    """A split with the classes in another order, one with fewer, one with more, and six splits in all on the page."""
    from fcos.analysis.doctor_page import classes_plot, write_page

    box = (5, 5, 60, 70)
    splits = {
        "train": dataset([record(1, [(*box, 0)] * 3 + [(*box, 1)])]),
        "val": dataset([record(1, [(*box, 0)] * 2)], "val", names=("b", "a")),
        "test": dataset([record(1, [(*box, 0)] * 4)], "test", names=("b",)),
        "odd": dataset([record(1, [(*box, 0)] * 7 + [(*box, 1)] * 5)], "odd", names=("c", "a")),
        "five": dataset([record(1, [(*box, 1)])], "five"),
        "six": dataset([record(1, [(*box, 1)])], "six"),
    }
    d = doctor.diagnose(splits, CONFIG, images=False, tune=False)
    assert d.classes == ("a", "b")
    assert d.counts == {"train": (3, 1), "val": (0, 2), "test": (0, 4), "odd": (5, 0), "five": (0, 1), "six": (0, 1)}
    (axes,) = classes_plot(d).axes
    assert [text.get_text().strip() for text in axes.texts] == ["8", "9"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == list(splits)
    assert len({bars.patches[0].get_facecolor() for bars in axes.containers}) == 6
    write_page(tmp_path / "page.html", d)


def test_the_page_stands_alone(tmp_path):
    data = dataset([record(1, [(5, 5, 60, 70, 0), (9, 9, 40, 40, 1)])])
    d = doctor.diagnose({"train": data}, CONFIG, images=False, tune=False)
    from fcos.analysis.doctor_page import write_page

    text = write_page(tmp_path / "page.html", d).read_text()
    assert text.count("<svg") == 4
    assert "var(--ink)" in text  # what is drawn in the page's colours is light in the dark
    assert "#22262e" not in text.partition("<body")[2].partition("</style>")[2]
    assert "http" not in text
    empty = doctor.diagnose({"train": dataset([record(1, [])])}, CONFIG, images=False)
    write_page(tmp_path / "empty.html", empty)
    assert "best possible recall" in empty.text()


def test_the_legend_of_the_sizes_lies_clear_of_the_plot():
    from fcos.analysis.doctor_page import sizes_plot

    sides = (8, 12, 40, 90, 300, 700, 1300)
    data = dataset([record(1, [(0, 0, side, side, 0) for side in sides], size=(1600, 1600))])
    config = Config(data=DataConfig(size=1600, max_size=1600))
    figure = sizes_plot(doctor.diagnose({"train": data}, config, images=False, tune=False))
    figure.draw_without_rendering()
    (legend,) = figure.legends
    assert len(legend.get_texts()) == 6
    place, plot = legend.get_window_extent(), figure.axes[0].get_tightbbox()
    assert not figure.axes[0].texts
    assert place.y1 <= plot.y0
    assert min(place.x0, place.y0) >= 0
    assert place.x1 <= figure.bbox.x1


def test_every_finding_with_an_image_is_shown(tmp_path):
    """One set with a fault of each kind; the page shows a crop of each that has a file to show."""
    from fcos.analysis.doctor_page import _tile, write_page

    rng = np.random.default_rng(0)
    for split, count in (("train", 7), ("val", 2)):
        folder = tmp_path / "images" / split
        folder.mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
            cv2.imwrite(str(folder / f"{split}{i}.jpg"), pixels)
    shutil.copy(tmp_path / "images/train/train1.jpg", tmp_path / "images/val/val0.jpg")
    shutil.copy(tmp_path / "images/train/train2.jpg", tmp_path / "images/train/train3.jpg")
    boxes = {
        "train": [(0, 1, (20, 20, 100, 100)), (0, 1, (21, 20, 100, 100)), (1, 1, (30, 30, 80, 80)),
                  (1, 2, (30, 30, 80, 81)), (2, 1, (60, 60, 3, 3)), (4, 1, (350, 280, 100, 100)),
                  (5, 1, (9, 9, 0, 5)), (5, 2, (90, 90, 60, 60))],
        "val": [(0, 1, (20, 20, 100, 100)), (1, 3, (40, 40, 90, 90))],
    }  # fmt: skip
    for split, rows in boxes.items():
        names = sorted(p.name for p in (tmp_path / "images" / split).iterdir())
        content = {
            "images": [{"id": i, "file_name": n, "width": 400, "height": 320} for i, n in enumerate(names)],
            "annotations": [{"id": k, "image_id": i, "category_id": c, "bbox": list(b), "area": b[2] * b[3]}
                            for k, (i, c, b) in enumerate(rows)],
            "categories": [{"id": c, "name": n} for c, n in ((1, "a"), (2, "b"), (3, "c"))],
        }  # fmt: skip
        (tmp_path / f"instances_{split}.json").write_text(json.dumps(content))
    d = doctor.diagnose(open_splits(tmp_path), CONFIG, tune=False)
    shown = {f.kind.many: len(f.spots) for f in d.findings}
    for words, count in (
        ("two splits", 2), ("show the same, in one split", 2), ("marked twice", 1), ("as two classes", 1),
        ("without an area", 1), ("partly outside", 1), ("never shows", 1), ("without boxes", 2), ("fewer than", 2),
        ("without a location", 1), ("side below", 1),
    ):  # fmt: skip
        assert [n for what, n in shown.items() if words in what] == [count], (words, shown)
    assert not [f for f in d.to_dict()["findings"] if "spots" in f]
    text = write_page(tmp_path / "page.html", d).read_text()
    assert text.count("data:image/jpeg;base64,") == sum(shown.values())

    black = np.zeros((300, 400, 3), np.uint8)
    tile = _tile(black, np.array([[200.0, 100, 220, 130]]))  # its surroundings, 96 px wide, fill the tile
    ys, xs = np.nonzero(tile[..., 0] > 128)
    scale = 240 / 97
    assert tile.shape[:2] == (240, 240)
    assert (xs.max() - xs.min(), ys.max() - ys.min()) == (
        pytest.approx(20 * scale, abs=4),
        pytest.approx(30 * scale, abs=4),
    )
    assert _tile(black, np.zeros((0, 4))).shape == (180, 240, 3)


def test_the_function_is_what_the_verb_says(tmp_path, capsys):
    folder = make_shapes(tmp_path / "set", {"train": 6, "val": 3})
    code, out, err = fcos(capsys, "doctor", folder, "--no-search", "--size", "96", "--json")
    assert code in (0, 1), err
    told = json.loads(out)
    for data in (folder, DataSource(folder), open_splits(folder)):
        found = package.doctor(data, settings={"data.size": 96}, budget=0)
        same = replace(found, data=str(folder)).to_dict()
        assert same == {key: value for key, value in told.items() if key != "environment"}
        assert found.serious == bool(code)
    alone = package.doctor(open_splits(folder)["train"], found_config := Config(data=DataConfig(size=96)), budget=0)
    assert list(alone.splits) == ["train"]
    assert alone.size == (found_config.data.size, found_config.data.max_size)
    with pytest.raises(ConfigError, match=r"train\.lrr"):
        package.doctor(folder, settings="train.lrr=1")
    with pytest.raises(ConfigError, match="budget=-1: give how many times"):
        package.doctor(folder, budget=-1)
