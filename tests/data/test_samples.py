"""One sample of each format, written by hand after its public definition (named in the format's file), with the boxes
worked out on paper. Images are 100 x 80."""

import json
import zlib

import numpy as np
import pytest
from PIL import Image
from samples import put, region, rows

from fcos.data.formats.common.coco_columns import box_of_runs
from fcos.data.formats.common.values import bounds
from fcos.data.open import open_dataset, open_splits
from fcos.data.write import convert
from fcos.errors import DataError
from fcos.types import Classes


def test_label_studio(tmp_path):
    polygon = {"points": [[10, 10], [20, 50], [40, 25]], "polygonlabels": ["cat"]}
    ellipse = {"x": 50, "y": 50, "radiusX": 10, "radiusY": 20, "ellipselabels": ["cat"]}
    results = [
        region(10, 20, 30, 40, "dog"),
        # 20 x 32 pixels, turned clockwise about (50, 40): to the left, x from 50 - 32 to 50, y from 40 to 60.
        region(50, 50, 20, 40, "cat", rotation=90),
        {"type": "polygonlabels", "value": polygon, "original_width": 100, "original_height": 80},
        {"type": "ellipselabels", "value": ellipse, "original_width": 100, "original_height": 80},
        {"type": "choices", "value": {"choices": ["good"]}},
        region(0, 0, 10, 10, "dog", meta={"text": ["ignore"]}),
    ]
    cancelled = {"was_cancelled": True, "result": [region(0, 0, 90, 90, "dog")]}
    tasks = [
        {"id": 1, "data": {"image": "/data/upload/3/1a2b3c4d-a.jpg"}, "annotations": [{"result": results}, cancelled]},
        {"id": 2, "data": {"image": "/data/local-files/?d=pics/b%20c.jpg"}, "annotations": [], "predictions": [
            {"result": [region(1, 1, 5, 5, "dog")]}]},
    ]  # fmt: skip
    put(tmp_path, {"project-1-at-2024-01-01.json": tasks}, ["pics/a.jpg", "pics/b c.jpg"])
    assert rows(open_dataset(tmp_path, strict=True)) == {
        "a.jpg": [
            ("dog", 10, 16, 40, 48, False),
            ("cat", 18, 40, 50, 60, False),
            ("cat", 10, 8, 40, 40, False),
            ("cat", 40, 24, 60, 56, False),
            ("dog", 0, 0, 10, 8, True),
        ],
    }


def test_label_studio_names_with_signs_and_what_is_drawn_twice(tmp_path):
    """An address has its signs as numbers; of several annotations the last counts; a turned image is told."""
    first, last = region(1, 2, 3, 4, "dog"), region(10, 25, 30, 50, "cat")
    turned = region(0, 0, 50, 50, "cat", image_rotation=90)
    tasks = [
        {"id": 7, "data": {"image": "/data/local-files/?d=my%20photos/a%25b.jpg"},
         "annotations": [{"result": [first]}, {"result": [last, turned]}]},
    ]  # fmt: skip
    put(tmp_path, {"tasks.json": tasks}, ["my photos/a%b.jpg"])
    dataset = open_dataset(tmp_path)
    assert rows(dataset) == {"a%b.jpg": [("cat", 10, 20, 40, 60, False)]}
    assert any("result 2 was drawn on an image turned in the tool" in str(note) for note in dataset.notes)


def test_label_studio_short_export(tmp_path):
    label = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "rectanglelabels": ["dog"],
             "original_width": 100, "original_height": 80}  # fmt: skip
    put(tmp_path, {"export.json": [{"id": 1, "image": "/data/upload/1/a.jpg", "label": [label]}]}, ["a.jpg"])
    assert rows(open_dataset(tmp_path, strict=True)) == {"a.jpg": [("dog", 10, 16, 40, 48, False)]}


def test_label_studio_and_exif(tmp_path):
    """Per cent of the image as the browser shows it; or of the stored one, where the sizes in the file say so."""
    exif = Image.Exif()
    exif[0x0112] = 6  # stored 100 x 80, shown 80 x 100
    Image.new("RGB", (100, 80)).save(tmp_path / "a.jpg", exif=exif)
    for sides, expected in (((80, 100), [8, 20, 40, 50]), ((100, 80), [40, 10, 64, 50])):
        shown = region(10, 20, 40, 30, "dog", original_width=sides[0], original_height=sides[1])
        task = {"data": {"image": "a.jpg"}, "annotations": [{"result": [shown]}]}
        (tmp_path / "x.json").write_text(json.dumps([task]))
        record = open_dataset(tmp_path).records[0]
        assert record.size == (100, 80)
        # Stored: x 10..50, y 16..40 of 100 x 80; turned clockwise x' = 80 - y, y' = x.
        np.testing.assert_allclose(record.boxes[0], expected, atol=1e-3)


