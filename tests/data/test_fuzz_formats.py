"""Files of every format, damaged: a data set or one line, never a traceback."""

import json
import re
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from limits import limits
from PIL import Image

from fcos.data.dataset import Dataset
from fcos.data.open import open_dataset, open_splits
from fcos.data.probe import Probe, peek_json
from fcos.data.records import Record
from fcos.data.registry import formats
from fcos.data.tree import DataSource
from fcos.data.write import convert
from fcos.errors import FcosError
from fcos.types import Classes

NAMES = list(formats())
VALUES = [
    None,
    True,
    -1,
    0,
    2.5,
    1e308,
    10**400,
    "",
    "x",
    "²",
    "\0",
    "../../x",
    [],
    [[]],
    {},
    {"a": {}},
    [None],
    [1, "b"],
]


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """A small set in every format: {format: (folder, its annotation files)}"""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "src").mkdir()
    records = []
    for k in range(2):
        path = folder / "src" / f"im{k}.png"
        Image.new("RGB", (60, 40)).save(path)
        boxes = np.array([[1.0, 2, 30, 20], [5.5, 5, 20, 39]])
        labels, ignore = np.array([0, 1]), np.array([False, k == 1])
        records.append(Record(k + 1, path, (40, 60), boxes, labels, ignore, np.ones(2), path.name))
    splits = {"train": Dataset(tuple(records), Classes(("cat", "dog")), "coco", "train", folder)}
    made = {}
    for name in NAMES:
        if formats()[name].write is not None:
            convert(splits, folder / name, name)
        else:
            _labelme_xml(splits["train"], folder / name)
        files = [p for p in sorted((folder / name).rglob("*")) if p.is_file() and p.suffix not in (".png", ".md")]
        made[name] = (folder / name, [p.relative_to(folder / name) for p in files])
    return made


def _labelme_xml(dataset, folder):
    """The one format that is only read."""
    for record in dataset.records:
        corners = ((x1, y1, x2, y2) for x1, y1, x2, y2 in record.boxes.tolist())
        points = (
            "".join(f"<pt><x>{x}</x><y>{y}</y></pt>" for x, y in ((a, b), (c, b), (c, d))) for a, b, c, d in corners
        )
        objects = "".join(f"<object><name>cat</name><polygon>{p}</polygon></object>" for p in points)
        (folder / "Annotations").mkdir(parents=True, exist_ok=True)
        (folder / "Images").mkdir(exist_ok=True)
        shutil.copy(record.path, folder / "Images")
        size = "<imagesize><nrows>40</nrows><ncols>60</ncols></imagesize>"
        text = f"<annotation><filename>{record.path.name}</filename>{objects}{size}</annotation>"
        (folder / "Annotations" / f"{record.path.stem}.xml").write_text(text)


def opened(folder, name):
    """Opens the damaged set in its format and by content, strictly and not, within limits of time and memory; whatever
    is said is one line."""
    with limits():
        _opened(folder, name)


def _opened(folder, name):
    for source in (DataSource(folder, format=name), DataSource(folder)):
        for strict in (False, True):
            try:
                for dataset in open_splits(source, strict=strict).values():
                    assert all(np.isfinite(r.boxes).all() for r in dataset.records)
                    assert all(
                        (r.labels >= 0).all() and (r.labels < len(dataset.classes)).all() for r in dataset.records
                    )
                    dataset.summary()
            except FcosError as error:
                line = str(error)
            else:
                line = ""
            assert "\n" not in line


def damaged(sets, tmp_path_factory, name, number, change):
    folder, files = sets[name]
    copy = tmp_path_factory.mktemp("copy")
    shutil.copytree(folder, copy, dirs_exist_ok=True)
    path = copy / files[number % len(files)]
    path.write_bytes(change(path.read_bytes()))
    opened(copy, name)
    shutil.rmtree(copy)


def set_value(content, where, value):
    """The content with the value at one of its places, chosen by a number, replaced."""
    places = []

    def visit(item):
        for key in list(item) if isinstance(item, dict) else range(len(item)) if isinstance(item, list) else ():
            places.append((item, key))
            visit(item[key])

    visit(content)
    if places:
        item, key = places[where % len(places)]
        item[key] = value
    return content


# for each format: some here, thousands of all formats together with `-m slow`
CASES = [14, pytest.param(200, marks=pytest.mark.slow)]


