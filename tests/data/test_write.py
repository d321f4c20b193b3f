import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from processes import small_disk
from tiny import make_shapes

from fcos.data.dataset import Dataset
from fcos.data.holdout import draw_holdout
from fcos.data.images.reading import load_image
from fcos.data.open import open_dataset, open_splits
from fcos.data.records import Record
from fcos.data.registry import formats
from fcos.data.tree import DataSource
from fcos.data.write import convert
from fcos.errors import DataError, FcosError
from fcos.system.environment import data_hash
from fcos.system.readers import read_bytes
from fcos.types import Classes

NAMES = ("cat", "dög & <co>", "fish: fresh")


def dataset_of(folder, boxes, split="train", ids=(3, 7, 9), name="a b.png"):
    folder.mkdir(exist_ok=True, parents=True)
    Image.new("RGB", (90, 60)).save(folder / name)
    corners = np.array([b[:4] for b in boxes], dtype=np.float32).reshape(-1, 4)
    sides = corners[:, 2:] - corners[:, :2]
    record = Record(
        41,
        folder / name,
        (60, 90),
        corners,
        np.array([b[4] for b in boxes], dtype=np.int64),
        np.array([b[5] for b in boxes], dtype=bool),
        sides[:, 0] * sides[:, 1],
        name,
    )
    return Dataset((record,), Classes(NAMES, ids), "coco", split, folder)


@st.composite
def any_boxes(draw):
    boxes = []
    for _ in range(draw(st.integers(0, 6))):
        x1, y1 = draw(st.integers(0, 8900)) / 100, draw(st.integers(0, 5900)) / 100
        x2, y2 = draw(st.integers(int(x1 * 100) + 50, 9050)) / 100, draw(st.integers(int(y1 * 100) + 50, 6050)) / 100
        boxes.append((x1, y1, min(x2, 90), min(y2, 60), draw(st.integers(0, 2)), draw(st.booleans())))
    return [b for b in boxes if b[2] - b[0] > 0.1 and b[3] - b[1] > 0.1]


@settings(max_examples=25, deadline=None)
@given(any_boxes(), st.sampled_from(["coco", "yolo", "voc"]))
def test_round_trip(tmp_path_factory, boxes, to):
    folder = tmp_path_factory.mktemp("round")
    before = dataset_of(folder / "src", boxes)
    convert({"train": before}, folder / "dst", to)
    after = open_dataset(folder / "dst", "train", strict=True)
    assert after.format == to
    assert after.classes.names == NAMES
    expected, got = before.records[0], after.records[0]
    if to == "yolo":  # no mark for ignored boxes: they are left out
        expected = expected.pick(~expected.ignore)
    np.testing.assert_allclose(got.boxes, expected.boxes, atol=2e-3)
    assert got.labels.tolist() == expected.labels.tolist()
    assert got.ignore.tolist() == expected.ignore.tolist()
    assert got.size == (60, 90)
    if to == "coco":
        assert (got.id, after.classes.ids) == (41, (3, 7, 9))


ODD = ("%41", "A", "a", "a%20b", "a b", "trail ", "a?d=b", "007", "7")
ODD += ("a\\b", " lead", "sub/\u3000x", "a\nb", "\x1b[31m", "\u2028")  # these get another name


@pytest.mark.parametrize("to", [name for name, form in formats().items() if form.write is not None])
def test_images_with_odd_names_keep_their_boxes(tmp_path, to):
    """Each image comes back from each format with its own box, whatever it is called."""
    names = [*ODD, os.fsdecode(b"\xff"), os.fsdecode(b"\xfe")] if os.name == "posix" else ["%41", "A", "a%20b", "a b"]
    (tmp_path / "data.yaml").write_text("train: images\nnames: [cat]\n")
    for number, name in enumerate(names):
        image = tmp_path / "images" / f"{name}.png"
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (100, 50), (number, 0, 0)).save(image)  # known by its colour
        label = tmp_path / "labels" / f"{name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(f"0 {0.3 + number / 100} 0.5 0.2 0.4\n")
    before = open_splits(tmp_path)
    assert len(before["train"]) == len(names)
    data_hash(before["train"])
    draw_holdout(before["train"], 0.3, 0)
    lost = convert(before, tmp_path / "out", to)
    assert os.name != "posix" or any("another name for 8 images" in line for line in lost), lost
    after = open_splits(DataSource(tmp_path / "out", format=to), strict=True)["train"]
    assert len(after) == len(names)
    for record in after.records:
        number = int(load_image(read_bytes(record.path))[0, 0, 0])
        np.testing.assert_allclose(record.boxes, [[20 + number, 15, 40 + number, 35]], atol=0.01)