def test_labelme(tmp_path):
    shapes = [
        {"label": "dog", "shape_type": "rectangle", "points": [[40, 60], [10, 20]], "flags": {}},
        {
            "label": "cat",
            "shape_type": "polygon",
            "points": [[5, 6], [15.5, 6], [10, 30]],
            "flags": {"difficult": True},
        },
        {"label": "cat", "shape_type": "circle", "points": [[50, 40], [53, 44]], "flags": {}},
        {"label": "cat", "shape_type": "point", "points": [[1, 1]], "flags": {}},
    ]
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": "..\\images\\a.jpg", "imageData": None,
               "imageHeight": 80, "imageWidth": 100}  # fmt: skip
    put(tmp_path, {"json/a.json": content, "json/b.json": content | {"shapes": []}}, ["images/a.jpg", "images/b.jpg"])
    dataset = open_dataset(tmp_path)
    assert rows(dataset) == {
        "a.jpg": [("dog", 10, 20, 40, 60, False), ("cat", 5, 6, 15.5, 30, True), ("cat", 45, 35, 55, 45, False)],
        "b.jpg": [],
    }
    assert any("shape 4 is a point" in str(n) for n in dataset.notes)


@pytest.mark.parametrize("listed", [True, False])
def test_labelmes_word_for_a_region_to_ignore(tmp_path, listed):
    shapes = [
        {"label": name, "shape_type": "rectangle", "points": [[10, 20], [40, 60]], "flags": {}}
        for name in ("dog", "cat", "__ignore__")
    ]
    content = {"version": "5.5.0", "flags": {}, "shapes": shapes, "imagePath": "a.jpg", "imageData": None,
               "imageHeight": 80, "imageWidth": 100}  # fmt: skip
    put(tmp_path, {"a.json": content}, ["a.jpg"])
    if listed:
        (tmp_path / "labels.txt").write_text("__ignore__\n_background_\ncat\ndog\n")
    dataset = open_dataset(tmp_path)
    assert dataset.classes.names == ("cat", "dog")
    assert sorted(name for name, *_, ignore in rows(dataset)["a.jpg"] if ignore) == ["cat", "dog"]  # whatever it is
    assert dataset.counts().tolist() == [1, 1]


LABELME_XML = """<annotation><filename>
a.jpg
</filename><folder>street</folder><source><sourceImage>The MIT-CSAIL database of objects and scenes</sourceImage>
<sourceAnnotation>LabelMe Webtool</sourceAnnotation></source>{}<imagesize><nrows>
80
</nrows><ncols>
100
</ncols></imagesize></annotation>"""


def labelme_object(name, points, deleted=0):
    points = "".join(f"<pt><x>\n{x}\n</x><y>\n{y}\n</y></pt>" for x, y in points)
    return f"<object><name>\n{name}\n</name><deleted>{deleted}</deleted><polygon>{points}</polygon></object>"


def test_labelme_xml(tmp_path):
    """The first LabelMe: polygons to boxes, deleted ones left out, masks by their box, points named."""
    box = "<xmin>1</xmin><ymin>2</ymin><xmax>9</xmax><ymax>8</ymax>"
    mask = f"<segm><box>{box}</box></segm></object>"
    both = labelme_object("van", [(50, 5), (60, 5), (55, 15)]).replace("</object>", mask)
    objects = [
        labelme_object("car", [(10, 20), (40, 25), (30, 60)]),
        labelme_object("tree", [(1, 1), (5, 5), (5, 1)], deleted=1),
        labelme_object("car", [(7, 7)]),
        f"<object><name>bus</name>{mask}",
        both,
    ]
    files = {
        "Annotations/street/a.xml": LABELME_XML.format("".join(objects)),
        "Annotations/street/b.xml": LABELME_XML.format("").replace("a.jpg", "b.jpg"),
    }
    put(tmp_path, files, ["Images/street/a.jpg", "Images/street/b.jpg"])
    dataset = open_dataset(tmp_path)
    assert dataset.format == "labelmexml"
    assert rows(dataset) == {
        "a.jpg": [("car", 10, 20, 40, 60, False), ("bus", 1, 2, 9, 8, False), ("van", 50, 5, 60, 15, False)],
        "b.jpg": [],
    }
    assert any("object 3 has neither a polygon with an area nor a box" in str(n) for n in dataset.notes)
    with pytest.raises(DataError, match="labelmexml is only read"):
        convert({"all": dataset}, tmp_path / "out", "labelmexml")


def test_cvat_images(tmp_path):
    text = """<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version><meta><task><labels>
    <label><name>dog</name></label><label><name>cat</name></label></labels></task></meta>
    <image id="0" name="sub/a.jpg" width="100" height="80" subset="Train">
      <box label="cat" occluded="0" xtl="10.5" ytl="20" xbr="40" ybr="60.25" z_order="0"/>
      <box label="dog" xtl="20" ytl="30" xbr="40" ybr="40" rotation="90.0">
        <attribute name="iscrowd">true</attribute></box>
      <polygon label="dog" points="1,2;11,2;6,22"/>
      <mask label="dog" left="3" top="4" width="10" height="20" rle="0, 200"/>
    </image>
    <image id="1" name="b.jpg" width="100" height="80" subset="Validation"></image></annotations>"""
    put(tmp_path, {"annotations.xml": text}, ["images/sub/a.jpg", "images/b.jpg"])
    splits = open_splits(tmp_path, strict=True)
    assert list(splits) == ["train", "val"]
    assert splits["train"].classes.names == ("dog", "cat")
    assert rows(splits["train"]) == {
        "a.jpg": [
            ("cat", 10.5, 20, 40, 60.25, False),
            ("dog", 25, 25, 35, 45, True),
            ("dog", 1, 2, 11, 22, False),
            ("dog", 3, 4, 13, 24, False),
        ]
    }
    assert rows(splits["val"]) == {"b.jpg": []}


