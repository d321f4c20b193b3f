"""The Open Inference Protocol, version 2 (KServe, Triton and others): tensors in, tensors out.

Source: the protocol's REST description with the binary tensor data extension, in which a JSON head of a length that a
header names is followed by the tensors' bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..detections import Detections
from .engine import Pixels
from .options import Limits, Refused
from .request import parse_body

LENGTH = "inference-header-content-length"  # header: bytes of the JSON in front of binary tensors
AS_BYTES = "binary_data_output"  # parameter: whether all outputs follow as bytes
# parameters of the protocol and its clients, which change nothing here
IDLE = frozenset(("timeout", "priority", "sequence_id", "sequence_start", "sequence_end", "content_type", "headers"))
PLATFORM = "fcos"
OUTPUTS = ("boxes", "scores", "labels", "count")
_TYPES = {"boxes": "FP32", "scores": "FP32", "labels": "INT64", "count": "INT64"}


@dataclass(frozen=True)
class InferRequest:
    """Images, as pixels or as bytes of files, the parameters, the outputs wanted and which of them as bytes."""

    id: str | None
    sources: list[bytes | Pixels]
    parameters: dict[str, Any]
    outputs: tuple[str, ...]
    binary: frozenset[str]


def metadata(name: str, classes: Sequence[str]) -> dict[str, Any]:
    """What a model takes and gives. `images` may also come as BYTES [N], each an image's file."""
    return {
        "name": name,
        "versions": ["1"],
        "platform": PLATFORM,
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}],
        "outputs": [
            {"name": "boxes", "datatype": "FP32", "shape": [-1, -1, 4]},
            {"name": "scores", "datatype": "FP32", "shape": [-1, -1]},
            {"name": "labels", "datatype": "INT64", "shape": [-1, -1]},
            {"name": "count", "datatype": "INT64", "shape": [-1]},
        ],
        "classes": list(classes),
    }


def read(body: bytes, head_length: str | None, limits: Limits) -> InferRequest:
    """The request; Refused (400, 413) for one that is not well formed or asks for too much."""
    try:
        head, rest = _split(body, head_length)
        message = parse_body(head)
        (given,) = message["inputs"]
        if given["name"] != "images":
            raise Refused(400, f"the input is called images, not {str(given['name'])[:80]!r}")
        sources = _sources(given, rest, limits)
        outputs, binary = _outputs(message)
        parameters = message.get("parameters") or {}
        if not isinstance(parameters, dict):
            raise Refused(400, "parameters must be an object")
        identity = message.get("id")
        return InferRequest(None if identity is None else str(identity), sources, parameters, outputs, binary)
    except Refused:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, struct.error, RecursionError, OverflowError):
        raise Refused(400, "this is no request of the Open Inference Protocol with one input, images") from None


def _split(body: bytes, head_length: str | None) -> tuple[bytes, bytes]:
    if head_length is None:
        return body, b""
    length = int(head_length)
    if not 0 < length <= len(body):
        raise Refused(400, f"{LENGTH} says {length} bytes, the body has {len(body)}")
    return body[:length], body[length:]


def _sources(given: dict[str, Any], rest: bytes, limits: Limits) -> list[bytes | Pixels]:
    if len(given["shape"]) > 4:
        raise Refused(400, f"images have a shape of one or four sides, not {len(given['shape'])}")
    shape = [int(side) for side in given["shape"]]
    size = (given.get("parameters") or {}).get("binary_data_size")
    raw = None if size is None else rest[: int(size)]
    if raw is not None and len(raw) != int(size or 0):
        raise Refused(400, f"binary_data_size says {size} bytes, {len(rest)} follow")
    if any(side < 1 for side in shape):
        raise Refused(400, f"the shape {shape} holds no image")
    if shape and shape[0] > limits.together:
        raise Refused(413, f"the request holds {shape[0]} images; at most {limits.together} are taken")
    if given["datatype"] == "BYTES":
        if len(shape) != 1:
            raise Refused(400, f"BYTES must have the shape [N], not {shape}")
        values: list[Any] = _flat(given["data"]) if raw is None else [*_files(raw, shape[0])]
        _check_count(len(values), shape)
        return [value if isinstance(value, bytes) else _from_text(value) for value in values]
    if given["datatype"] != "UINT8" or len(shape) != 4 or shape[3] != 3:
        raise Refused(400, f"images must be UINT8 [N,H,W,3], or BYTES [N]; not {given['datatype']} {shape}")
    if shape[1] * shape[2] > limits.pixels:
        raise Refused(413, f"an image of {shape[2]}x{shape[1]} pixels; at most {limits.pixels} in all are taken")
    if raw is None:
        numbers = _flat(given["data"])
        _check_count(len(numbers), shape)
        if set(map(type, numbers)) != {int} or min(numbers) < 0 or max(numbers) > 255:
            raise Refused(400, "UINT8 values are whole numbers in 0..255")
        raw = bytes(numbers)
    _check_count(len(raw), shape)
    return list(np.frombuffer(raw, np.uint8).reshape(shape).copy())


