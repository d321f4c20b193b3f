"""Parting, joining and renaming data sets."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import fcos, make_shapes

from fcos.data.combine import merge_sets, part_dataset, rename_classes
from fcos.data.dataset import Dataset, merge
from fcos.data.open import open_splits
from fcos.data.records import Record
from fcos.detections import Detections
from fcos.errors import DataError
from fcos.evaluation.results import read_results, write_results
from fcos.types import Classes


def noise_set(folder, count, rare=4, copies=0):
    """Images of noise; every tenth-or-so shows the rare class; the first `copies` have a copy saved again as JPEG."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    records = []
    for k in range(count):
        pixels = np.kron(rng.integers(0, 256, (8, 9, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
        names = [f"{k}.png", *([f"copy of {k}.jpg"] if k < copies else [])]
        for name in names:
            Image.fromarray(pixels).save(folder / name)
            label = np.array([1 if k % rare == 0 else 0])
            box = np.array([[5.0, 5, 30, 30]])
            size = (64, 72)
            one = Record(len(records) + 1, folder / name, size, box, label, np.zeros(1, bool), np.array([625.0]), name)
            records.append(one)
    return Dataset(tuple(records), Classes(("common", "rare")), "coco", "train", folder)


def test_split_keeps_classes_in_proportion_and_twins_together(tmp_path):
    whole = noise_set(tmp_path, 60, copies=20)
    train, val = part_dataset(whole, {"val": 0.25}, seed=3).values()
    assert sorted(r.file_name for r in (*train.records, *val.records)) == sorted(r.file_name for r in whole.records)
    assert abs(len(val) - 20) <= 1
    share = [np.mean([r.labels[0] for r in part.records]) for part in (train, val)]
    assert abs(share[0] - share[1]) < 0.06  # 80 images, a quarter rare
    held = {r.file_name for r in val.records}
    for k in range(20):
        assert (f"{k}.png" in held) == (f"copy of {k}.jpg" in held)
    again = part_dataset(whole.subset(range(len(whole) - 1, -1, -1)), {"val": 0.25}, seed=3)["val"]
    assert {r.file_name for r in again.records} == held
    assert {r.file_name for r in part_dataset(whole, {"val": 0.25}, seed=4)["val"].records} != held
    assert (train.split, val.split) == ("train", "val")


def test_twins_stay_together_in_three_parts(tmp_path):
    whole = noise_set(tmp_path, 60, copies=20)
    parts = part_dataset(whole, {"val": 0.25, "test": 0.25}, seed=3)
    assert list(parts) == ["train", "val", "test"]
    assert [round(len(parts[name]) / 20) for name in parts] == [2, 1, 1]
    place = {record.file_name: name for name, part in parts.items() for record in part.records}
    assert len(place) == len(whole)
    assert all(place[f"{k}.png"] == place[f"copy of {k}.jpg"] for k in range(20))
    assert part_dataset(whole, {"val": 0.25}, seed=3)["val"].packed == parts["val"].packed


def test_classes_are_renamed_and_joined(tmp_path):
    whole = noise_set(tmp_path, 8)
    turned = rename_classes(whole, {"rare": "odd"})
    assert turned.classes == Classes(("common", "odd"))
    joined = rename_classes(whole, {"common": "rare"})
    assert joined.classes == Classes(("rare",), (1,))
    assert all(r.labels.tolist() == [0] for r in joined.records)
    with pytest.raises(DataError, match="no class 'rar' to rename; did you mean"):
        rename_classes(whole, {"rar": "x"})


def test_merge_joins_classes_by_name_and_splits_by_theirs(tmp_path):
    first = noise_set(tmp_path / "a", 4)
    second = rename_classes(noise_set(tmp_path / "b", 5), {"common": "new"})
    both = merge_sets([{"train": first}, {"train": second, "test": second}])
    assert list(both) == ["train", "test"]
    assert both["train"].classes.names == ("common", "rare", "new")
    assert both["train"].classes.ids == (0, 1, 2)
    assert both["train"].classes == both["test"].classes
    assert [both["train"].classes.names[r.labels[0]] for r in both["train"].records] == [
        *("rare", "common", "common", "common"),
        *("rare", "new", "new", "new", "rare"),
    ]
    assert len({r.id for r in both["train"].records}) == 9
    assert any("get new numbers" in str(n) for n in both["train"].notes)


def yolo_set(folder, stems):
    """A YOLO set, whose splits are numbered from 1 each; each image has as many boxes as its place in all of them."""
    (folder / "data.yaml").parent.mkdir(parents=True)
    (folder / "data.yaml").write_text("train: images/train\nval: images/val\nnames: [cat]\n")
    number = 0
    for split, names in stems.items():
        for name in names:
            number += 1
            for kind in ("images", "labels"):
                (folder / kind / split).mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (100, 50)).save(folder / "images" / split / f"{name}.png")
            rows = "".join(f"0 {0.1 * k + 0.1} 0.5 0.1 0.2\n" for k in range(number))
            (folder / "labels" / split / f"{name}.txt").write_text(rows)
    return folder


def test_splits_put_together_have_an_id_for_each_image(tmp_path):
    """Results that are written of them come back image by image."""
    splits = open_splits(yolo_set(tmp_path / "y", {"train": "abc", "val": "de"}))
    assert [[r.id for r in part] for part in splits.values()] == [[1, 2, 3], [1, 2]]
    whole = merge(list(splits.values()))
    assert len({r.id for r in whole}) == 5
    assert not whole.notes
    found = [
        Detections(
            torch.from_numpy(r.boxes), torch.full((len(r.boxes),), 0.5), torch.from_numpy(r.labels), names=("cat",)
        )
        for r in whole
    ]
    write_results(tmp_path / "r.json", found, whole)
    assert [len(one) for one in read_results(tmp_path / "r.json", whole)] == [1, 2, 3, 4, 5]


def test_ids_that_do_not_meet_are_kept_and_texts_lead_to_the_new_numbers(tmp_path):
    def part(split, ids, aliases):
        made = noise_set(tmp_path / split, len(ids))
        records = [replace(r, id=id) for r, id in zip(made, ids, strict=True)]
        return replace(made, records=records, split=split, aliases=aliases)

    apart = merge([part("train", [3, 9], {"x": 9, 4: 3}), part("val", [5], {"y": 5})])
    assert [r.id for r in apart] == [3, 9, 5]
    assert apart.aliases == {"x": 9, 4: 3, "y": 5}
    meeting = merge([part("train", [1, 2], {"a": 1, "b": 2, 7: 1}), part("val", [1, 2], {"c": 1, "b": 2})])
    assert [r.id for r in meeting] == [1, 2, 3, 4]
    assert [str(note) for note in meeting.notes] == [
        "image ids that are of several images: all images get new numbers (2)"
    ]
    assert meeting.aliases == {"a": 1, "c": 3}  # b is of two images, and 7 may be another's


@pytest.mark.parametrize(
    ("split", "place"), [(("train", "val"), "train"), (("trainval", "test"), "trainval"), (("val", "test"), "all")]
)
def test_a_set_without_splits_joins_what_is_learned_from(tmp_path, split, place):
    parted, whole = noise_set(tmp_path / "a", 4), noise_set(tmp_path / "b", 5)
    for parts in ([dict.fromkeys(split, parted), {"all": whole}], [{"all": whole}, dict.fromkeys(split, parted)]):
        both = merge_sets(parts)
        assert set(both) == {*split, place}
        assert {name: len(d) for name, d in both.items()} == {
            **dict.fromkeys(split, 4),
            place: 4 * (place != "all") + 5,
        }
        assert any(f"has no splits: its images are in {place}" in str(note) for note in both[place].notes)
    assert list(merge_sets([{"all": whole}, {"all": parted}])) == ["all"]


def test_the_verbs(tmp_path, capsys):
    data = make_shapes(tmp_path / "shapes", {"train": 20})
    code, out, _ = fcos(capsys, "data", "split", data, tmp_path / "parted", "--holdout", "0.2", "--to", "yolo")
    assert code == 0
    assert "(train 16, val 4)" in out
    splits = open_splits(tmp_path / "parted", strict=True)
    assert {name: len(part) for name, part in splits.items()} == {"train": 16, "val": 4}
    code, out, err = fcos(capsys, "data", "split", tmp_path / "parted", tmp_path / "again")
    assert code == 2
    assert "has a val split already: 4 images; --test 0.1 draws a test split beside it" in err
    code, out, err = fcos(capsys, "data", "split", tmp_path / "parted", tmp_path / "three", "--test", "0.25")
    assert (code, "(train 12, test 4, val 4)" in out) == (0, True), err
    code, out, err = fcos(capsys, "data", "split", tmp_path / "three", tmp_path / "again", "--test", "0.2")
    assert (code, "has a test split already: 4 images" in err) == (2, True)
    code, out, err = fcos(capsys, "data", "split", data, tmp_path / "new", "--test", "0.1", "--holdout", "0.2")
    assert (code, "(train 14, val 4, test 2)" in out) == (0, True), err
    code, out, err = fcos(capsys, "data", "split", data, tmp_path / "again", "--test", "0.9")
    assert (code, "leave no image to learn from" in err) == (2, True)
    code, out, _ = fcos(capsys, "data", "merge", data, tmp_path / "parted", tmp_path / "both", "--rename", "disc=ball")
    assert code == 0
    both = open_splits(tmp_path / "both", strict=True)
    assert {name: len(part) for name, part in both.items()} == {"train": 36, "val": 4}
    assert set(both["train"].classes.names) == {"ball", "square"}
    code, _, err = fcos(capsys, "data", "merge", data, data, tmp_path / "x", "--rename", "disk=ball")
    assert code == 2
    assert "there is no class 'disk'" in err
    code, _, _ = fcos(capsys, "data", "convert", data, tmp_path / "cvat", "--to", "cvat", "--rename", "disc=a=b")
    assert code == 2  # 'disc=a' is no class


def test_format_pictures_and_labels_in_every_verb(tmp_path, capsys):
    data = make_shapes(tmp_path / "shapes", {"train": 4, "val": 3})
    elsewhere = tmp_path / "annotations of mine"
    elsewhere.mkdir()
    for split in ("train", "val"):
        (data / f"instances_{split}.json").rename(elsewhere / f"{split}.json")
    both = ("--images", data, "--labels", elsewhere, "--format", "coco")
    code, out, _ = fcos(capsys, "data", "info", tmp_path, "--json", *both)
    assert code == 0
    assert {name: facts["images"] for name, facts in json.loads(out).items()} == {"train": 4, "val": 3}
    for verb in (["data", "show"], ["doctor", "--no-search", "--size", "64"]):
        path = tmp_path / "sheet.jpg"
        extra = ["--out", path] if verb[0] == "data" else []
        code, out, err = fcos(capsys, *verb[:2], data, *verb[2:], *extra, "--labels", elsewhere)
        assert code in (0, 1), err
    results = tmp_path / "results.json"
    results.write_text("[]")
    code, out, err = fcos(capsys, "eval", elsewhere, "--images", data, "--detections", results)
    assert code == 0, err
    code, _, err = fcos(capsys, "data", "info", data, "--format", "cocoo")
    assert code == 2
    assert "there is no format 'cocoo'" in err


def test_a_run_on_two_places_is_resumed(tmp_path, capsys):
    data = make_shapes(tmp_path / "shapes", {"train": 6, "val": 3})
    elsewhere = tmp_path / "notes"
    elsewhere.mkdir()
    for split in ("train", "val"):
        (data / f"instances_{split}.json").rename(elsewhere / f"{split}.json")
    settings = ["model.backbone=test_resnet", "model.backbone_weights=none", "train.batch=2", "data.workers=0",
                "data.size=64", "data.max_size=96", "data.train_sizes=[]", "train.freeze_stages=0",
                "train.plots=false"]  # fmt: skip
    run = tmp_path / "run"
    options = ["--out", run, "--init", "none", "--device", "cpu", "--quiet"]
    code, _, err = fcos(capsys, "train", data, "--labels", elsewhere, "--epochs", 1, *options, *settings)
    assert code == 0, err
    code, _, err = fcos(capsys, "train", "--resume", "--out", run, "--epochs", 2, "--device", "cpu", "--quiet")
    assert code == 0, err


def test_a_copy_inside_the_data_set_is_refused(tmp_path, capsys):
    """A folder with two data sets in it could not be opened any more."""
    one, two = make_shapes(tmp_path / "one", {"train": 6}), make_shapes(tmp_path / "two", {"train": 6})
    for words in (
        ["convert", one, one / "new", "--to", "yolo"],
        ["split", one, one / "new"],
        ["merge", one, two, two / "new"],
    ):
        code, out, err = fcos(capsys, "data", *words)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert "lies in the data set itself" in err
    assert {p.name for p in tmp_path.iterdir()} == {"one", "two"}
    assert set(open_splits(one)) == {"train"}