def test_cvat_tracks(tmp_path):
    """In whatever order the boxes of a track stand."""
    text = """<annotations><version>1.1</version><meta><task><size>6</size>
    <labels><label><name>dog</name></label></labels><original_size><width>100</width><height>80</height></original_size></task></meta>
    <track id="0" label="dog">
      <box frame="5" xtl="1" ytl="1" xbr="9" ybr="9" outside="0" keyframe="1"/>
      <box frame="0" xtl="0" ytl="0" xbr="10" ybr="10" outside="0" keyframe="1"/>
      <box frame="3" xtl="20" ytl="10" xbr="40" ybr="30" outside="1" keyframe="1"/>
      <box frame="2" xtl="20" ytl="10" xbr="40" ybr="30" outside="0" keyframe="1"/>
    </track></annotations>"""
    put(tmp_path, {"annotations.xml": text}, [f"frame_{k:06d}.png" for k in range(6)])
    found = rows(open_dataset(tmp_path, strict=True))
    assert [found[f"frame_{k:06d}.png"] for k in range(6)] == [
        [("dog", 0, 0, 10, 10, False)],
        [("dog", 10, 5, 25, 20, False)],  # half way
        [("dog", 20, 10, 40, 30, False)],
        [],
        [],
        [("dog", 1, 1, 9, 9, False)],
    ]


@pytest.mark.parametrize("named", [True, False])
def test_cvat_tracks_of_every_fifth_frame(tmp_path, named):
    """A task with a frame step has the frames 10, 15, 20, 25 of the video."""
    keys = "".join(
        f'<box frame="{k}" xtl="{k}" ytl="0" xbr="{k + 10}" ybr="10" outside="0" keyframe="1"/>'
        for k in (10, 20, 25, 28)
    )
    text = (
        "<annotations><meta><task><size>4</size><start_frame>10</start_frame><frame_filter>step=5</frame_filter>"
        "<labels><label><name>dog</name></label></labels></task></meta>"
        f'<track id="0" label="dog">{keys}</track></annotations>'
    )
    images = [f"frame_{k:06d}.PNG" if named else f"still{k}.png" for k in (10, 15, 20, 25)]
    put(tmp_path, {"annotations.xml": text}, images)
    dataset = open_dataset(tmp_path)
    x = (10, 15, 20, 25)  # at 15 half way
    assert rows(dataset) == {name: [("dog", k, 0, k + 10, 10, False)] for name, k in zip(images, x, strict=True)}
    assert [str(note) for note in dataset.notes if note.level == "skipped"] == [
        "skipped: objects or files that cannot be used (1; first: annotations.xml: boxes of 1 frame that the task does "
        "not have, such as 28)"
    ]


@pytest.mark.parametrize(
    ("given", "listed", "expected"),
    [
        (["0", "1", "1"], "dog cat", ["dog", "cat", "cat"]),
        (["1", "2", "1"], "dog cat", ["dog", "cat", "dog"]),  # counted from 1
        (["1", "1", "1"], "dog cat cow", ["cat"] * 3),
        (["0", "7", "2"], "dog cat cow", ["dog", "cow"]),  # 7 is no line
        (["0", "7", "0"], "7 0", ["0", "7", "0"]),  # names that are numbers
        (["dog", "1", "cat"], "dog cat", ["dog", "cat"]),  # 1 is not listed
    ],
)
def test_csv_with_numbers_for_the_lines_of_a_list(tmp_path, given, listed, expected):
    lines = [f"a.jpg,{k},20,40,60,{name}" for k, name in enumerate(given)]
    text = "\n".join(["filename,xmin,ymin,xmax,ymax,class", *lines])
    put(tmp_path, {"labels.csv": text, "classes.txt": listed.replace(" ", "\n")}, ["a.jpg"])
    dataset = open_dataset(tmp_path)
    assert dataset.classes.names == tuple(listed.split())
    assert [row[0] for row in rows(dataset)["a.jpg"]] == expected
    assert [n.count for n in dataset.notes if n.level == "skipped"] == [1] * (len(expected) < 3)


