"""Label Studio's machine-learning backend: its tasks in, its pre-annotations out.

Source: the backend's HTTP interface as Label Studio's documentation gives it: /setup, /predict, /health, /webhook.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from urllib.parse import urljoin, urlsplit
from xml.etree import ElementTree

from ..detections import Detections
from .options import Limits, Refused
from .request import Asking, fetch

_LONGEST = 1 << 20  # characters of a labelling configuration


@dataclass(frozen=True)
class Studio:
    """The Label Studio that is served: its address, and the key that its files want: a personal access token, or one of
    the older kind."""

    address: str
    key: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    def ask(self, path: str, limits: Limits, how: Asking = Asking()) -> bytes:
        """What it gives for a path; Refused where it does not."""
        limits = replace(limits, timeout=min(limits.timeout, 10.0))
        host = urlsplit(self.address).hostname or ""
        # the operator named this host, which may well be on this machine
        return fetch(urljoin(self.address.rstrip("/") + "/", path), [host], limits, replace(how, private=True))

    def signed(self, limits: Limits) -> Studio:
        """With the header that its files want. A personal access token has three parts and is good only for getting
        another, which lasts minutes."""
        if self.key is None or self.key.count(".") != 2:
            return replace(self, headers={"Authorization": f"Token {self.key}"} if self.key else {})
        body = json.dumps({"refresh": self.key}).encode()
        answer = self.ask("/api/token/refresh/", limits, Asking({"Content-Type": "application/json"}, body))
        try:
            return replace(self, headers={"Authorization": f"Bearer {json.loads(answer)['access']}"})
        except (ValueError, KeyError, TypeError):
            raise Refused(400, f"{self.address} gives nothing for the key in LABEL_STUDIO_API_KEY") from None


@dataclass(frozen=True)
class Tags:
    """What a labelling configuration says of rectangles: the tag that labels, the image it labels, the field of a task
    that holds the image, and the labels in lower case with their spelling."""

    labels_name: str
    image_name: str
    field: str
    labels: Mapping[str, str]


def parse_config(text: str) -> Tags:
    """The first RectangleLabels of a configuration, and its Image. Refused (400) where there is none."""
    if len(text) > _LONGEST or re.search(r"<!(DOCTYPE|ENTITY)", text, re.IGNORECASE):
        raise Refused(400, "the labelling configuration is too long, or declares entities")
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError):
        raise Refused(400, "the labelling configuration is no XML") from None
    for tag in root.iter("RectangleLabels"):
        image = next((i for i in root.iter("Image") if i.get("name") == tag.get("toName")), None)
        if image is None or not tag.get("name"):
            continue
        names = [label.get("value", "") for label in tag.iter("Label")]
        field = image.get("value", "").removeprefix("$")
        return Tags(tag.get("name", ""), image.get("name", ""), field, {name.lower(): name for name in names})
    raise Refused(400, "the labelling configuration has no RectangleLabels for an Image")


def read(message: Any) -> tuple[list[dict[str, Any]], Tags]:
    """The tasks of a request and the tags of its configuration; Refused (400) for another form."""
    try:
        tasks = message["tasks"]
        if not all(isinstance(task["data"], dict) for task in tasks):
            raise ValueError
        return list(tasks), parse_config(str(message["label_config"]))
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Refused(400, "this is no request of Label Studio with tasks and label_config") from None


def image_of(task: dict[str, Any], tags: Tags, studio: Studio, limits: Limits) -> bytes:
    """The image of a task: a data URL, or a file of the Label Studio that is served. Nothing else is fetched."""
    place = task["data"].get(tags.field)
    if not isinstance(place, str):
        raise Refused(400, f"a task has no {tags.field!r}")
    if place.startswith("data:"):
        try:
            return base64.b64decode(place.partition(",")[2], validate=True)
        except (binascii.Error, ValueError):
            raise Refused(400, "a task's data URL is no base64") from None
    try:
        url = urljoin(studio.address.rstrip("/") + "/", place)
        asked, home = urlsplit(url), urlsplit(studio.address)
    except ValueError as error:
        raise Refused(400, f"a task's {tags.field} is no URL: {error}") from None
    if (asked.scheme, asked.netloc) != (home.scheme, home.netloc):
        raise Refused(403, f"images are fetched from {studio.address} only")
    return studio.ask(url, limits, Asking(studio.headers))


def annotation(detections: Detections, size: tuple[int, int], tags: Tags, model: str) -> dict[str, Any]:
    """One task's pre-annotation: rectangles in percent of the image of (height, width). Classes that the configuration
    does not have are left out."""
    height, width = size
    rows = []
    for i, ((x1, y1, x2, y2), score) in enumerate(
        zip(detections.boxes.tolist(), detections.scores.tolist(), strict=True)
    ):
        name = tags.labels.get(detections.name(i).lower())
        if name is None:
            continue
        value = {
            "x": 100 * x1 / width,
            "y": 100 * y1 / height,
            "width": 100 * (x2 - x1) / width,
            "height": 100 * (y2 - y1) / height,
            "rotation": 0,
            "rectanglelabels": [name],
        }
        rows.append(
            {
                "from_name": tags.labels_name,
                "to_name": tags.image_name,
                "type": "rectanglelabels",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": value,
                "score": score,
            }
        )
    return {"model_version": model, "score": max((row["score"] for row in rows), default=0.0), "result": rows}