@pytest.mark.parametrize("to", [name for name, form in formats().items() if form.write is not None])
def test_names_that_only_folders_tell_apart_stay_two_images(tmp_path, to):
    names = ("x/y.jpg", "x_y.jpg", "X/y_.jpg", "x y.jpg")
    rows = []
    for number, name in enumerate(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (100, 50), (80 * number, 0, 0)).save(tmp_path / name)
        rows.append({"image": tmp_path / name, "boxes": [[20 + number, 15, 40 + number, 35]], "labels": ["cat"]})
    convert({"train": open_dataset(rows)}, tmp_path / "out", to)
    after = open_splits(DataSource(tmp_path / "out", format=to), strict=True)["train"]
    assert len(after) == len(names)
    for record in after.records:
        number = round(int(load_image(read_bytes(record.path))[0, 0, 0]) / 80)
        np.testing.assert_allclose(record.boxes, [[20 + number, 15, 40 + number, 35]], atol=0.01)


def test_all_splits_through_all_formats(tmp_path):
    boxes = [(1, 2, 30, 40, 0, False), (0, 0, 90, 60, 2, True)]
    splits = {s: dataset_of(tmp_path / s, boxes, s, name=f"{s} 1.png") for s in ("train", "val", "test")}
    lost = convert(splits, tmp_path / "voc", "voc")
    assert any("image ids" in line for line in lost)
    lost = convert(open_splits(tmp_path / "voc"), tmp_path / "coco", "coco")
    assert any("3 crowd or difficult" in line for line in lost)
    lost = convert(open_splits(tmp_path / "coco"), tmp_path / "yolo", "yolo", link=True)
    assert any("3 crowd or difficult boxes are left out" in line for line in lost)
    lost = convert(open_splits(tmp_path / "coco"), tmp_path / "again", "coco")
    assert any("polygons" in line for line in lost)  # which a COCO file may have, and loses
    final = open_splits(tmp_path / "yolo", strict=True)
    assert list(final) == ["train", "val", "test"]
    convert(splits, tmp_path / "kitti", "kitti")
    places = {p.parent.relative_to(tmp_path / "kitti").as_posix() for p in (tmp_path / "kitti").glob("*/label_2/*.txt")}
    assert places == {"training/label_2", "val/label_2", "testing/label_2"}  # as KITTI's own tools call them
    for dataset in final.values():
        np.testing.assert_allclose(dataset.records[0].boxes, [[1, 2, 30, 40]], atol=1e-4)
        assert dataset.records[0].path.is_symlink()


def test_coco_output_is_read_alike_by_pycocotools(tmp_path, capsys):
    from pycocotools.coco import COCO

    convert({"val": dataset_of(tmp_path / "src", [(1.5, 2, 30, 40, 1, True)], "val")}, tmp_path / "out", "coco")
    row = COCO(str(tmp_path / "out" / "instances_val.json")).loadAnns([1])[0]
    assert row["bbox"] == [1.5, 2, 28.5, 38]
    assert (row["iscrowd"], row["category_id"], row["image_id"], row["area"]) == (1, 7, 41, 1083)