@pytest.mark.parametrize("form", ["csv", "labelme", "huggingface", "cvat", "createml", "via"])
def test_an_object_without_a_class_is_left_out(tmp_path, form):
    """An empty cell, null: it makes no class called ""."""
    labelled = [("dog", 10), ("", 20)]
    if form == "csv":
        lines = [f"a.jpg,{x},20,40,60,{name}" for name, x in labelled]
        files = {"labels.csv": "\n".join(["filename,xmin,ymin,xmax,ymax,class", *lines])}
    elif form == "labelme":
        shapes = [{"label": n or None, "shape_type": "rectangle", "points": [[x, 20], [40, 60]]} for n, x in labelled]
        files = {"a.json": {"shapes": shapes, "imagePath": "a.jpg", "imageHeight": 80, "imageWidth": 100}}
    elif form == "huggingface":
        objects = {"bbox": [[x, 20, 40 - x, 40] for _, x in labelled], "categories": [n or True for n, _ in labelled]}
        files = {"metadata.jsonl": json.dumps({"file_name": "a.jpg", "objects": objects})}
    elif form == "cvat":
        boxes = "".join(f'<box label="{n}" xtl="{x}" ytl="20" xbr="40" ybr="60"/>' for n, x in labelled)
        files = {
            "a.xml": f'<annotations><meta/><image name="a.jpg" width="100" height="80">{boxes}</image></annotations>'
        }
    elif form == "createml":
        notes = [{"label": n, "coordinates": {"x": (x + 40) / 2, "y": 40, "width": 40 - x, "height": 40}}
                 for n, x in labelled]  # fmt: skip
        files = {"_annotations.createml.json": [{"image": "a.jpg", "annotations": notes}]}
    else:
        regions = [
            {"shape_attributes": {"name": "rect", "x": x, "y": 20, "width": 40 - x, "height": 40},
             "region_attributes": {"type": n}}
            for n, x in labelled
        ]  # fmt: skip
        files = {"via.json": {"a.jpg1": {"filename": "a.jpg", "size": 1, "regions": regions, "file_attributes": {}}}}
    put(tmp_path, files, ["a.jpg"])
    dataset = open_dataset(tmp_path)
    assert (dataset.format, dataset.classes.names) == (form, ("dog",))
    assert rows(dataset) == {"a.jpg": [("dog", 10, 20, 40, 60, False)]}
    assert [note.count for note in dataset.notes if note.level == "skipped"] == [1]


@pytest.mark.parametrize("form", ["cvat", "ndjson"])
def test_an_image_without_a_split_is_in_no_other(tmp_path, form):
    """CVAT calls the subset of what nobody has sorted Default."""
    given = {"a.jpg": "Train", "b.jpg": "Validation", "c.jpg": "Default" if form == "cvat" else None}
    if form == "cvat":
        images = "".join(f'<image name="{n}" subset="{s}" width="100" height="80"/>' for n, s in given.items())
        meta = "<meta><task><labels><label><name>dog</name></label></labels></task></meta>"
        text = f"<annotations>{meta}{images}</annotations>"
    else:
        lines = [{"type": "dataset", "class_names": {"0": "dog"}}]
        lines += [
            {"type": "image", "file": n, "annotations": {}} | ({"split": s} if s else {}) for n, s in given.items()
        ]
        text = "\n".join(map(json.dumps, lines))
    put(tmp_path, {"annotations.xml" if form == "cvat" else "x.ndjson": text}, list(given))
    splits = open_splits(tmp_path, strict=True)
    assert {name: [*rows(part)] for name, part in splits.items()} == {
        "train": ["a.jpg"],
        "val": ["b.jpg"],
        "all": ["c.jpg"],
    }
    told = [str(note) for part in splits.values() for note in part.notes]
    assert [line for line in told if "without a split" in line] == [
        "images without a split beside others that have one, in the split all (1; first: c.jpg)"
    ]


def test_ultralytics_ndjson(tmp_path):
    lines = [
        {"type": "dataset", "task": "detect", "name": "x", "class_names": {"1": "cat", "0": "dog"}},
        {"type": "image", "file": "a.jpg", "url": "https://example.org/a.jpg", "width": 100, "height": 80,
         "split": "train", "annotations": {"boxes": [[1, 0.25, 0.5, 0.3, 0.5]]}},
        {"type": "image", "file": "b.jpg", "width": 100, "height": 80, "split": "val",
         "annotations": {"segments": [[0, 0.1, 0.1, 0.5, 0.1, 0.3, 0.9]]}},
        {"type": "image", "file": "c.jpg", "width": 100, "height": 80, "split": "val"},
    ]  # fmt: skip
    put(tmp_path, {"x.ndjson": "\n".join(map(json.dumps, lines))}, ["a.jpg", "b.jpg", "c.jpg"])
    splits = open_splits(tmp_path, strict=True)
    assert splits["train"].classes == Classes(("dog", "cat"), (0, 1))  # by their numbers
    assert rows(splits["train"]) == {"a.jpg": [("cat", 10, 20, 40, 60, False)]}
    assert rows(splits["val"]) == {"b.jpg": [("dog", 10, 8, 50, 72, False)], "c.jpg": []}


@pytest.mark.parametrize("names", [True, False])
def test_hugging_face_image_folder(names, tmp_path):
    line = {"file_name": "a.jpg", "objects": {"bbox": [[10, 20, 30, 40], [0, 0, 5, 5]], "categories": [1, 0]}}
    readme = """---
dataset_info:
  features:
  - name: objects
    sequence:
    - name: categories
      dtype:
        class_label:
          names:
            '0': dog
            '1': cat
---
# A card
"""
    files = {"train/metadata.jsonl": json.dumps(line), **({"README.md": readme} if names else {})}
    put(tmp_path, files, ["train/a.jpg"])
    dog, cat = ("dog", "cat") if names else ("class0", "class1")
    dataset = open_dataset(tmp_path, "train", strict=True)
    assert rows(dataset) == {"a.jpg": [(cat, 10, 20, 40, 60, False), (dog, 0, 0, 5, 5, False)]}


