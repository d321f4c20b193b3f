"""CVAT XML 1.1: one file for images, or for the tracks of a video.

Defined at https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/ and .../manual/advanced/xml_format/.
Frames between two boxes of a track are interpolated; from a box with outside="1" on the object is not seen. A track
ends with its last box.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element

from ...errors import DataError
from ...system.readers import MB, read_xml
from ...system.terminal import plural
from ...types import Classes
from ..dataset import Dataset, Sources
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.pages import Box, Object, Page, Reading
from .common.values import NAN, around, number, size, turned, yes
from .common.writing import Output, attribute, left_out, names_of, short, text

_LIMIT = 2048 * MB
_MOST_FRAMES = 10_000_000
_SHAPES = ("box", "polygon", "ellipse", "mask")


def _sniff(probe: Probe) -> bool:
    return probe.root == "annotations" and any(
        f"<{tag}" in probe.text for tag in ("image ", "track ", "meta>", "meta/")
    )


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    labels: list[str] = []
    parse = partial(_parse, tree, labels)

    def classes(reading: Reading) -> Classes | None:
        seen = sorted(map(str, reading.seen))  # which reads the labels too
        names = tuple(dict.fromkeys([*labels, *seen]))
        return Classes(names, tuple(range(1, len(names) + 1))) if labels else None

    return Reading("cvat", tree, files, parse, options.strict, classes=classes, splits_inside=True).sources()


def _parse(tree: Tree, labels: list[str], file: Path) -> list[Page]:
    root = read_xml(file, _LIMIT, DataError)
    labels += [name for label in root.iter("label") if (name := (label.findtext("name") or "").strip())]
    pages = []
    for item in root.iter("image"):
        objects, problems = [], []
        for index, shape in enumerate(item, 1):
            box = _box(shape)
            if box is not None:
                objects.append(_object(shape, shape.get("label", ""), box, f"{shape.tag} {index}"))
            elif shape.tag in ("polyline", "points", "cuboid", "skeleton"):
                problems.append(f"{shape.tag} {index} is no box")
        name = item.get("name", "")
        if not name:
            raise DataError(f"{file}: an image has no name")
        frame = size(item.get("height"), item.get("width"))
        pages.append(Page(name, frame, objects, split=_split(item.get("subset")), problems=problems))
    return pages + (_frames(tree, root, file) if root.find("track") is not None else [])


def _split(subset: str | None) -> str:
    from ..splits import canonical_split

    return "" if subset in (None, "", "default", "Default") else canonical_split(str(subset))


def _object(shape: Element, label: str, box: Box, where: str) -> Object:
    marks = {a.get("name", "").lower(): (a.text or "") for a in shape.iter("attribute")}
    ignore = any(yes(marks.get(key)) for key in ("iscrowd", "is_crowd", "ignore", "difficult"))
    return Object(label.strip(), box, ignore, where=where)


def _box(shape: Element) -> Box | None:
    """Corners in pixels; None for what is no area."""
    if shape.tag not in _SHAPES:
        return None

    def values(*keys: str) -> list[float]:
        return [number(shape.get(key)) for key in keys]

    if shape.tag == "polygon":
        pairs = [p.split(",") for p in shape.get("points", "").split(";") if p.strip()]
        if not pairs or any(len(p) != 2 for p in pairs):
            return NAN, NAN, NAN, NAN
        return around([(number(x), number(y)) for x, y in pairs])
    if shape.tag == "ellipse":
        x, y, rx, ry = values("cx", "cy", "rx", "ry")
        box = (x - rx, y - ry, x + rx, y + ry)
    elif shape.tag == "mask":
        left, top, width, height = values("left", "top", "width", "height")
        return left, top, left + width, top + height
    else:
        x1, y1, x2, y2 = values("xtl", "ytl", "xbr", "ybr")
        box = (x1, y1, x2, y2)
    degrees = number(shape.get("rotation", 0))
    return turned(box, 0 if degrees != degrees else degrees, ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2))


def _frames(tree: Tree, root: Element, file: Path) -> list[Page]:
    """A page for each frame of a video."""
    wanted = _numbers(root)
    objects: dict[int, list[Object]] = defaultdict(list)
    total = 0
    foreign: set[int] = set()
    for number_of, track in enumerate(root.iter("track")):
        for frame, box, shape in _seen(track):
            total += 1
            if total > _MOST_FRAMES:
                raise DataError(f"{file}: its tracks have more than {_MOST_FRAMES:,} boxes")
            if wanted is not None and frame not in wanted:
                if frame == number(shape.get("frame")):  # not one in between
                    foreign.add(frame)
                continue
            label = track.get("label", "")
            objects[frame].append(_object(shape, label, box, f"track {track.get('id', number_of)} in frame {frame}"))
    frames = sorted(objects) if wanted is None else wanted
    given = root.find(".//original_size")
    frame_size = size(given.findtext("height"), given.findtext("width")) if given is not None else None
    names = [f"frame_{frame:06d}.PNG" for frame in frames]
    images = [None] * len(names)
    if len(tree.images) and not any(tree.images.locate(names, file, None)):  # frames under other names, in order
        by_order = tree.images.paths
        places = range(len(names)) if len(by_order) == len(names) else frames
        images = [by_order[k] if k < len(by_order) else None for k in places]  # type: ignore[misc]
    pages = [
        Page(name, frame_size, objects.get(frame, []), path=path)
        for frame, name, path in zip(frames, names, images, strict=True)
    ]
    if foreign and pages:
        told = f"boxes of {plural(len(foreign), 'frame')} that the task does not have, such as {min(foreign)}"
        pages[0] = pages[0]._replace(problems=[told])
    return pages


def _numbers(root: Element) -> range | None:
    """The numbers of the frames of a task: its size, from start_frame on, every so many as frame_filter says; None
    where it does not tell."""
    count = number(root.findtext(".//task/size") or root.findtext(".//meta//size"))
    start = number(root.findtext(".//task/start_frame") or "0")
    first = int(start) if 0 <= start < 1e9 else 0
    every = re.search(r"step\s*=\s*(\d{1,9})", root.findtext(".//task/frame_filter") or "")
    step = max(1, int(every[1])) if every else 1
    return range(first, first + int(count) * step, step) if 1 <= count < _MOST_FRAMES else None


def _seen(track: Element) -> Iterator[tuple[int, Box, Element]]:
    """(frame, corners, shape) wherever the object of a track is seen."""
    keys: list[tuple[int, Box, Element]] = []
    for shape in track:
        box, frame = _box(shape), number(shape.get("frame"))
        if box is not None and 0 <= frame < 1e9:
            keys.append((int(frame), box, shape))
    keys.sort(key=lambda key: key[0])
    for (frame, box, shape), following in pairwise([*keys, (-1, (0.0, 0.0, 0.0, 0.0), track)]):
        if yes(shape.get("outside")):
            continue
        yield frame, box, shape
        after, target, _ = following
        gap = after - frame
        if gap > _MOST_FRAMES:
            raise DataError(f"a track has no box for {gap:,} frames")
        for step in range(1, gap):
            share = step / gap
            yield frame + step, _between(box, target, share), shape


def _between(a: Box, b: Box, share: float) -> Box:
    x1, y1, x2, y2 = (p + (q - p) * share for p, q in zip(a, b, strict=True))
    return x1, y1, x2, y2


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    names = output.classes.names
    labels = "".join(f"<label><name>{text(name)}</name><type>rectangle</type></label>\n" for name in names)
    total = sum(len(dataset) for dataset in splits.values())
    parts = [
        '<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n<meta><task>'
        f"<size>{total}</size><mode>annotation</mode><labels>\n{labels}</labels></task></meta>\n"
    ]
    index = 0
    source = "auto" if output.model else "manual"
    for split, dataset in splits.items():
        for record, name in zip(dataset.records, names_of(dataset), strict=True):
            height, width = record.size
            subset = "" if split == "all" else f" subset={attribute(split)}"
            place = name if split == "all" else f"{split}/{name}"  # the tool finds the images that it has by this
            parts.append(f'<image id="{index}" name={attribute(place)}{subset} width="{width}" height="{height}">\n')
            index += 1
            scores = [s for s, ignore in zip(output.scores(record), record.ignore, strict=True) if not ignore]
            for ((x1, y1, x2, y2), label, _), score in zip(output.rows(record, ignored=False), scores, strict=True):
                end = f'>\n    <attribute name="score">{score}</attribute>\n  </box>' if output.model else "/>"
                parts.append(
                    f'  <box label={attribute(names[label])} source="{source}" occluded="0" xtl="{short(x1)}" '
                    f'ytl="{short(y1)}" xbr="{short(x2)}" ybr="{short(y2)}" z_order="0"{end}\n'
                )
            parts.append("</image>\n")
            output.image(record, f"images/{place}")
    output.text("annotations.xml", "".join([*parts, "</annotations>\n"]))
    lines = ["CVAT: image ids, class ids and areas are not kept", *left_out(splits, "CVAT")]
    if output.model:
        lines.append(f"CVAT: the name of the model ({output.model}) is not kept; source is auto")
    return lines


FORMAT = Format("cvat", "CVAT XML", (".xml",), _sniff, _sources, _write)
