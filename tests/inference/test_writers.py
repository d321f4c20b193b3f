"""Every image's results have a name and an id of their own, and no image is written over."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny import NAMES, fcos, make_shapes, tiny_config

from fcos.data.open import Numbers
from fcos.detections import Detections
from fcos.errors import FcosError
from fcos.inference.writers import Outputs, Writer, image_ids, unique_names
from fcos.network import weights
from fcos.types import Classes

CLASSES = Classes(NAMES, (2, 7))
PIXELS = np.full((40, 60, 3), 90, np.uint8)


def one(source=None):
    return Detections(
        torch.tensor([[1.0, 2, 30, 40]]), torch.tensor([0.5]), torch.tensor([1]), torch.tensor([0]),
        NAMES, (40, 60), source,
    )  # fmt: skip


def test_names_by_hand():
    cases = {
        ("a.jpg", "x/a.jpg", "a-2.jpg"): ["a", "a-3", "a-2"],
        ("a.jpg", "a.webp", "a.png"): ["a", "a-2", "a-3"],
        ("A.jpg", "a.jpg"): ["A", "a-2"],  # one file where the file system does not tell them apart
        ("\u00e9.jpg", "e\u0301.png"): ["\u00e9", "e\u0301-2"],  # one letter, written as one sign and as two
        ("a.jpg", "a-2.jpg", "a-2.png", "a.png"): ["a", "a-2", "a-2-2", "a-3"],
    }
    for paths, names in cases.items():
        assert unique_names([Path(p) for p in paths]) == names
    below = [Path("x"), Path("x/b"), Path(".")]
    inside = ["x/a.jpg", "x/b/a.png", "x/b/A.jpg", "y/a.jpg", "../z/a.jpg", "/x/a.jpg", "x/b/../../../a.jpg"]
    names = ["a", "b/a", "b/A-2", "y/a", "a-2", "a-3", "a-4"]  # and none leads out of the folder that is written
    assert unique_names([Path(p) for p in inside], below) == names
    assert len(unique_names([Path("ü" * 125 + ".jpg")])[0].encode()) <= 200


def test_ids_by_hand():
    assert image_ids([Path(p) for p in ("cat.jpg", "2.jpg", "dog.jpg", "a/7.jpg", "b/7.jpg")]) == [1, 2, 3, 7, 4]
    assert image_ids([Path("000000000139.jpg"), Path("²2.jpg"), Path("٣.jpg"), Path("9" * 30 + ".jpg")]) == [
        139,
        1,
        2,
        3,
    ]
    known = {Path("/data/b.jpg"): 1, Path("/data/1.jpg"): 5}
    assert image_ids([Path("/data/1.jpg"), Path("/data/b.jpg"), Path("/data/2.jpg")], known) == [5, 1, 6]


part = st.text("aA-2é7²", min_size=1, max_size=4)
paths = st.lists(
    st.builds(lambda d, s, e: Path(d) / f"{s}{e}", part, part, st.sampled_from([".jpg", ".png"])), max_size=8
)


@given(paths)
def test_no_name_and_no_id_twice(many):
    many = list(dict.fromkeys(many))
    names = unique_names(many)
    assert len({name.casefold() for name in names}) == len(many)
    assert all(name.startswith(path.stem) for name, path in zip(names, many, strict=True))
    ids = image_ids(many)
    assert len(set(ids)) == len(many)
    numbers = [int(p.stem) if p.stem.isascii() and p.stem.isdecimal() else None for p in many]
    for id, number in zip(ids, numbers, strict=True):
        assert id == number or number is None or numbers.count(number) > 1


def test_all_results_are_there_at_the_end(tmp_path):
    sources = [tmp_path / "in" / name for name in ("a.jpg", "a.png", "sub/a.jpg", "7.jpg")]
    writer = Writer(Outputs(tmp_path / "out", None, tmp_path / "yolo", tmp_path / "r.json"), sources, CLASSES)
    for number, path in enumerate(sources):
        seen = one(str(path))
        writer.add(number, PIXELS, replace(seen, size=(4000, 6000)) if number == 3 else seen)  # a small copy of it
    writer.close()
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["7.jpg", "a-2.png", "a-3.jpg", "a.jpg"]
    assert sorted(p.name for p in (tmp_path / "yolo").iterdir()) == ["7.txt", "a-2.txt", "a-3.txt", "a.txt"]
    rows = json.loads((tmp_path / "r.json").read_text())
    images = json.loads((tmp_path / "r.images.json").read_text())
    assert {e["id"]: e["file_name"] for e in images["images"]} == dict(
        zip((1, 2, 3, 7), map(str, sources), strict=True)
    )
    assert [(e["width"], e["height"]) for e in images["images"]] == [(60, 40)] * 3 + [(6000, 4000)]
    assert [row["image_id"] for row in rows] == [1, 2, 3, 7]
    assert images["categories"] == [{"id": 2, "name": "disc"}, {"id": 7, "name": "square"}]
    assert {row["category_id"] for row in rows} == {7}


def test_what_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").touch()
    writer = Writer(Outputs(tmp_path / "file"), [tmp_path / "a.jpg"], CLASSES)
    writer.add(0, PIXELS, one())
    with pytest.raises(FcosError, match="cannot write"):
        writer.close()


def test_an_image_that_cannot_be_written_leaves_the_results_so_far(tmp_path, capsys):
    (tmp_path / "out" / "b.jpg").mkdir(parents=True)
    sources = [tmp_path / "in" / name for name in ("a.jpg", "b.jpg")]
    writer = Writer(Outputs(tmp_path / "out", None, None, tmp_path / "r.json"), sources, CLASSES)

    def run():
        with writer.kept():
            for number, path in enumerate(sources):
                writer.add(number, PIXELS, one(str(path)))

    with pytest.raises(FcosError, match=r"b\.jpg"):
        run()
    assert not (tmp_path / "r.json").exists()
    assert {row["image_id"] for row in json.loads((tmp_path / "r.partial.json").read_text())} == {1, 2}
    assert "r.partial.json has the results so far, of 2 images" in capsys.readouterr().err


def test_one_file_for_two_results_is_refused(tmp_path):
    with pytest.raises(FcosError, match="is named for two results"):
        Writer(Outputs(None, tmp_path / "a.csv", csv=tmp_path / "a.csv"), [tmp_path / "a.jpg"], CLASSES)


def test_the_one_file_is_drawn_on_the_pixels_that_were_looked_at(tmp_path):
    """Of a large image a smaller copy; its file is not decoded again."""
    writer = Writer(Outputs(None, tmp_path / "found.png"), [tmp_path / "missing.tif"], CLASSES)
    with writer.kept():
        writer.add(0, PIXELS, one(str(tmp_path / "missing.tif")))
    assert Image.open(tmp_path / "found.png").size == PIXELS.shape[1::-1]


def test_a_image_that_is_no_jpeg_any_more_becomes_png(tmp_path):
    writer = Writer(Outputs(tmp_path / "out"), [tmp_path / "wide.bmp"], CLASSES)
    writer.add(0, np.zeros((1, 70000, 3), np.uint8), one())
    writer.close()
    assert Image.open(tmp_path / "out" / "wide.png").size == (70000, 1)


def test_images_are_never_written_over(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "a.jpg")
    before = (tmp_path / "a.jpg").read_bytes()
    for outputs in (Outputs(tmp_path), Outputs(tmp_path / "x" / ".."), Outputs(None, tmp_path / "a.jpg")):
        with pytest.raises(FcosError, match="would be overwritten"):
            Writer(outputs, [tmp_path / "a.jpg"], CLASSES)
    assert (tmp_path / "a.jpg").read_bytes() == before


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("writers")
    torch.manual_seed(1)
    config = tiny_config(decode={"threshold": 0.0, "max_detections": 10})
    network = weights.build(config, 2)
    torch.nn.init.constant_(network.head.class_logits.bias, 0.0)
    weights.save(folder / "model.safetensors", network.state_dict(), config, CLASSES)
    make_shapes(folder / "shapes", {"val": 3})
    return folder


def test_one_image_becomes_one_file(work, capsys, tmp_path):
    image = work / "shapes" / "images" / "val" / "image 0 ü.png"
    common = ("--model", work / "model.safetensors", "--device", "cpu", "--score", "0")
    for name in ("found.jpg", "found.json", "found.txt"):
        code, _, err = fcos(capsys, "predict", image, "--out", tmp_path / "new" / name, *common)
        assert code == 0, err
        assert (tmp_path / "new" / name).is_file()
    assert Image.open(tmp_path / "new" / "found.jpg").size == (80, 64)
    code, _, err = fcos(capsys, "predict", image.parent, "--out", tmp_path / "found.jpg", *common)
    assert code == 2
    assert "is one file, but there are 3 images" in err
    code, _, err = fcos(capsys, "predict", image.parent, "--out", image.parent, *common)
    assert code == 2
    assert "would be overwritten" in err


def test_coco_results_carry_the_images_own_ids_and_warn_of_a_limit(work, capsys, tmp_path):
    common = ("--model", work / "model.safetensors", "--device", "cpu", "--coco", tmp_path / "r.json")
    pictures = work / "shapes" / "images" / "val"
    code, _, err = fcos(capsys, "predict", pictures, *common, "--data", work / "shapes", "--score", "0")
    assert code == 0, err
    assert "leaves out" not in err
    assert {row["image_id"] for row in json.loads((tmp_path / "r.json").read_text())} == {3, 13, 23}
    code, whole, err = fcos(capsys, "eval", work / "shapes", "--detections", tmp_path / "r.json", "--json")
    assert code == 0, err
    code, own, err = fcos(
        capsys, "eval", work / "shapes", "--model", work / "model.safetensors", "--device", "cpu", "--json"
    )
    assert code == 0, err
    assert json.loads(whole)["AP"] == pytest.approx(json.loads(own)["AP"], abs=1e-9)
    code, _, err = fcos(capsys, "predict", pictures, *common, "--score", "1")
    assert code == 0
    assert "leaves out 30 detections" in err
    assert "--score 0" in err
    code, _, err = fcos(capsys, "predict", pictures, "--data", work / "shapes")
    assert (code, "--coco" in err) == (2, True)


def test_labels_and_annotations_of_the_source_are_kept(tmp_path):
    image = tmp_path / "images" / "set" / "images" / "val" / "a.jpg"
    labels = tmp_path / "images" / "set" / "labels" / "val"  # the last folder of that name counts
    for folder in (image.parent, labels):
        folder.mkdir(parents=True)
    classes = Classes(("a",))
    Writer(Outputs(yolo=labels), [image], classes).close()
    (labels / "a.txt").write_text("0 0.5 0.5 1 1\n")
    with pytest.raises(FcosError, match=r"a\.txt holds the labels"):
        Writer(Outputs(yolo=labels), [image], classes)
    image.with_suffix(".txt").write_text("0 0.5 0.5 1 1\n")
    with pytest.raises(FcosError, match=r"a\.txt holds the labels"):
        Writer(Outputs(yolo=image.parent), [image], classes)
    (tmp_path / "found").mkdir()
    (tmp_path / "found" / "a.txt").write_text("")
    Writer(Outputs(yolo=tmp_path / "found"), [image], classes).close()  # those of an earlier run
    coco = tmp_path / "val.json"
    for name in ("val.json", "val.images.json"):
        (tmp_path / name).write_text('{"images": [], "annotations": []}')
        with pytest.raises(FcosError, match=f"{name} holds annotations"):
            Writer(Outputs(coco=coco), [image], classes)
        (tmp_path / name).unlink()
    for _ in range(2):  # its own results may be replaced
        Writer(Outputs(coco=coco), [image], classes).close()
    assert coco.read_text() == "[]"


def test_names_that_no_file_can_have_are_told_when_they_are_read(tmp_path):
    """One with a NUL, as it may stand on standard input, and a link to itself."""
    os.symlink("loop.png", tmp_path / "loop.png")
    paths = [Path("a\0b.png"), tmp_path / "loop.png"]
    for outputs in (Outputs(), Outputs(tmp_path / "o", None, tmp_path / "y", tmp_path / "c.json")):
        Writer(outputs, paths, Classes(("a",))).close()
    assert (tmp_path / "c.json").read_text() == "[]"


def test_results_have_the_numbers_of_a_data_set(tmp_path, capsys):
    """Images and categories as the data set numbers them; a class that it lacks is left out, and counted."""
    paths = [tmp_path / "train" / "1.jpg", tmp_path / "val" / "1.jpg"]
    numbers = Numbers({paths[0]: 5, paths[1]: 5}, Classes(("cat", "Square"), (3, 9)))
    writer = Writer(Outputs(coco=tmp_path / "r.json"), paths, CLASSES, numbers)
    assert "1.jpg, cannot have the data set's own id" in capsys.readouterr().err
    for number, label in enumerate((1, 0)):
        found = one()
        writer.add(number, PIXELS, replace(found, labels=torch.full_like(found.labels, label)))
    writer.close()
    rows = json.loads((tmp_path / "r.json").read_text())
    assert [(row["image_id"], row["category_id"]) for row in rows] == [(5, 9)] * len(one())
    assert writer.foreign == len(one())
    told = json.loads((tmp_path / "r.images.json").read_text())
    assert told["categories"] == [{"id": 3, "name": "cat"}, {"id": 9, "name": "Square"}]


def test_a_stopped_run_leaves_what_it_has(tmp_path, capsys):
    paths = [tmp_path / "1.jpg", tmp_path / "2.jpg"]
    (tmp_path / "r.json").write_text("of an earlier run")
    writer = Writer(Outputs(coco=tmp_path / "r.json"), paths, CLASSES)

    def stopped():
        with writer.kept():
            writer.add(0, PIXELS, one())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert len(json.loads((tmp_path / "r.partial.json").read_text())) == 1
    assert len(json.loads((tmp_path / "r.partial.images.json").read_text())["images"]) == 1
    assert (tmp_path / "r.json").read_text() == "of an earlier run"
    assert "results so far, of 1 image" in capsys.readouterr().err