def test_same_names_in_two_splits_stay_two_images_in_voc(tmp_path):
    splits = {s: dataset_of(tmp_path / s, [(1, 1, 9, 9, 0, False)], s) for s in ("train", "val")}
    lost = convert(splits, tmp_path / "out", "voc")
    assert len(list((tmp_path / "out" / "JPEGImages").iterdir())) == 2
    assert any("new name" in line for line in lost)


def test_boxes_over_the_edge_are_cut_for_yolo(tmp_path):
    lost = convert({"train": dataset_of(tmp_path / "src", [(-9, 5, 99, 50, 0, False)])}, tmp_path / "out", "yolo")
    assert any("1 box cut" in line for line in lost)
    values = [float(v) for v in (tmp_path / "out" / "labels" / "train" / "a b.txt").read_text().split()[1:]]
    assert max(values) <= 1
    rounded = dataset_of(tmp_path / "src", [(-0.0002, 5, 90.4, 50, 0, False)])  # as rows of six digits come back
    assert not any("cut" in line for line in convert({"train": rounded}, tmp_path / "rounded", "yolo"))


def test_refusals(tmp_path):
    one = dataset_of(tmp_path / "src", [])
    with pytest.raises(DataError, match="no format 'tfrecord'; formats: coco, yolo, voc"):
        convert({"train": one}, tmp_path / "out", "tfrecord")
    with pytest.raises(DataError, match="is there already"):
        convert({"train": one}, tmp_path / "src", "coco")
    other = Dataset(one.records, Classes(("x",)), "coco", "val", Path("y"))
    with pytest.raises(DataError, match="do not have the same classes"):
        convert({"train": one, "val": other}, tmp_path / "out", "coco")
    bare = Dataset((Record(1, None, (5, 5), *_nothing(), "a.jpg"),), Classes(("x",)), "coco", "val", Path("y"))
    with pytest.raises(DataError, match="has no images"):
        convert({"val": bare}, tmp_path / "out", "yolo")
    convert({"val": bare}, tmp_path / "out", "coco")
    assert json.loads((tmp_path / "out" / "instances_val.json").read_text())["images"][0]["width"] == 5


def _nothing():
    empty = np.zeros(0)
    return np.zeros((0, 4), np.float32), empty.astype(np.int64), empty.astype(bool), empty.astype(np.float32)


def run(*arguments):
    from typer.testing import CliRunner

    from fcos.cli.data import app

    return CliRunner().invoke(app, [str(a) for a in arguments])


def test_a_sheet_takes_the_place_of_no_image(tmp_path, monkeypatch):
    make_shapes(tmp_path / "d", {"train": 2})
    monkeypatch.chdir(tmp_path)
    Path("train.jpg").write_bytes(b"mine")
    told = run("show", "d")
    assert told.exit_code == 0, told.output
    assert "train-sheet.jpg" in told.output
    assert Path("train.jpg").read_bytes() == b"mine"
    assert Image.open("train-sheet.jpg").size[0] > 80
    assert "train-augmented.jpg" in run("show", "d", "--augment").output
    assert "--out d: the sheet is one image; give it a name that ends in .jpg" in str(
        run("show", "d", "--out", "d").exception
    )


@pytest.mark.parametrize("augment", [[], ["--augment"]])
def test_a_sheet_names_its_images(tmp_path, monkeypatch, augment):
    make_shapes(tmp_path / "d", {"train": 2})
    told = []
    monkeypatch.setattr("fcos.show.draw.sheet", lambda images, titles: told.extend(titles) or images[0])
    done = run("show", tmp_path / "d", "--count", 2, "--out", tmp_path / "a.jpg", *augment)
    assert done.exit_code == 0, done.output
    assert sorted(told) == ["image 0 ü.png", "image 1 ü.png"]


def test_notes_are_told_by_name(tmp_path):
    make_shapes(tmp_path / "d", {"train": 2})
    (tmp_path / "d" / "images" / "train" / "image 1 ü.png").unlink()
    (note,) = json.loads(run("info", tmp_path / "d", "--json").output)["train"]["notes"]
    assert note["kind"] == "images that are missing"
    assert note["do"].startswith("put the files where they belong")
    assert (note["count"], note["level"], note["example"]) == (1, "skipped", "image 1 ü.png")


