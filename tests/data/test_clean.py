"""`--clean` and what `merge` says: images that cannot be read, copies, boxes marked twice."""

import shutil
from pathlib import Path

import pytest
from photos import photo, write
from tiny import fcos

from fcos.data.clean import clean, copies, same_files
from fcos.data.open import open_splits
from fcos.errors import DataError


def yolo(folder: Path, images: dict[str, tuple[int, str]], splits="train: images/train\nval: images/val\n") -> Path:
    """A YOLO set: of each image "split/name" the number of its picture (less than 0: cut short) and its label rows."""
    for name, (picture, rows) in images.items():
        file, label = folder / "images" / f"{name}.jpg", folder / "labels" / f"{name}.txt"
        for path in (file, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        write(file, photo(abs(picture)))
        if picture < 0:
            file.write_bytes(file.read_bytes()[:-400])
        label.write_text(rows)
    (folder / "data.yaml").write_text(splits + "names: [cat, dog]\n")
    return folder


BOX, SAME, OTHER = "0 0.5 0.5 0.4 0.4\n", "0 0.5 0.5 0.4 0.401\n", "1 0.5 0.5 0.4 0.4\n"


def messy(folder):
    return yolo(
        folder,
        {
            "train/a": (1, BOX + SAME + OTHER),  # marked twice as a cat, and as a dog: which is right, nobody knows
            "train/b": (2, ""),
            "train/c": (2, BOX),
            "train/d": (-3, BOX),
            "val/e": (1, BOX + SAME + OTHER),
            "val/f": (4, BOX),
        },
    )


def test_convert_leaves_out_what_cannot_be_meant(tmp_path, capsys):
    data = messy(tmp_path / "d")
    before = {p: p.read_bytes() for p in data.rglob("*.*")}
    code, out, err = fcos(capsys, "data", "convert", data, tmp_path / "out", "--to", "yolo", "--clean")
    assert code == 0, err
    found = open_splits(tmp_path / "out")
    assert {s: [Path(r.file_name).name for r in d.records] for s, d in found.items()} == {
        "train": ["a.jpg", "c.jpg"],
        "val": ["f.jpg"],
    }
    assert found["train"].records[0].labels.tolist() == [0, 1]
    for line in (
        "train: skipped: images that cannot be read (1; first: ",
        "train: skipped: copies of an image whose boxes are others (1; first: images/train/b.jpg = images/train/c.jpg)",
        "train: skipped: boxes marked twice (1; first: images/train/a.jpg: cat)",
        "val: skipped: copies of an image (1; first: images/val/e.jpg = images/train/a.jpg (train))",
        "wrote 3 images (train 2, val 1)",
    ):
        assert line in out
    assert {p: p.read_bytes() for p in data.rglob("*.*")} == before
    code, out, err = fcos(capsys, "data", "convert", tmp_path / "out", tmp_path / "again", "--to", "coco", "--clean")
    assert (code, "there is nothing to leave out" in out) == (0, True), err
    code, out, err = fcos(capsys, "data", "convert", data, tmp_path / "all", "--to", "yolo")
    assert "wrote 6 images" in out


def test_a_split_that_is_another_is_left_out(tmp_path, capsys):
    """`train: images` and `val: images`; trainval has train's by its nature."""
    data = yolo(tmp_path / "d", {"train/a": (1, BOX), "train/b": (2, BOX)}, "train: images/train\nval: images/train\n")
    splits = open_splits(data)
    kept, lines = clean(splits)
    assert ({s: len(d) for s, d in kept.items()}, len(lines)) == ({"train": 2}, 1)
    assert copies({"train": splits["train"], "trainval": splits["val"]}) == []
    for words in ([], ["--test", "0.5"]):
        code, _, err = fcos(capsys, "data", "split", data, tmp_path / "out", *words)
        assert (code, "2 images, 2 of which are in train too: --clean leaves these out first" in err) == (2, True)
    code, out, err = fcos(capsys, "data", "split", data, tmp_path / "out", "--clean", "--holdout", "0.5")
    assert (code, "(train 1, val 1)" in out) == (0, True), err


def test_nothing_that_can_be_read(tmp_path):
    with pytest.raises(DataError, match="no image can be read"):
        clean(open_splits(yolo(tmp_path, {"train/a": (-1, BOX)}, "train: images/train\n")))


def test_merge_says_what_is_in_two_splits(tmp_path, capsys):
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    yolo(mine, {"train/a": (1, BOX), "val/b": (2, BOX)})
    yolo(theirs, {"train/x": (2, BOX), "val/y": (3, BOX)})
    code, _, err = fcos(capsys, "data", "merge", mine, theirs, tmp_path / "both")
    assert (code, "1 image of val is in train too: --clean leaves it out" in err) == (0, True), err
    code, out, err = fcos(capsys, "data", "merge", mine, theirs, tmp_path / "clean", "--clean")
    assert (code, "wrote 3 images (train 2, val 1)" in out, "too:" in err) == (0, True, False), err


def test_same_files_are_those_of_the_same_bytes(tmp_path):
    paths = [tmp_path / name for name in "abcde"]
    for path, content in zip(paths, (b"one", b"two", b"one", b"three", b"two"), strict=True):
        path.write_bytes(content)
    assert same_files([*paths, tmp_path / "gone"]) == [[0, 2], [1, 4]]
    shutil.copy(paths[3], tmp_path / "f")
    assert same_files([paths[3], tmp_path / "f", paths[3]]) == [[0, 1, 2]]
