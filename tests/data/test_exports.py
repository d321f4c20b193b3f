"""Files as labelling tools export them, with what people leave in them."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from samples import put, region, rows
from tiny import fcos, make_shapes

from fcos.config import Config
from fcos.data.open import open_dataset, open_splits
from fcos.data.tree import DataSource
from fcos.data.write import convert
from fcos.errors import DataError
from fcos.training.data import check_data


def notes(dataset):
    return "\n".join(map(str, dataset.notes))


# --------------------------------------------------------------------------- what nobody knows is no background


@pytest.mark.parametrize("to", ["voc", "yolo", "labelme", "supervisely"])
def test_an_image_whose_labels_cannot_be_read_is_left_out(to, tmp_path):
    """Not taken for one that shows nothing."""
    convert(open_splits(make_shapes(tmp_path / "a", {"train": 5})), tmp_path / "b", to)
    labels = {"voc": "Annotations", "yolo": "labels/train", "labelme": "train", "supervisely": "train/ann"}[to]
    suffix = {"voc": ".xml", "yolo": ".txt"}.get(to, ".json")
    names = sorted(p for p in (tmp_path / "b" / labels).iterdir() if p.suffix == suffix)
    whole = open_dataset(tmp_path / "b", "train")
    content = names[0].read_bytes()
    names[0].write_bytes(content[: 2 * len(content) // 3] + b"\xe4\xff\x00")
    dataset = open_dataset(tmp_path / "b", "train")
    assert len(dataset) == len(whole) - 1 == 4
    assert "cannot be read, left out with their images (1; first: " in notes(dataset)
    with pytest.raises(DataError, match="cannot be read"):
        open_dataset(tmp_path / "b", "train", strict=True)


def test_tasks_without_a_finished_annotation_are_left_out(tmp_path):
    done = {"data": {"image": "a.jpg"}, "annotations": [{"result": [region(10, 20, 30, 40, "dog")]}]}
    empty = {"data": {"image": "b.jpg"}, "annotations": [{"result": []}]}
    others = [
        {"data": {"image": "c.jpg"}, "annotations": []},
        {"data": {"image": "d.jpg"}, "annotations": [{"was_cancelled": True, "result": []}]},
        {"data": {"image": "e.jpg"}, "annotations": [], "predictions": [{"result": [region(1, 1, 5, 5, "dog")]}]},
    ]
    put(tmp_path, {"x.json": [done, empty, *others]}, [f"{n}.jpg" for n in "abcde"])
    dataset = open_dataset(tmp_path)
    assert rows(dataset) == {"a.jpg": [("dog", 10, 16, 40, 48, False)], "b.jpg": []}
    assert "images whose task has no finished annotation, left out (3; first: c.jpg)" in notes(dataset)
    put(tmp_path, {"x.json": others, "labels.txt": "dog\n"}, [])
    with pytest.raises(DataError, match="no image can be used; images whose task has no finished annotation"):
        open_dataset(tmp_path)


def test_drawn_things_of_label_studio_that_are_no_boxes_are_told(tmp_path):
    point = {"type": "keypointlabels", "value": {"x": 1, "y": 2, "keypointlabels": ["dog"]}}
    brush = {"type": "brushlabels", "value": {"format": "rle", "rle": [1], "brushlabels": ["dog"]}}
    results = [point, brush, region(10, 20, 30, 40, "dog")]
    put(tmp_path, {"x.json": [{"data": {"image": "a.jpg"}, "annotations": [{"result": results}]}]}, ["a.jpg"])
    dataset = open_dataset(tmp_path)
    assert len(dataset.records[0].boxes) == 1
    assert "result 1 is of keypointlabels; boxes, polygons and ellipses are read" in notes(dataset)
    assert "(2; " in notes(dataset)


@pytest.mark.parametrize("tag", ["label", "bbox"])
def test_the_short_export_of_label_studio_whatever_comes_first(tmp_path, tag):
    value = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["dog"],
             "original_width": 100, "original_height": 80}  # fmt: skip
    about = {"annotator": 1, "annotation_id": 1, "created_at": "", "lead_time": 1.5}
    tasks = [{"image": "/data/upload/1/b.jpg", "id": 1, **about}, {"image": "a.jpg", "id": 2, tag: [value], **about}]
    put(tmp_path, {"x.json": tasks}, ["a.jpg", "b.jpg"])
    dataset = open_dataset(tmp_path)
    assert dataset.format == "labelstudio"
    assert rows(dataset) == {"a.jpg": [("dog", 10, 16, 40, 48, False)], "b.jpg": []}


# --------------------------------------------------------------------------- CSV

CSV = {
    "left,top,width,height": "10,16,30,32",
    "bbox_x,bbox_y,bbox_width,bbox_height": "10,16,30,32",
    "x,y,w,h": "10,16,30,32",
    "bbox": '"[10, 16, 30.0, 32]"',
    "x1,y1,x2,y2": "0.1,0.2,0.4,0.6",  # shares of 100 x 80
}


@pytest.mark.parametrize("head", CSV)
def test_boxes_of_csv_however_they_are_given(tmp_path, head):
    text = f"image,label,{head}\na.jpg,dog,{CSV[head]}\n"
    put(tmp_path, {"x.csv": text}, ["a.jpg"])
    assert rows(open_dataset(tmp_path, strict=True)) == {"a.jpg": [("dog", 10, 16, 40, 48, False)]}


def test_csv_with_the_commas_of_europe_and_without_classes(tmp_path):
    put(tmp_path, {"x.csv": "image;xmin;ymin;xmax;ymax\na.jpg;10,0;16;40,00;48,5\n"}, ["a.jpg"])
    assert rows(open_dataset(tmp_path)) == {"a.jpg": [("object", 10, 16, 40, 48.5, False)]}
    put(tmp_path, {"x.csv": 'image,xmin,ymin,xmax,ymax\na.jpg,10,16,40,"1,024"\n'}, ["a.jpg"])
    with pytest.raises(DataError, match="not finite"):  # a thousand and some, or one
        open_dataset(tmp_path, strict=True)


def test_images_without_a_row_are_told(tmp_path):
    put(tmp_path, {"x.csv": "image,label,x1,y1,x2,y2\na.jpg,dog,10,16,40,48\n"}, ["a.jpg", "b.jpg", "c.jpg"])
    assert "images without a row in an annotation file, left out (2; first: b.jpg)" in notes(open_dataset(tmp_path))
    put(tmp_path, {"x.csv": "image,label,x1,y1,x2,y2\na.jpg,dog,10,16,40,48\nb.jpg,,,,,\nc.jpg,,,,,\n"}, [])
    assert "without a row" not in notes(open_dataset(tmp_path))


def test_a_format_that_is_named_says_what_is_missing(tmp_path):
    put(tmp_path, {"x.csv": "image,label,xmin,ymin,xmax\na.jpg,dog,10,16,40\n"}, ["a.jpg"])
    with pytest.raises(DataError, match=r"none for y2 \(ymax, y2, .*\); rename them"):
        open_dataset(DataSource(tmp_path, format="csv"))


# --------------------------------------------------------------------------- names and words


_OWN = ["cat.jpg", "my cat (1).jpg", "kühe.jpg"]  # and as Label Studio calls them after an upload
_UPLOADS = ["0a1b2c3d-cat", "11111111-my_cat_1", "22222222-k%C3%BChe"]


def _box_file(stem: str, to: str) -> str:
    if to == "yolo":
        return "0 0.25 0.5 0.3 0.4\n"
    return (
        f"<annotation><filename>{stem}</filename><size><width>100</width><height>80</height></size><object><name>dog"
        "</name><bndbox><xmin>11</xmin><ymin>25</ymin><xmax>40</xmax><ymax>56</ymax></bndbox></object></annotation>"
    )


def _upload_files(to: str, stems: list[str]) -> dict[str, object]:
    if to == "coco":
        images = [{"id": k, "file_name": rf"..\upload\1\{stem}.jpg"} for k, stem in enumerate(stems)]
        boxes = [{"id": k, "image_id": k, "category_id": 0, "bbox": [10, 24, 30, 32]} for k in range(len(stems))]
        return {"result.json": {"images": images, "categories": [{"id": 0, "name": "dog"}], "annotations": boxes}}
    folder, suffix = ("labels", "txt") if to == "yolo" else ("Annotations", "xml")
    files: dict[str, object] = {f"{folder}/{stem}.{suffix}": _box_file(stem, to) for stem in stems}
    return files | ({"classes.txt": "dog\n"} if to == "yolo" else {})


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
def test_exports_of_label_studio_find_the_images_that_were_uploaded(to, tmp_path):
    put(tmp_path, _upload_files(to, _UPLOADS), [f"images/{name}" for name in _OWN])
    dataset = open_dataset(tmp_path)
    assert sorted(r.path.name for r in dataset.records) == sorted(_OWN)
    for record in dataset.records:
        np.testing.assert_allclose(record.boxes, [[10, 24, 40, 56]], atol=0.01)


@pytest.mark.parametrize("to", ["coco", "yolo", "voc"])
@pytest.mark.parametrize(
    ("stems", "boxes"),
    [
        (["0a1b2c3d-cat", "4e5f6a7b-cat", "33333333-dog"], {"dog.jpg": 1}),  # nobody knows which cat.jpg is
        (["0a1b2c3d-cat", "cat", "33333333-dog"], {"cat.jpg": 1, "dog.jpg": 1}),  # its own file has it
        (["0a1b2c3d-cat", "4e5f6a7b-cat", "cat"], {"cat.jpg": 1}),
        (["20240101-cat", "cat", "dog"], {"cat.jpg": 1, "dog.jpg": 1}),  # a date
    ],
)
def test_an_image_has_the_boxes_of_one_file(to, stems, boxes, tmp_path):
    put(tmp_path, _upload_files(to, stems), ["images/cat.jpg", "images/dog.jpg"])
    found = {r.path.name: len(r.boxes) for r in open_dataset(tmp_path).records}
    assert {name: count for name, count in found.items() if count} == boxes


def test_two_uploads_alone_give_their_image_no_boxes(tmp_path):
    put(tmp_path / "voc", _upload_files("voc", [*_UPLOADS[:1], "4e5f6a7b-cat"]), ["images/cat.jpg"])
    assert not any(r.path for r in open_dataset(tmp_path / "voc").records)  # only annotations are left
    for k, stem in enumerate(["0a1b2c3d-cat", "4e5f6a7b-cat", "33333333-dog"]):
        box = {"x": 10, "y": 20, "width": 30, "height": 40, "rectanglelabels": ["dog"]}
        task = {"data": {"image": f"/data/upload/{k}/{stem}.jpg"}, "annotations": [{"result": [{"value": box}]}]}
        put(tmp_path / "two", {f"p{k}.json": [task]}, [])
    put(tmp_path / "two", {}, ["cat.jpg", "dog.jpg"])
    assert [r.path.name for r in open_dataset(tmp_path / "two").records if r.path] == ["dog.jpg"]


@pytest.mark.parametrize("to", ["yolo", "coco", "csv", "labelstudio", "createml", "openimages"])
def test_names_without_a_suffix_get_that_of_their_image(tmp_path, to):
    content = {"images": [{"id": 1, "file_name": "000442"}], "categories": [{"id": 1, "name": "dog"}],
               "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 16, 30, 32]}]}  # fmt: skip
    put(tmp_path / "a", {"x.json": content}, ["images/000442.jpg"])
    convert({"train": open_dataset(tmp_path / "a")}, tmp_path / "b", to)
    dataset = open_dataset(tmp_path / "b", "train")
    assert [name for (name,) in [rows(dataset).keys()]] == ["000442.jpg"]
    np.testing.assert_allclose(dataset.records[0].boxes, [[10, 16, 40, 48]], atol=0.02)


def test_one_class_alone_and_numbers_are_names():
    for given in ("person", ["person"], ("person",)):
        assert Config().override({"data.classes": given}).data.classes == ("person",)
    assert Config().override("data.classes=traffic light").data.classes == ("traffic light",)
    assert Config().override("data.classes=100").data.classes == ("100",)
    assert Config().override("data.classes=100,cat").data.classes == ("100", "cat")
    assert Config().override("data.classes=").data.classes == ()


def test_why_there_is_nothing_to_learn(tmp_path):
    files = {"labels/a.txt": "0 0.5 0.5 0.1 0.1 0.9\n", "data.yaml": "train: images\nnames: [dog]\n"}
    put(tmp_path, files, ["images/a.jpg"])
    with pytest.raises(DataError, match=r"no boxes to learn from .*6 numbers.* is the sixth a score\? Leave it out"):
        check_data({"train": open_dataset(tmp_path)})


def test_splits_of_any_name_can_be_learned_together(tmp_path, capsys):
    make_shapes(tmp_path, {"task1": 3, "task2": 3})
    code, _, err = fcos(capsys, "train", tmp_path, "--out", tmp_path / "run")
    assert (code, "choose with --split, or several, as task1,task2" in err) == (2, True), err


@pytest.mark.parametrize("name", ["b.json", "b.ZIP", "b.csv"])
def test_a_folder_is_not_called_as_a_file(name, tmp_path, capsys):
    make_shapes(tmp_path / "a", {"train": 6})
    code, _, err = fcos(capsys, "data", "convert", tmp_path / "a", tmp_path / name, "--to", "coco")
    assert (code, (tmp_path / name).exists()) == (2, False)
    assert "is to be a folder" in err
    assert fcos(capsys, "data", "convert", tmp_path / "a", tmp_path / "b.v2", "--to", "coco")[0] == 0


def test_split_renames_a_class(tmp_path, capsys):
    make_shapes(tmp_path / "a", {"train": 6})
    file = tmp_path / "a" / "instances_train.json"
    file.write_text(file.read_text().replace('"disc"', '"disc "'))
    code, _, err = fcos(capsys, "data", "split", tmp_path / "a", tmp_path / "b")
    assert (code, "--rename 'disc '=NAME" in err) == (2, True)
    code, _, err = fcos(capsys, "data", "split", tmp_path / "a", tmp_path / "b", "--rename", "disc =disc")
    assert code == 0, err
    assert open_splits(tmp_path / "b")["train"].classes.names == ("disc", "square")


def test_a_val_of_data_yaml_that_is_not_there_says_what_to_do(tmp_path):
    convert(open_splits(make_shapes(tmp_path / "a", {"train": 4, "val": 2})), tmp_path / "b", "yolo")
    shutil.rmtree(tmp_path / "b" / "images" / "val")
    with pytest.raises(DataError, match=r"does not exist \(looked in [^ ]*\); delete the line val: if there is none"):
        open_splits(tmp_path / "b")


def test_the_difficult_of_x_anylabeling(tmp_path):
    shapes = [
        {"label": "dog", "shape_type": "rectangle", "points": [[10, 16], [40, 48]], "difficult": hard}
        for hard in (True, False)
    ]
    put(tmp_path, {"a.json": {"shapes": shapes, "imagePath": "a.jpg", "imageHeight": 80, "imageWidth": 100}}, ["a.jpg"])
    assert [row[-1] for row in rows(open_dataset(tmp_path))["a.jpg"]] == [True, False]


@pytest.mark.parametrize(("written", "told"), [("sizes", ""), ("corners", "x1, y1, x2, y2"), ("centres", "the centre")])
def test_boxes_that_are_written_otherwise_than_they_are_read_are_told(written, told, tmp_path):
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 45, (12, 2))
    side = rng.uniform(20, 35, (12, 2))
    first = corner + side / 2 if written == "centres" else corner
    second = corner + side if written == "corners" else side
    boxes = np.concatenate([first, second], axis=1).round(2).tolist()
    content = {"images": [{"id": 1, "file_name": "a.jpg", "width": 100, "height": 80}],
               "categories": [{"id": 1, "name": "dog"}],
               "annotations": [{"id": k, "image_id": 1, "category_id": 1, "bbox": box}
                               for k, box in enumerate(boxes, 1)]}  # fmt: skip
    put(tmp_path, {"x.json": content}, ["a.jpg"])
    said = notes(open_dataset(tmp_path))
    assert ("as if all were" in said) == bool(told)
    assert told in said
    content["annotations"] = content["annotations"][:10]  # so few may all be odd
    put(tmp_path, {"x.json": content}, [])
    assert "as if all were" not in notes(open_dataset(tmp_path))


# not those whose boxes are drawn around points, in any order
FORMATS = ("coco", "createml", "csv", "cvat", "huggingface", "kitti", "labelstudio", "mot", "ndjson", "openimages",
           "via", "voc", "yolo")  # fmt: skip


@pytest.mark.parametrize("to", FORMATS)
def test_every_format_says_in_which_form_its_boxes_are_written(to, tmp_path):
    """A file whose boxes are written as another format has them is told of, and one that is right is not."""
    form = {"createml": "cxcywh", "ndjson": "cxcywh", "yolo": "cxcywh", **dict.fromkeys(
        ("coco", "huggingface", "labelstudio", "mot", "via"), "xywh")}.get(to, "xyxy")  # fmt: skip
    data = open_splits(make_shapes(tmp_path / "a", {"train": 20}))["train"]
    records = []
    for record in data.records:
        x1, y1, x2, y2 = record.boxes.T
        a, b, c, d = (x1, y1, x2 - x1, y2 - y1) if form == "xyxy" else (x1, y1, x2, y2)
        read = {"xyxy": (a, b, c, d), "xywh": (a, b, a + c, b + d)}
        boxes = np.stack(read.get(form, (a - c / 2, b - d / 2, a + c / 2, b + d / 2)), axis=1)
        records.append(replace(record, boxes=boxes, xywh=None))
    said = []
    for name, wrong in (("right", data), ("wrong", replace(data, records=records))):
        convert({"train": wrong}, tmp_path / name, to)
        if to == "yolo" and wrong is not data:  # whose writer cuts boxes at the edge
            for record in data.records:
                lines = [f"0 {a / 80} {b / 64} {c / 80} {d / 64}\n" for a, b, c, d in record.boxes.tolist()]
                label = tmp_path / name / "labels" / "train" / f"{Path(record.file_name).stem}.txt"
                label.write_text("".join(lines))
        said.append(notes(next(iter(open_splits(tmp_path / name).values()))))
    assert "as if" not in said[0]
    words = "x, y of a corner, width, height" if form == "xyxy" else "x1, y1, x2, y2"
    assert f"as if all were {words}" in said[1]