@pytest.mark.parametrize("to", ["parquet", "PARQUET", "WebDataset"])
def test_links_into_files_that_hold_the_images_are_refused(tmp_path, to):
    make_shapes(tmp_path / "d", {"train": 2})
    told = run("convert", tmp_path / "d", tmp_path / "out", "--to", to, "--link")
    assert isinstance(told.exception, FcosError)
    assert f"--link: {to.lower()} holds the images themselves" in str(told.exception)


def test_verbs(tmp_path):
    folder = tmp_path / "d"
    convert({"train": dataset_of(tmp_path / "src", [(1, 2, 30, 40, 0, False)])}, folder, "coco")
    shown = run("info", folder)
    assert shown.exit_code == 0, shown.output
    assert "1 image, 1 box, 3 classes" in shown.output
    assert json.loads(run("info", folder, "--json").output)["train"]["classes"][1]["id"] == 7
    done = run("convert", folder, tmp_path / "v", "--to", "voc")
    assert done.exit_code == 0, done.output
    assert "wrote 1 image (train 1)" in done.output
    done = run("show", folder, "--out", tmp_path / "s.jpg")
    assert done.exit_code == 0, done.output
    done = run("show", folder, "--augment", "--count", 3, "--out", tmp_path / "s.png", "data.mosaic=1.0")
    assert done.exit_code == 0, done.output
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.width > 90
    assert run("show", folder, "data.mosaic=1.0").exception is not None


def test_a_full_disk_is_one_line_and_keeps_the_old_file(tmp_path):
    folder = tmp_path / "d"
    convert({"train": dataset_of(tmp_path / "src", [(1, 2, 30, 40, 0, False)])}, folder, "coco")
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(next(folder.rglob("*.png")))
    with small_disk(tmp_path / "disk", 16 << 10) as disk:
        sheet = disk / "sheet.png"
        sheet.write_bytes(b"old")
        done = run("show", folder, "--out", sheet)
        assert isinstance(done.exception, FcosError)
        assert str(done.exception).startswith(f"cannot write {sheet}: No space left on device")
        assert sheet.read_bytes() == b"old"
        assert list(disk.iterdir()) == [sheet]
        done = run("convert", folder, disk / "v", "--to", "voc")
        assert isinstance(done.exception, FcosError)
        assert str(done.exception).startswith(f"cannot write {disk / 'v'}: No space left on device")
        assert list(disk.iterdir()) == [sheet]
        assert "\n" not in str(done.exception)


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_is_there_when_all_of_it_is(tmp_path, monkeypatch, there):
    splits = {"train": dataset_of(tmp_path / "src", [(1, 2, 30, 40, 0, False)])}
    out = tmp_path / "deep" / "out"
    if there:
        out.mkdir(parents=True)
        monkeypatch.chdir(out)  # a shell that stands there must not be left in a folder that is gone
    before = out.stat().st_ino if there else None

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as stop:
        stop.setattr("shutil.copyfile", stopped)
        with pytest.raises(KeyboardInterrupt):
            convert(splits, "." if there else out, "yolo")
    assert list((tmp_path / "deep").rglob("*")) == ([out] if there else [])
    convert(splits, "." if there else out, "ndjson")
    assert len(open_dataset(out, "train")) == 1
    assert not list(out.parent.rglob(".*"))
    assert out.stat().st_mode & 0o777 == (tmp_path / "src").stat().st_mode & 0o777
    if there:
        assert out.stat().st_ino == before
    assert json.loads(next(out.glob("*.ndjson")).read_text().splitlines()[0])["name"] == "out"


SPLITS = (("train", "all"), ("train", "extra"), ("day", "night"), ("train", "test-dev"))