def many(count):
    return settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("count", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_any_value_in_any_place(sets, tmp_path_factory, name, count):
    """In JSON and JSON lines; in other files, those of bytes too, a word is replaced."""

    def changed(data, where, value):
        try:
            text, codec = data.decode(), "utf-8"
        except UnicodeDecodeError:
            text, codec = data.decode("latin-1"), "latin-1"
        try:
            return json.dumps(set_value(json.loads(text), where, value)).encode()
        except ValueError:
            pass
        lines = text.splitlines()
        if lines and lines[0].startswith("{"):
            at = where % len(lines)
            lines[at] = json.dumps(set_value(json.loads(lines[at]), where // 7, value))
            return "\n".join(lines).encode()
        words = list(re.finditer(r"[\w.+-]+", text))
        if not words:
            return data
        word = words[where % len(words)]
        new = value if isinstance(value, str) else json.dumps(value)
        return f"{text[: word.start()]}{new}{text[word.end() :]}".encode(codec)

    @many(count)
    @given(number=st.integers(0, 9), where=st.integers(0, 10**6), value=st.sampled_from(VALUES))
    def each(number, where, value):
        damaged(sets, tmp_path_factory, name, number, lambda data: changed(data, where, value))

    each()


@pytest.mark.parametrize("count", CASES)
@pytest.mark.parametrize("name", NAMES)
def test_bytes_changed_or_cut(sets, tmp_path_factory, name, count):
    @many(count)
    @given(number=st.integers(0, 9), at=st.integers(0, 10**6), junk=st.binary(max_size=8), cut=st.integers(0, 40))
    @example(number=0, at=0, junk=b"\xff\xfe", cut=0)
    @example(number=0, at=0, junk=b"", cut=10**6)
    @example(number=0, at=0, junk=b"\x1f\x8b", cut=2)
    @example(number=0, at=10, junk=b"\0", cut=0)
    def each(number, at, junk, cut):
        def change(data):
            place = at % (len(data) + 1)
            return data[:place] + junk + data[place + cut :]

        damaged(sets, tmp_path_factory, name, number, change)

    each()


BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x "xxxxxxxxxx"><!ENTITY y "&x;&x;&x;&x;&x;&x;&x;&x;">'
    '<!ENTITY z "&y;&y;&y;&y;&y;&y;&y;&y;">]>'
)
OUTSIDE = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY z SYSTEM "file:///etc/passwd">]>'


@pytest.mark.parametrize("head", [BOMB, OUTSIDE], ids=["bomb", "external"])
@pytest.mark.parametrize("name", ["voc", "cvat"])
def test_entities_are_refused(head, name, sets, tmp_path):
    folder, _ = sets[name]
    shutil.copytree(folder, tmp_path / "copy")
    for path in (tmp_path / "copy").rglob("*.xml"):
        text = re.sub(r"<\?xml.*?\?>", "", path.read_text())
        path.write_text(head + text.replace("cat", "&z;"))
    # In VOC each file is its own; without classes there is no set, so one of them stays whole.
    if name == "voc":
        shutil.copy(folder / "Annotations" / "im0.xml", tmp_path / "copy" / "Annotations" / "im0.xml")
        dataset = open_splits(DataSource(tmp_path / "copy", format=name))["train"]
        assert [len(r.boxes) for r in dataset.records] == [2]
        said = " ".join(str(n) for n in dataset.notes)
    else:
        with pytest.raises(FcosError) as caught:
            open_splits(DataSource(tmp_path / "copy", format=name))
        said = str(caught.value)
    assert "document type" in said
    assert "root:" not in said


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ('<?xml version="1.0"?>\n<!-- a --> <!-- b -->\n<annotation x="1">', "annotation"),
        ('<!DOCTYPE a [<!ENTITY z "y">]><annotations>', "annotations"),
        ("<!DOCTYPE html><html>", "html"),
        ("<!-- never ends", ""),
        ("<!--a-->" * 5000, ""),
        ("<?a?>" * 5000 + "<b/>", "b"),
        ("plain", ""),
        ("", ""),
    ],
)
def test_the_root_of_an_xml_file(text, root, tmp_path):
    (tmp_path / "x.xml").write_text(text)
    assert Probe(tmp_path / "x.xml").root == root


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, {"b": "c"}], "d": tr', {"a": [1, {"b": "c"}], "d": "tr"}),
        ('{"a": {"b": [1, 2', {"a": {"b": [1, 2]}}),
        ('[{"x": "unfini', [{}]),
        ('{"a": "' + '\\"' * 30000, {}),
        ("[" * 60000, None),
        ("", None),
    ],
)
def test_the_beginning_of_a_json_file(text, value):
    got = peek_json(text)
    assert got == value or value is None


def test_a_row_of_parquet_without_its_image_leaves_the_others(tmp_path, monkeypatch):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    pixels = {}
    for name, grey in (("a.png", 10), ("b.png", 20), ("c.png", 30)):
        Image.new("L", (20, 20), grey).save(tmp_path / name)
        pixels[name] = (tmp_path / name).read_bytes()
    (folder / "b.png").write_bytes(pixels["b.png"])  # one lies beside the file
    objects = {"bbox": [[1.0, 2.0, 3.0, 4.0]], "category": [0]}
    rows = [
        {"image": {"bytes": pixels["a.png"], "path": "a.png"}, "objects": objects},
        {"image": {"bytes": None, "path": "b.png"}, "objects": objects},
        {"image": {"bytes": None, "path": "gone.png"}, "objects": objects},
        {"image": {"bytes": pixels["c.png"], "path": "c.png"}, "objects": objects},
    ]
    parquet.write_table(arrow.Table.from_pylist(rows), folder / "train.parquet")
    dataset = open_dataset(folder)
    assert [r.path.read_bytes() for r in dataset.records] == [pixels[n] for n in ("a.png", "b.png", "c.png")]
    assert [str(n) for n in dataset.notes] == ["skipped: images that are missing (1; first: gone.png)"]


def test_damaged_parquet(tmp_path, monkeypatch):
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    rows = [{"image": {"bytes": b"no image", "path": "a.jpg"}, "objects": {"bbox": [[1.0, 2, 3]], "category": [0]}}] * 3
    file = tmp_path / "set" / "train.parquet"
    file.parent.mkdir()
    parquet.write_table(arrow.Table.from_pylist(rows), file)
    whole = file.read_bytes()
    opened(file.parent, "huggingface")
    for _ in range(30):
        data = bytearray(whole)
        for place in rng.integers(4, len(data), 4):
            data[place] = rng.integers(0, 256)
        file.write_bytes(bytes(data[: rng.integers(8, len(data) + 1)]))
        opened(file.parent, "huggingface")
    parquet.write_table(arrow.Table.from_pylist([{"text": "x"}]), file)
    opened(file.parent, "huggingface")