def test_more_than_ten_numbered_names_stand_in_their_order(tmp_path):
    names = {str(k): f"kind {k}" for k in (0, 10, 11, *range(1, 10))}
    front = json.dumps({"dataset_info": {"features": [{"dtype": {"class_label": {"names": names}}}]}})
    line = {"file_name": "a.jpg", "objects": {"bbox": [[10, 20, 30, 40]] * 2, "categories": [2, 10]}}
    put(tmp_path, {"metadata.jsonl": json.dumps(line), "README.md": f"---\n{front}\n---\n"}, ["a.jpg"])
    assert [row[0] for row in rows(open_dataset(tmp_path, strict=True))["a.jpg"]] == ["kind 2", "kind 10"]


def test_names_beside_numbered_ones_are_classes_too(tmp_path):
    front = json.dumps({"dataset_info": {"features": [{"dtype": {"class_label": {"names": {"0": "dog"}}}}]}})
    line = {"file_name": "a.jpg", "objects": {"bbox": [[10, 20, 30, 40]] * 2, "categories": ["cow", "dog"]}}
    put(tmp_path, {"metadata.jsonl": json.dumps(line), "README.md": f"---\n{front}\n---\n"}, ["a.jpg"])
    assert [row[0] for row in rows(open_dataset(tmp_path, strict=True))["a.jpg"]] == ["cow", "dog"]


def test_an_image_in_two_files_needs_a_choice(tmp_path):
    put(tmp_path, {f"{name}.json": _ENTRIES for name in ("one", "two")}, ["a.jpg", "b.jpg"])
    with pytest.raises(DataError, match=r"one\.json and .*two\.json both describe"):
        open_dataset(tmp_path)


def test_points_that_are_none_have_no_box():
    assert bounds([[3, 4], [1, 9, 5]]) == (1, 4, 3, 9)  # a third number is a depth
    for points in ([[1], [2, 3]], [[], [2, 3]], [], None, [4, 5], "ab"):
        assert bounds(points) is None


def test_open_images(tmp_path):
    head = (
        "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax,IsOccluded,IsTruncated,IsGroupOf,IsDepiction,IsInside"
    )
    boxes = (
        f"{head}\n000a1b,xclick,/m/0bt9lr,1,0.1,0.4,0.25,0.75,0,0,0,0,0\n000a1b,xclick,/m/01yrx,1,0,1,0,1,0,0,1,0,0\n"
    )
    files = {
        "train-annotations-bbox.csv": boxes,
        "class-descriptions-boxable.csv": '/m/01yrx,Cat\n/m/0bt9lr,"Dog, tame"\n',
    }
    put(tmp_path, files, ["train/000a1b.jpg"])
    dataset = open_dataset(tmp_path, "train", strict=True)
    assert rows(dataset) == {"000a1b.jpg": [("Dog, tame", 10, 20, 40, 60, False), ("Cat", 0, 0, 100, 80, True)]}


@pytest.mark.parametrize(
    "text",
    [
        "filename,width,height,class,xmin,ymin,xmax,ymax\na.jpg,100,80,dog,10,20,40,60\nb.jpg,100,80,,,,,\n",
        "image_path;x1;y1;x2;y2;label\nimg/a.jpg;10;20;40;60;dog\nimg/b.jpg;;;;;\n",
        "/home/me/img/a.jpg,10,20,40,60,dog\n/home/me/img/b.jpg,,,,,\n",
        "file\tclass\tleft\ttop\tright\tbottom\nb.jpg\t\t\t\t\t\na.jpg\tdog\t10\t20\t40\t60\n",
    ],
)
def test_plain_csv(text, tmp_path):
    put(tmp_path, {"train_labels.csv": text}, ["images/a.jpg", "images/b.jpg"])
    dataset = open_dataset(tmp_path, "train", strict=True)
    assert rows(dataset) == {"a.jpg": [("dog", 10, 20, 40, 60, False)], "b.jpg": []}


@pytest.mark.parametrize(("mark", "ignored"), [("1", True), ("1.0", True), ("True", True), ("0.0", False), ("", False)])
def test_a_csv_keeps_its_marks_when_pandas_has_rewritten_it(mark, ignored, tmp_path):
    text = f"filename,class,xmin,ymin,xmax,ymax,ignore\na.jpg,dog,10,20,40,60,{mark}\n"
    put(tmp_path, {"train.csv": text}, ["a.jpg"])
    assert rows(open_dataset(tmp_path)) == {"a.jpg": [("dog", 10, 20, 40, 60, ignored)]}


def test_create_ml(tmp_path):
    entries = [
        {"image": "a.jpg", "annotations": [
            {"label": "dog", "coordinates": {"x": 25, "y": 40, "width": 30, "height": 40}}]},
        {"image": "b.jpg", "annotations": []},
    ]  # fmt: skip
    put(tmp_path, {"train/_annotations.createml.json": entries}, ["train/a.jpg", "train/b.jpg"])
    assert rows(open_dataset(tmp_path, strict=True)) == {"a.jpg": [("dog", 10, 20, 40, 60, False)], "b.jpg": []}