@pytest.mark.parametrize("to", [name for name, form in formats().items() if form.write is not None])
@pytest.mark.parametrize("names", SPLITS, ids="+".join)
def test_splits_are_found_again_or_told(tmp_path, names, to):
    """Each split has its own images, and none is lost in silence."""
    if to == "parquet":
        pytest.importorskip("pyarrow")
    splits = {s: dataset_of(tmp_path / s, [(5, 6, 40, 50, k, False)], s, name=f"{s}.png") for k, s in enumerate(names)}
    lines = convert(splits, tmp_path / "out", to)
    found = open_splits(tmp_path / "out")
    told = [line for line in lines if "not found again" in line]
    lost = [name for name in names if name not in found]
    assert bool(told) == bool(lost)
    assert all(name in told[0] for name in lost)
    assert sum(len(part) for part in found.values()) == 2 or lost
    if "all" in names or to in ("cvat", "ndjson", "yolo"):
        assert not lost
    if to in ("coco", "voc") and "train" in names and not lost:
        assert set(found) == set(names)


def test_a_whole_set_beside_its_splits_is_no_split(tmp_path):
    """As people leave them: a file and a list of all images beside those of train and val."""
    splits = {s: dataset_of(tmp_path / s, [(5, 6, 40, 50, 0, False)], s, name=f"{s}.png") for s in ("train", "val")}
    for to, one, whole in (
        ("coco", "instances_train.json", "instances_all.json"),
        ("voc", "ImageSets/Main/train.txt", "ImageSets/Main/all.txt"),
    ):
        convert(splits, tmp_path / to, to)
        (tmp_path / to / whole).write_text((tmp_path / to / one).read_text())
        assert list(open_splits(tmp_path / to)) == ["train", "val"]


ODD_NAMES = (
    ("1e5", "2E3", "0o17", "yes"),
    ("0 cat", "1 dog"),
    ("__ignore__", "cat"),
    ("_background_", "cat"),
    ("\ufeffcat", "dog"),
)


@pytest.mark.parametrize("to", [name for name, form in formats().items() if form.write is not None])
@pytest.mark.parametrize("names", ODD_NAMES, ids=lambda names: names[-1] + str(len(names)))
def test_names_come_back_as_they_are_or_are_refused(tmp_path, names, to):
    """With all their boxes: a list of classes drops numbers in front, LabelMe's own names and the mark of a file."""
    if to == "parquet":
        pytest.importorskip("pyarrow")
    boxes = [(5 + 9 * k, 6, 12 + 9 * k, 50, k, False) for k in range(len(names))]
    dataset = replace(dataset_of(tmp_path / "a", boxes, name="a.png"), classes=Classes(names, tuple(range(len(names)))))
    try:
        convert({"train": dataset}, tmp_path / "out", to)
    except DataError as error:
        refused = str(error)
    else:
        refused = ""
    if names != ODD_NAMES[0] and refused:
        assert "--rename" in refused
        return
    assert not refused
    after = open_dataset(tmp_path / "out")
    found = [after.classes.names[label] for label in after.records[0].labels]
    assert found == ["0_cat", "1_dog"] if to == "kitti" and names[0] == "0 cat" else sorted(found) == sorted(names)


@pytest.mark.parametrize("to", ["labelme", "labelstudio", "csv", "kitti", "mot", "createml", "via"])
def test_labelmes_class_for_what_is_no_object_loses_nothing_without_boxes(tmp_path, to):
    """labelme2coco writes one with the id 0."""
    plain = dataset_of(tmp_path / "src", [(1, 2, 30, 40, 1, False)])
    given = Dataset(plain.records, Classes(("_background_", "cat"), (0, 1)), "coco", "train", tmp_path / "src")
    convert({"train": given}, tmp_path / "out", to)
    read = next(iter(open_splits(tmp_path / "out").values()))
    assert [read.classes.names[label] for label in read.records[0].labels] == ["cat"]
    boxed = Dataset(plain.records, Classes(("cat", "_background_"), (0, 1)), "coco", "train", tmp_path / "src")
    with pytest.raises(DataError, match="_background_"):
        convert({"train": boxed}, tmp_path / "refused", to)