def _check_count(count: int, shape: Sequence[int]) -> None:
    if count != math.prod(shape):
        raise Refused(400, f"{list(shape)} needs {math.prod(shape)} values, not {count}")


def _flat(data: Any) -> list[Any]:
    """The values of lists in lists, all of one depth and length, in order. numpy is not asked for this: of texts it
    makes an array in which each has the room of the longest."""
    values: list[Any] = data if isinstance(data, list) else [data]
    while values and set(map(type, values)) == {list}:
        if len(set(map(len, values))) > 1:
            raise Refused(400, "the lists of the data differ in length")
        values = list(chain.from_iterable(values))
    return values


def _files(raw: bytes, most: int) -> list[bytes]:
    """BYTES in binary: each a length in four bytes, little end first, then the bytes. Read until one is too many."""
    parts: list[bytes] = []
    at = 0
    while at < len(raw) and len(parts) <= most:
        (length,) = struct.unpack_from("<I", raw, at)
        at += 4
        if at + length > len(raw):
            raise Refused(400, "a BYTES value is longer than what follows")
        parts.append(raw[at : at + length])
        at += length
    return parts


def _from_text(text: Any) -> bytes:
    try:
        if not isinstance(text, str):
            raise TypeError
        return base64.b64decode(text, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Refused(400, "BYTES in JSON must be base64") from None


def _outputs(message: dict[str, Any]) -> tuple[tuple[str, ...], frozenset[str]]:
    every = bool((message.get("parameters") or {}).get(AS_BYTES))
    rows = message.get("outputs")
    if not rows:
        return OUTPUTS, frozenset(OUTPUTS if every else ())
    names = tuple(row["name"] for row in rows)
    unknown = [name for name in names if name not in OUTPUTS]
    if unknown:
        raise Refused(400, f"there is no output {str(unknown[0])[:80]!r}; outputs: {', '.join(OUTPUTS)}")
    binary = frozenset(row["name"] for row in rows if (row.get("parameters") or {}).get("binary_data", every))
    return names, binary


def write(model: str, request: InferRequest, detections: Sequence[Detections]) -> tuple[bytes, int | None]:
    """(body, length of its JSON head where tensors follow as bytes). Rows behind an image's `count` are zeros."""
    most = max((len(one) for one in detections), default=0)
    values: dict[str, NDArray[Any]] = {
        "boxes": np.zeros((len(detections), most, 4), np.float32),
        "scores": np.zeros((len(detections), most), np.float32),
        "labels": np.zeros((len(detections), most), np.int64),
        "count": np.array([len(one) for one in detections], np.int64),
    }
    for row, one in enumerate(detections):
        for name in ("boxes", "scores", "labels"):
            values[name][row, : len(one)] = getattr(one, name).numpy()
    outputs, tail = [], b""
    for name in request.outputs:
        told: dict[str, Any] = {"name": name, "datatype": _TYPES[name], "shape": list(values[name].shape)}
        if name in request.binary:
            raw = values[name].astype(values[name].dtype.newbyteorder("<")).tobytes()
            told["parameters"] = {"binary_data_size": len(raw)}
            tail += raw
        else:
            told["data"] = values[name].ravel().tolist()
        outputs.append(told)
    head = {"model_name": model, "model_version": "1", "outputs": outputs}
    if request.id is not None:
        head["id"] = request.id
    text = json.dumps(head, allow_nan=False).encode()
    return text + tail, len(text) if request.binary else None