def test_label_studio_csv(tmp_path):
    box = {"x": 10, "y": 20, "width": 30, "height": 40, "rotation": 0, "original_width": 100, "original_height": 80}
    cell = json.dumps([box | {"rectanglelabels": ["dog"]}]).replace('"', '""')
    text = (
        "annotation_id,annotator,created_at,id,image,label,lead_time,updated_at\n"
        f'1,1,2026-11-29T10:00:00Z,7,/data/upload/3/1a2b3c4d-a.jpg,"{cell}",3.5,2026-11-29T10:00:00Z\n'
        "2,1,2026-11-29T10:00:00Z,8,/data/upload/3/5e6f7a8b-b.jpg,,2.5,2026-11-29T10:00:00Z\n"
    )
    put(tmp_path, {"project-1-at-2026.csv": text}, ["a.jpg", "b.jpg"])
    found = {"a.jpg": [("dog", 10, 16, 40, 48, False)], "b.jpg": []}
    assert {name.rpartition("-")[2]: row for name, row in rows(open_dataset(tmp_path, strict=True)).items()} == found


_RECT = {"name": "rect", "x": 10, "y": 20, "width": 30, "height": 40}
_ENTRIES = {
    "a.jpg100": {"filename": "a.jpg", "size": 100, "file_attributes": {}, "regions": [
        {"shape_attributes": _RECT, "region_attributes": {"class": "dog"}},
        {"shape_attributes": {"name": "circle", "cx": 50, "cy": 40, "r": 10}, "region_attributes": {"class": "cat"}},
        {"shape_attributes": {"name": "ellipse", "cx": 50, "cy": 40, "rx": 20, "ry": 10, "theta": 1.5707963267948966},
         "region_attributes": {"class": "cat"}},
        {"shape_attributes": {"name": "polygon", "all_points_x": [5, 9, 7], "all_points_y": [1, 2, 8]},
         "region_attributes": {"class": "dog", "ignore": "1"}}]},
    "b.jpg-1": {"filename": "b.jpg", "size": -1, "file_attributes": {}, "regions": []},
}  # fmt: skip
_VIA = {
    "a.jpg": [
        ("dog", 10, 20, 40, 60, False),
        ("cat", 40, 30, 60, 50, False),
        ("cat", 40, 20, 60, 60, False),
        ("dog", 5, 1, 9, 8, True),
    ],
    "b.jpg": [],
}


@pytest.mark.parametrize("version", ["annotations", "project", "first"])
def test_via(version, tmp_path):
    content = json.loads(json.dumps(_ENTRIES))
    if version == "first":
        for entry in content.values():
            entry["regions"] = {str(k): region for k, region in enumerate(entry["regions"])}
    whole = {"_via_settings": {}, "_via_img_metadata": content} if version == "project" else content
    put(tmp_path, {"train/via_region_data.json": whole}, ["train/a.jpg", "train/b.jpg"])
    assert rows(open_dataset(tmp_path, "train", strict=True)) == _VIA


def test_via_csv(tmp_path):
    head = "#filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    lines = [head]
    for entry in _ENTRIES.values():
        for one in entry["regions"] or [{"shape_attributes": {}, "region_attributes": {}}]:
            cells = [json.dumps(one[k]).replace('"', '""') for k in ("shape_attributes", "region_attributes")]
            lines.append(f'{entry["filename"]},{entry["size"]},"{{}}",4,0,"{cells[0]}","{cells[1]}"')
    put(tmp_path, {"via_export.csv": "\n".join(lines)}, ["a.jpg", "b.jpg"])
    assert rows(open_dataset(tmp_path, strict=True)) == _VIA


def test_via_3(tmp_path):
    project = {
        "project": {"pid": "__VIA_PROJECT_ID__", "data_format_version": "3.1.1", "vid_list": ["1", "2"]},
        "config": {},
        "attribute": {"1": {"aname": "kind", "type": 4, "options": {"0": "dog", "1": "cat"}}},
        "file": {"1": {"fid": "1", "fname": "a.jpg", "type": 2}, "2": {"fid": "2", "fname": "b.jpg", "type": 2}},
        "metadata": {
            "1_x": {"vid": "1", "flg": 0, "z": [], "xy": [2, 10, 20, 30, 40], "av": {"1": "0"}},
            "1_y": {"vid": "1", "flg": 0, "z": [], "xy": [7, 5, 1, 9, 2, 7, 8], "av": {"1": "1"}},
        },
        "view": {"1": {"fid_list": ["1"]}, "2": {"fid_list": ["2"]}},
    }
    put(tmp_path, {"project.json": project}, ["a.jpg", "b.jpg"])
    found = {"a.jpg": [("dog", 10, 20, 40, 60, False), ("cat", 5, 1, 9, 8, False)], "b.jpg": []}
    assert rows(open_dataset(tmp_path, strict=True)) == found
    project["metadata"]["1_x"]["z"] = [1.5]
    put(tmp_path, {"project.json": project}, [])
    dataset = open_dataset(tmp_path)
    assert rows(dataset) == {"a.jpg": found["a.jpg"][1:], "b.jpg": []}
    assert any("metadata 1_x is of a moment in a video" in str(note) for note in dataset.notes)


