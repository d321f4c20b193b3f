"""Lists of the images of a split, beside the data of several formats."""

import unicodedata
from pathlib import Path

import pytest
from layouts import check, coco, flat, image, parts_of, txt, xml

from fcos.data import kinds
from fcos.data.open import open_splits
from fcos.data.splits import taught_splits


@pytest.mark.parametrize("place", ["", "lists/", "splits/", "ImageSets/", "ImageSets/Main/"])
@pytest.mark.parametrize("form", ["{}", "{}.jpg", "images/{}.jpg", "./images/{}.jpg", "/home/me/set/images/{}.jpg"])
@pytest.mark.parametrize("kind", ["voc", "yolo", "coco"])
def test_split_lists(kind, form, place, tmp_path):
    flat(tmp_path, kind, ("a b", "b", "c"))
    (tmp_path / place).mkdir(parents=True, exist_ok=True)
    (tmp_path / place / "train.txt").write_text("".join(form.format(s) + "\n" for s in ("a b", "b")))
    (tmp_path / place / "valid.txt").write_text(form.format("c"))
    check(tmp_path, {"train": 2, "val": 1}, kind)


def listed(root, kind, lists, names="abcdefghij"):
    """A set of flat folders, and its lists: split -> names."""
    flat(root, kind, names)
    for split, stems in lists.items():
        (root / f"{split}.txt").write_text("".join(f"{stem}.jpg\n" for stem in stems))


@pytest.mark.parametrize("kind", ["voc", "yolo", "coco"])
@pytest.mark.parametrize("split", ["test", "val"])
def test_images_in_no_list_are_learned_where_no_list_is_train(kind, split, tmp_path):
    listed(tmp_path, kind, {split: "cj"})
    splits = open_splits(tmp_path, strict=True)
    assert {name: sorted(r.path.stem for r in part.records) for name, part in splits.items()} == {
        "train": list("abdefghi"),
        split: ["c", "j"],
    }
    assert taught_splits(splits, None, tmp_path) == ["train"]
    assert not any(part.notes for part in splits.values())


@pytest.mark.parametrize("kind", ["voc", "yolo", "coco"])
@pytest.mark.parametrize("taught", ["train", "trainval"])
def test_images_in_no_list_are_told_where_a_list_is_train(kind, taught, tmp_path):
    listed(tmp_path, kind, {taught: "abcde", "val": "fg"})
    splits = open_splits(tmp_path)
    assert {name: len(part) for name, part in splits.items()} == {taught: 5, "val": 2}
    (note,) = [note for part in splits.values() for note in part.notes]
    assert (note.kind, note.count, note.level) == (kinds.IN_NO_LIST, 3, "note")
    assert [Path(name).stem for name in (note.example, *note.more)] == list("hij")


@pytest.mark.parametrize("kind", ["voc", "yolo", "coco"])
def test_a_list_that_names_nothing_is_told(kind, tmp_path):
    listed(tmp_path, kind, {"val": "xyz"})
    (whole,) = open_splits(tmp_path).values()
    assert (whole.split, len(whole)) == ("all", 10)
    assert [str(note) for note in whole.notes] == ["split lists that name no image that is here (1; first: val: x.jpg)"]
    (tmp_path / "test.txt").write_text("c.jpg\n")
    splits = open_splits(tmp_path)
    assert {name: len(part) for name, part in splits.items()} == {"train": 9, "test": 1}
    assert all([(n.kind, n.level) for n in p.notes] == [(kinds.EMPTY_LISTS, "warning")] for p in splits.values())


def test_the_folder_of_an_image_in_no_list_says_its_split(tmp_path):
    names = [f"{folder}/{k}.jpg" for folder in ("test", "more") for k in range(2)]
    for name in (*names, "more/2.jpg"):
        image(tmp_path / name)
    coco(tmp_path / "all.json", [*names, "more/2.jpg"])
    (tmp_path / "val.txt").write_text("more/2.jpg\n")
    check(tmp_path, {"train": 2, "val": 1, "test": 2}, "coco")


def test_a_split_list_with_a_name_that_looks_like_a_table(tmp_path):
    for stem in ("a, b, c, d", "0 1 2 3 4", "plain", "other"):
        image(tmp_path / "images" / f"{stem}.jpg")
        xml(tmp_path / "annotations" / f"{stem}.xml")
    (tmp_path / "train.txt").write_text("a, b, c, d.jpg\nplain.jpg\nother.jpg\n")
    (tmp_path / "val.txt").write_text("0 1 2 3 4.jpg\nplain.jpg\nother.jpg\n")
    (tmp_path / "test.txt").write_text("a, b, c, d.jpg\n")
    found = {name: len(part) for name, part in open_splits(tmp_path).items()}
    assert found == {"train": 3, "val": 3, "test": 1}


# --------------------------------------------------------------------------- names on several machines


@pytest.mark.parametrize("kind", ["yolo", "listed", "voc", "coco"])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_both_spellings_of_an_umlaut_are_one_name(tmp_path, kind, form):
    """macOS spells ä as a with a mark behind it, and so do zip files from there."""
    other = "NFD" if form == "NFC" else "NFC"
    there, told = (unicodedata.normalize(f, "Grün/Bäume") for f in (form, other))
    image(tmp_path / "images" / f"{there}.jpg")
    if kind in ("yolo", "listed"):
        txt(tmp_path / "labels" / f"{told}.txt")
    if kind == "listed":
        (tmp_path / "data.yaml").write_text("train: train.txt\nnames: [cat]\n")
        (tmp_path / "train.txt").write_text(f"/content/images/{told}.jpg\n")
    if kind == "voc":
        xml(tmp_path / "annotations" / f"{told}.xml")
    if kind == "coco":
        coco(tmp_path / "annotations.json", [f"{told}.jpg"])
    check(tmp_path, {"train" if kind == "listed" else "all": 1}, "yolo" if kind == "listed" else kind)


@pytest.mark.parametrize("kind", ["yolo", "voc", "coco"])
@pytest.mark.parametrize("front", ["", "images/", "/content/data/images/", "./", "C:\\set\\images\\"])
def test_lists_tell_frames_of_one_name_apart_by_their_folders(tmp_path, kind, front):
    flat(tmp_path, kind, ["cam1/0001", "cam2/0001", "cam1/0002", "alone"])
    (tmp_path / "train.txt").write_text(f"{front}cam1/0001.jpg\n{front}cam1/0002.jpg\n")
    (tmp_path / "val.txt").write_text(f"{front}cam2/0001.jpg\n{front}alone.jpg\n")
    assert parts_of(tmp_path) == {"train": ["cam1/0001", "cam1/0002"], "val": ["alone", "cam2/0001"]}


@pytest.mark.parametrize("kind", ["yolo", "coco"])
def test_a_list_of_another_machine_means_the_only_image_of_a_name(tmp_path, kind):
    flat(tmp_path, kind, ["x/a", "x/b", "x/c"])
    (tmp_path / "train.txt").write_text("/home/me/old/a.jpg\n/home/me/old/c.jpg\n")
    (tmp_path / "val.txt").write_text("/home/me/old/b.jpg\n/home/me/older/c.jpg\nx/gone.jpg\n")
    # two lists mean c by different paths, so it is in neither of them
    assert parts_of(tmp_path) == {"train": ["x/a"], "val": ["x/b"]}
