"""The attack stays: random files of every kind through every gate give a value or one line, never anything else.

200 cases each here, 5,000 with `-m slow`, each within 20 seconds of computing and 3 GB. Tracebacks, hangs, memory,
messages of several lines and silent changes are counted.
"""

import io
import json
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from limits import Silent, Tally, damaged
from PIL import Image

from fcos.config import Config
from fcos.data.dataset import Dataset
from fcos.data.images.reading import image_header, load_image
from fcos.data.records import Record
from fcos.evaluation.results import read_results
from fcos.export.about import About, from_text
from fcos.inference.scores import parse_scores
from fcos.network import weights
from fcos.system.core_yaml import dump_yaml, parse_yaml, read_yaml
from fcos.system.readers import parse_json, read_json, read_lines, read_text, read_xml
from fcos.types import Classes

CASES = [200, pytest.param(5000, marks=pytest.mark.slow)]


def attack(count: int, strategy: Any, gate: Callable[[Any], object]) -> None:
    """`gate` takes every value of `strategy`, or refuses it in one line, within the limits of time and memory."""
    tally = Tally()

    @settings(max_examples=count, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(strategy)
    def each(value: Any) -> None:
        tally.try_one(gate, value)

    each()
    tally.check()


def alike(read: object, written: object) -> None:
    if read != written:
        raise Silent(f"{written!r} came back as {read!r}")


words = st.text(max_size=12) | st.sampled_from(
    ["a\nb", "\x00", "\u2028", "é", "²", "1e999", "NaN", "null", "../x", " "]
)
numbers = st.integers() | st.floats() | st.sampled_from([10**400, -1, 0, 2**63, 1e308, float("nan"), float("inf")])
values = st.recursive(
    st.none() | st.booleans() | numbers | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)
pieces = st.lists(
    st.sampled_from(["a", ": ", "- ", "[", "]", "{", "}", "&x ", "*x", "!!set ", "!!int ", "\n", "  ", "'", '"', "#"])
    | words,
    max_size=40,
).map("".join)


def damages(whole: bytes) -> Any:
    """`whole` with some bytes changed, cut out, doubled or put in."""
    return st.integers(0, 2**32).map(lambda seed: damaged(whole, random.Random(seed)))


@pytest.mark.parametrize("count", CASES)
@pytest.mark.parametrize("read", [read_text, read_lines, read_json, read_yaml, read_xml])
def test_any_bytes_in_a_file(tmp_path, count, read):
    path = tmp_path / "a"
    whole = '<?xml version="1.0" encoding="utf-16"?><a b="ü">{"x": [1, 2.5]}</a>'
    texts = [whole.encode("utf-16"), b'<a><b x="1">t</b></a>', b'{"a": [1, {"b": null}]}', b"a: [1, {b: &x 2}, *x]\n"]

    def gate(data: bytes) -> None:
        path.write_bytes(data)
        read(path)

    attack(count, st.one_of(st.binary(max_size=60), *map(damages, texts)), gate)


@pytest.mark.parametrize("count", CASES)
def test_any_yaml(count):
    def gate(text: str) -> None:
        value = parse_yaml(text, "a.yaml")
        alike(parse_yaml(dump_yaml(value), "a.yaml"), value)

    attack(count, pieces, gate)


@pytest.mark.parametrize("count", CASES)
def test_any_json(count):
    def gate(value: Any) -> None:
        text = json.dumps(value)
        alike(parse_json(text, "a", nan=False), json.loads(text))

    attack(count, values, gate)


@pytest.mark.parametrize("count", CASES)
def test_any_settings(count):
    keys = [f"{s}.{name}" for s, part in Config() if hasattr(part, "model_dump") for name, _ in part]
    assignment = st.tuples(st.sampled_from(keys) | words, values | words).map(
        lambda pair: f"{pair[0]}={pair[1] if isinstance(pair[1], str) else json.dumps(pair[1])}"
    )
    attack(count, assignment, lambda text: Config().override(text).dump())
    attack(count, st.dictionaries(st.sampled_from(keys), values), lambda tree: Config().override(_nested(tree)))


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for key, value in flat.items():
        section, _, name = key.partition(".")
        tree.setdefault(section, {})[name] = value
    return tree


@pytest.mark.parametrize("count", CASES)
def test_any_metadata(tmp_path, count):
    whole = json.loads(About(Config(), Classes(("a", "b"))).to_text())

    def gate(change: tuple[list[str], Any]) -> None:
        stored = json.loads(json.dumps(whole))
        place = stored
        for key in change[0][:-1]:
            place = place[key]
        place[change[0][-1]] = change[1]
        from_text(json.dumps(stored), "a.onnx")

    places = [["config"], ["classes"], ["graph"], ["version"], ["classes", "names"], ["classes", "ids"],
              ["graph", "batch"], ["graph", "size"], ["graph", "nms"], ["graph", "dtype"], ["config", "model"],
              ["config", "model", "strides"], ["config", "data", "size"]]  # fmt: skip
    attack(count, st.tuples(st.sampled_from(places), values), gate)
    file = weights.save(tmp_path / "whole.safetensors", {"fpn.a": torch.zeros(3)}, Config(), Classes(("a",)))

    def header(data: bytes) -> None:
        (tmp_path / "a.safetensors").write_bytes(data)
        weights.header(tmp_path / "a.safetensors")

    attack(count, damages(file.read_bytes()), header)


@pytest.mark.parametrize("count", CASES)
def test_any_results(tmp_path, count):
    none = np.zeros(0)
    records = tuple(Record(k, None, (10, 10), none.reshape(0, 4), none, none, none, f"{k}.jpg") for k in range(1, 4))
    dataset = Dataset(records, Classes(("a", "b"), (1, 2)), "coco", "val", tmp_path)
    row = st.fixed_dictionaries(
        {"image_id": values, "category_id": values, "bbox": st.lists(numbers, max_size=5) | values, "score": values}
    )
    good = st.just({"image_id": 1, "category_id": 2, "bbox": [1, 2, 3, 4], "score": 0.5})

    def gate(rows: Any) -> None:
        (tmp_path / "a.json").write_text(json.dumps(rows))
        read_results(tmp_path / "a.json", dataset)

    attack(count, st.lists(row | good, max_size=3) | values, gate)
    attack(count, pieces | words, lambda text: parse_scores(text.replace(".json", ""), dataset.classes))


def _encoded(form: str, mode: str, **options: Any) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (20, 24, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, form, **options)
    return stream.getvalue()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("count", CASES)
@pytest.mark.parametrize(
    "whole",
    [_encoded("JPEG", "RGB"), _encoded("JPEG", "L", progressive=True), _encoded("PNG", "RGBA"), _encoded("GIF", "P"),
     _encoded("TIFF", "F"), _encoded("BMP", "RGB"), _encoded("WEBP", "RGB"), _encoded("PPM", "RGB")],
    ids=["jpeg", "progressive", "png", "gif", "tiff", "bmp", "webp", "ppm"],
)  # fmt: skip
def test_any_image(tmp_path, count, whole):
    def gate(data: bytes) -> None:
        height, width = image_header(data).displayed
        pixels = load_image(data)
        alike(pixels.shape, (height, width, 3))

    attack(count // 4, damages(whole), gate)


@pytest.mark.parametrize("count", CASES)
def test_yaml_of_others_is_read_alike_or_refused(count):
    """What PyYAML writes of plain values comes back as it was."""
    plain = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "Z")), max_size=8),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc", min_size=1), inner, max_size=3),
        max_leaves=8,
    )  # fmt: skip
    attack(count, plain, lambda v: alike(parse_yaml(dump_yaml(v), "a"), v))
    assert yaml.safe_load(dump_yaml({"a": 1})) == {"a": 1}