def test_the_class_of_via_is_an_attribute(tmp_path):
    def entry(**attributes):
        return {"a.jpg1": {"filename": "a.jpg", "size": 1, "regions": [
            {"shape_attributes": _RECT, "region_attributes": attributes}]}}  # fmt: skip

    def names(number, content):
        put(tmp_path / str(number), {"x.json": content}, ["a.jpg"])
        return [row[0] for row in rows(open_dataset(tmp_path / str(number), strict=True))["a.jpg"]]

    assert names(1, entry(animal="dog")) == ["dog"]  # the only one
    assert names(2, entry(colour="red", Name="dog")) == ["dog"]  # the one that is called as classes are
    assert names(3, entry(animal={"dog": True, "cat": False})) == ["dog"]  # ticked
    assert names(4, entry()) == ["object"]
    with pytest.raises(DataError, match=r"which attribute is the class\? Regions have colour, animal"):
        names(5, entry(colour="red", animal="dog"))
    with pytest.raises(DataError, match=r"region 1 has no 'animal', or more than one"):
        names(6, entry(animal={"dog": True, "cat": True}) | {"b": entry(animal="cat")["a.jpg1"]})


def test_kitti(tmp_path):
    text = (
        "Car 0.00 0 -1.57 10.00 20.00 40.00 60.00 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
        "Van 0.00 0 -1.57 1.00 2.00 4.00 6.00 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
        "DontCare -1 -1 -10 50.00 17.00 90.00 22.00 -1 -1 -1 -1000 -1000 -1000 -10\n"
    )
    images = ["training/image_2/000000.png", "training/image_2/000001.png"]
    put(tmp_path, {"training/label_2/000000.txt": text, "training/label_2/000001.txt": ""}, images)
    dataset = open_dataset(tmp_path, "train", strict=True)
    assert rows(dataset) == {
        "000000.png": [
            ("Car", 10, 20, 40, 60, False),
            ("Van", 1, 2, 4, 6, False),
            ("Car", 50, 17, 90, 22, True),
            ("Van", 50, 17, 90, 22, True),
        ],
        "000001.png": [],
    }


def test_polygons_of_yolo_with_as_many_numbers_are_not_of_kitti(tmp_path):
    """Seven corners and a class make fifteen numbers, as a row of KITTI of a class that is called by a number."""
    polygon = "3 0.1 0.25 0.2 0.2 0.3 0.25 0.4 0.5 0.3 0.75 0.2 0.7 0.15 0.5\n"
    kitti = "3 0.00 0 -1.57 10.00 20.00 40.00 60.00 1.65 1.67 3.64 -0.65 1.71 46.70 -1.59\n"
    for name, text, box in (("yolo", polygon, (10, 16, 40, 60)), ("kitti", kitti, (10, 20, 40, 60))):
        put(tmp_path / name, {"labels/a.txt": text}, ["images/a.png"])
        dataset = open_dataset(tmp_path / name, strict=True)
        assert dataset.format == name
        assert [row[1:5] for row in rows(dataset)["a.png"]] == [box]


def test_mot(tmp_path):
    text = "1,1,11,21,30,40,1,1,0.9\n1,2,1,1,5,5,0,8,1\n2,1,12,21,30,40,1,3,1\n"
    info = "[Sequence]\nname=MOT16-02\nimDir=img1\nseqLength=3\nimWidth=100\nimHeight=80\nimExt=.jpg\n"
    files = {"train/MOT16-02/gt/gt.txt": text, "train/MOT16-02/seqinfo.ini": info}
    put(tmp_path, files, [f"train/MOT16-02/img1/{k:06d}.jpg" for k in (1, 2, 3)])
    assert rows(open_dataset(tmp_path, "train", strict=True)) == {
        "000001.jpg": [("pedestrian", 10, 20, 40, 60, False), ("distractor", 0, 0, 5, 5, True)],
        "000002.jpg": [("car", 11, 20, 41, 60, False)],
        "000003.jpg": [],
    }


def test_mot_rows_that_are_none_and_sequences_without_images(tmp_path):
    """Frames count from 1; the size of frames that are not here stands in seqinfo.ini."""
    for line in ("0,1,11,21,30,40,1,1,1", "-3,1,11,21,30,40,1,1,1", "x,1,11,21,30,40,1,1,1", "1,1,11,21,30"):
        home = tmp_path / line
        info = "[Sequence]\nimWidth=100\nimHeight=80\n"
        good = "".join(f"2,{k},11,21,30,40,1,1,1\n" for k in range(1, 12))
        put(home, {"a/gt/gt.txt": f"{good}\n{line}\n", "a/seqinfo.ini": info}, [])
        dataset = open_dataset(home)
        assert [(r.file_name, r.size, r.boxes.tolist()) for r in dataset.records] == [
            ("a/img1/000002.jpg", (80, 100), [[10, 20, 40, 60]] * 11)
        ]
        assert any("line 13 is no frame with a box" in str(note) for note in dataset.notes)


