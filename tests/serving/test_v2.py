"""Requests of the Open Inference Protocol: the values in them, and what a small one may cost."""

import base64
import json
import struct
import tracemalloc

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="pip install 'fcos-detector[serve]'")

from fcos.serving import v2
from fcos.serving.options import Limits, Refused


def infer(datatype, shape, data):
    given = {"name": "images", "datatype": datatype, "shape": shape, "data": data}
    return json.dumps({"inputs": [given]}).encode()


@pytest.mark.parametrize("datatype", ["BYTES", "UINT8"])
def test_one_long_text_among_many_short_ones_takes_little_memory(datatype):
    """As an array of texts each of them would have the room of the longest: 320 MB."""
    body = infer(datatype, [1] if datatype == "BYTES" else [1, 20, 100, 3], ["x" * 40_000, *[""] * 2000])
    tracemalloc.start()
    try:
        with pytest.raises(Refused) as refused:
            v2.read(body, None, Limits())
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()
    assert refused.value.status == 400


def test_many_empty_files_are_not_all_read():
    body = infer("BYTES", [1], None).replace(b'"data": null', b'"parameters": {"binary_data_size": 8000000}')
    tracemalloc.start()
    try:
        with pytest.raises(Refused, match=r"\[1\] needs 1 values"):
            v2.read(body + bytes(8_000_000), str(len(body)), Limits())
        assert tracemalloc.get_traced_memory()[1] < 20_000_000  # the body and what follows its head
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("form", ["flat", "nested"])
def test_values_in_json_arrive_in_order(form):
    pixels = np.random.default_rng(0).integers(0, 256, (2, 3, 5, 3), np.uint8)
    data = (pixels if form == "nested" else pixels.ravel()).tolist()
    read = v2.read(infer("UINT8", list(pixels.shape), data), None, Limits()).sources
    np.testing.assert_array_equal(np.stack(read), pixels)
    files = [b"one", b"", b"three"]
    texts = [base64.b64encode(file).decode() for file in files]
    assert v2.read(infer("BYTES", [3], texts), None, Limits()).sources == files
    head = infer("BYTES", [3], None).replace(b'"data": null', b'"parameters": {"binary_data_size": 20}')
    raw = b"".join(struct.pack("<I", len(file)) + file for file in files)
    assert v2.read(head + raw, str(len(head)), Limits()).sources == files


@pytest.mark.parametrize(
    ("datatype", "shape", "data"),
    [
        ("UINT8", [1, 1, 1, 3], [1, 2, 256]),
        ("UINT8", [1, 1, 1, 3], [1, 2, -1]),
        ("UINT8", [1, 1, 1, 3], [1, 2, 3.0]),
        ("UINT8", [1, 1, 1, 3], [1, 2, True]),
        ("UINT8", [1, 1, 1, 3], [1, 2, "3"]),
        ("UINT8", [1, 1, 1, 3], [1, 2, [3]]),
        ("UINT8", [1, 1, 1, 3], [[1, 2], [3]]),
        ("UINT8", [1, 1, 1, 3], [1, 2]),
        ("UINT8", [1, 1, 1, 3], []),
        ("UINT8", [1, 1, 1, 3], {"a": 1}),
        ("BYTES", [1], [3]),
        ("BYTES", [1], [None]),
        ("BYTES", [1], ["ä"]),
        ("BYTES", [1], []),
        ("BYTES", [1, 1], ["AAAA"]),
        ("BYTES", [1] * 100_000, ["AAAA"]),
    ],
)
def test_other_values_are_one_short_line(datatype, shape, data):
    with pytest.raises(Refused) as refused:
        v2.read(infer(datatype, shape, data), None, Limits())
    assert refused.value.status == 400
    assert len(str(refused.value)) < 200
