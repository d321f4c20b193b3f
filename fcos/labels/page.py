"""The page for the review: each suspect large, the reason in words, keys for the decisions; one file, offline."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ..data.images.reading import read_image
from ..system.files import ASSETS, write_whole
from ..system.remote import is_remote
from ..system.terminal import data_name, json_ready
from .inject import CLASS, DUPLICATE, SPURIOUS
from .report import Check, Finding

_SIDE = 1000  # longer side in pixels of an image on the page
_BESIDE = 60  # other annotations drawn


def write_page(path: str | Path, check: Check, limit: int = 200) -> Path:
    """Write the page with the first `limit` findings, and the images they are in."""
    shown = check.findings[:limit]
    images = {str(f.image): _image(check, f.image) for f in shown}
    rows = [_row(check, f, number) for number, f in enumerate(shown)]
    name = data_name(str(check.source))
    digest = hashlib.sha256(json.dumps([r["decision"] for r in rows], sort_keys=True).encode()).hexdigest()[:12]
    told: dict[str, Any] = {
        "title": f"{name}: labels to look at",
        "id": digest,
        "source": source_of(check),
        "promise": check.sentence(min(50, len(shown)) or 50),
        "assumes": check.assumes(),
        "images": images,
        "suspects": rows,
        "left_out": len(check.findings) - len(shown),
    }
    text = json.dumps(told, ensure_ascii=False).replace("<", "\\u003c")  # no name may end the script
    template = (ASSETS / "labels" / "review.html").read_text(encoding="utf-8")
    before, after = template.split("/*DATA*/")
    return write_whole(path, before + text + after)


def source_of(check: Check) -> dict[str, str | None]:
    """What the decisions say of the data set: where it is, and how it was said to be read."""
    s = check.source
    given = {"data": s.path, "images": s.images, "labels": s.labels}
    return {
        key: None if value is None else str(value) if is_remote(value) else str(Path(value).absolute())
        for key, value in given.items()
    } | {"format": s.format}


def _image(check: Check, index: int) -> str:
    """A data URL."""
    pixels = read_image(str(check.data.records[index].path))
    shrink = min(1.0, _SIDE / max(pixels.shape[:2]))
    if shrink < 1:
        size = (max(1, round(pixels.shape[1] * shrink)), max(1, round(pixels.shape[0] * shrink)))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 82])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode()


def _row(check: Check, finding: Finding, number: int) -> dict[str, Any]:
    s = finding.suspect
    record, names = check.data.records[finding.image], check.data.classes.names
    own = [r for r in (s.row, s.other) if r >= 0]
    beside = [b for k, b in enumerate(record.boxes) if k not in own][:_BESIDE]
    predicted = None if s.kind in (SPURIOUS, DUPLICATE) else s.box
    result: dict[str, Any] = json_ready(
        {
            "id": number,
            "kind": s.kind,
            "chance": round(finding.chance, 4),
            "measured": check.curves[s.kind].measured,
            "image": str(finding.image),
            "size": [record.size[1], record.size[0]],
            "file": finding.file,
            "split": finding.split,
            "words": finding.words,
            "fix": finding.fix,
            "given": _short(record.boxes[s.row]) if s.row >= 0 else None,
            "given_text": names[record.labels[s.row]] if s.row >= 0 else "",
            "other": _short(record.boxes[s.other]) if s.other >= 0 else None,
            "other_text": names[record.labels[s.other]] if s.other >= 0 else "",
            "seen": _short(predicted) if predicted is not None else None,
            "seen_text": f"{names[s.label]} {s.seen:.2f}",
            "beside": [_short(b) for b in beside],
            "decision": decision_of(check, finding),
        }
    )
    return result


def decision_of(check: Check, finding: Finding) -> dict[str, Any]:
    """What a decision has to say to be applied to the data set: where, what is annotated, and what is proposed."""
    s = finding.suspect
    record, names = check.data.records[finding.image], check.data.classes.names
    annotated = proposed = None
    if s.row >= 0:
        annotated = {"label": names[record.labels[s.row]], "box": _short(record.boxes[s.row])}
    if s.kind not in (SPURIOUS, DUPLICATE):
        box = record.boxes[s.row] if s.kind == CLASS else s.box
        proposed = {"label": names[s.label], "box": _short(box)}
    where = {"kind": s.kind, "split": finding.split, "file": finding.file}
    result: dict[str, Any] = json_ready({**where, "annotated": annotated, "proposed": proposed})
    return result


def _short(box: Sequence[float] | np.ndarray) -> list[float]:
    return [round(float(v), 2) for v in box]