@pytest.mark.parametrize("images", ["{}/cam1/img1/{}", "frames/{}/cam1/img1/{}"])
def test_mot_sequences_of_one_name_have_their_own_frames(tmp_path, images):
    boxes = {"train": "1,1,11,21,30,40,1,1,1\n", "test": "2,1,1,1,5,5,1,1,1\n"}
    home = "{}/cam1" if images.startswith("{") else "labels/{}/cam1"
    names = [images.format(split, f"{k:06d}.jpg") for split, n in (("train", 5), ("test", 3)) for k in range(1, n + 1)]
    put(tmp_path, {f"{home.format(split)}/gt/gt.txt": text for split, text in boxes.items()}, names)
    for split, part in open_splits(tmp_path, strict=True).items():
        assert sorted(r.path.relative_to(tmp_path).as_posix() for r in part) == sorted(n for n in names if split in n)
        assert [len(r.boxes) for r in part] == {"train": [1, 0, 0, 0, 0], "test": [0, 1, 0]}[split]


def test_mot_frames_elsewhere_are_taken_where_one_sequence_may_mean_them(tmp_path):
    put(
        tmp_path,
        {"truth/cam1/gt/gt.txt": "1,1,11,21,30,40,1,1,1\n"},
        [f"video/x/cam1/img1/{k:06d}.jpg" for k in (1, 2)],
    )
    assert len(open_dataset(tmp_path, strict=True)) == 2


def test_supervisely(tmp_path):
    objects = [
        {"classTitle": "dog", "geometryType": "rectangle", "tags": [],
         "points": {"exterior": [[10, 20], [40, 60]], "interior": []}},
        {"classTitle": "cat", "geometryType": "polygon", "tags": [{"name": "ignore"}],
         "points": {"exterior": [[1, 2], [11, 2], [6, 22]], "interior": []}},
    ]  # fmt: skip
    page = {"description": "", "tags": [], "size": {"height": 80, "width": 100}, "objects": objects}
    meta = {"classes": [{"title": "dog", "shape": "rectangle"}, {"title": "cat", "shape": "polygon"}], "tags": []}
    put(tmp_path, {"project/meta.json": meta, "project/ds0/ann/a.jpg.json": page}, ["project/ds0/img/a.jpg"])
    dataset = open_dataset(tmp_path, strict=True)
    assert rows(dataset) == {"a.jpg": [("dog", 10, 20, 40, 60, False), ("cat", 1, 2, 11, 22, True)]}
    assert dataset.classes.names == ("dog", "cat")


# --------------------------------------------------------------------------- COCO without boxes


def test_coco_with_polygons_or_run_lengths_only(tmp_path):
    runs = {
        "size": [80, 100],
        "counts": [10 * 80 + 20, 40, 40, 40, 80 * 100 - 10 * 80 - 140],
    }  # columns 10, 11; y 20..60
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[10, 20, 40, 20, 25, 60], [50, 5, 60, 5, 55, 9]]},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": runs, "iscrowd": 1},
        {"id": 3, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]},
    ]
    content = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": annotations,
               "categories": [{"id": 1, "name": "dog"}]}  # fmt: skip
    put(tmp_path, {"x.json": content}, ["a.jpg"])
    assert rows(open_dataset(tmp_path, strict=True)) == {
        "a.jpg": [("dog", 10, 5, 60, 60, False), ("dog", 10, 20, 12, 60, True), ("dog", 1, 2, 4, 6, False)]
    }


@pytest.mark.parametrize("seed", range(30))
def test_boxes_of_run_lengths_are_those_of_pycocotools(seed):
    mask_api = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(seed)
    mask = np.zeros((17, 23), np.uint8, order="F")
    for _ in range(int(rng.integers(1, 4))):
        y, x = rng.integers(0, 15), rng.integers(0, 21)
        mask[y : y + rng.integers(1, 18), x : x + rng.integers(1, 6)] = 1
    packed = mask_api.encode(mask)
    expected = mask_api.toBbox(packed).tolist()
    assert list(box_of_runs({"size": [17, 23], "counts": packed["counts"].decode()})) == expected
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate(([0], flat, [2]))))
    counts = np.diff(np.concatenate(([0], edges))).tolist()
    assert list(box_of_runs({"size": [17, 23], "counts": counts})) == expected


def test_supervisely_bitmaps_are_named(tmp_path):
    item = {
        "classTitle": "dog",
        "geometryType": "bitmap",
        "bitmap": {"data": zlib.compress(b"x").hex(), "origin": [1, 2]},
    }
    box = {"classTitle": "dog", "geometryType": "rectangle", "points": {"exterior": [[1, 1], [9, 9]], "interior": []}}
    page = {"size": {"height": 80, "width": 100}, "objects": [item, box]}
    put(tmp_path, {"ann/a.jpg.json": page}, ["img/a.jpg"])
    assert any("object 1 is a bitmap without corners" in str(n) for n in open_dataset(tmp_path).notes)
