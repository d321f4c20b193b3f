"""Pascal VOC: one XML file an image, splits as lists in ImageSets/Main.

Defined by the development kit of the challenge (Everingham et al., VOC2012 devkit_doc, section 4).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree.ElementTree import Element

from ...errors import DataError
from ...system.readers import read_lines, read_xml
from ...system.terminal import plural
from ...types import Classes
from ..dataset import Dataset, Sources
from ..probe import Probe
from ..records import Size
from ..registry import Format, ReadOptions
from ..tree import Tree
from . import labelmexml
from .common.pages import Object, Page, Reading
from .common.per_image import FilePerImage
from .common.writing import Output, short, stems_of, text

# fmt: off
VOC_NAMES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog",
    "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)
# fmt: on


def _sniff(probe: Probe) -> bool:
    return probe.root == "annotation" and not labelmexml.sniff(probe)


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    reading = FilePerImage("voc", tree, files, _parse, options.strict, classes=_classes, noun="XML file")
    return reading.sources()


def _parse(file: Path) -> list[Page]:
    """Corners in the file are 1-based and both inclusive: pixel 1 is the interval from 0 to 1."""
    root = read_xml(file, kind=DataError)
    objects, problems = [], []
    for number, item in enumerate(root.iter("object"), 1):
        corners = item.find("bndbox")
        if corners is None:
            corners = Element("bndbox")
        try:
            x1, y1, x2, y2 = (float(corners.findtext(key, "")) for key in ("xmin", "ymin", "xmax", "ymax"))
        except ValueError:
            problems.append(f"object {number} has no bndbox of four numbers")
            continue
        ignore = item.findtext("difficult", "0").strip() in ("1", "true", "True")
        objects.append(Object(item.findtext("name", "").strip(), (x1 - 1, y1 - 1, x2, y2), ignore))
    return [Page(root.findtext("filename", "").strip(), _size(root), objects, problems=problems)]


def _size(root: Element) -> Size | None:
    try:
        height, width = (int(root.findtext(f"size/{key}", "0")) for key in ("height", "width"))
    except ValueError:
        return None
    return (height, width) if 0 < height < 10**6 and 0 < width < 10**6 else None


def _classes(reading: Reading) -> Classes | None:
    """Names from labels.txt or labelmap.txt; else VOC's own order if only those occur."""
    listed = [f for f in reading.tree.annotations if f.name.lower() in ("labels.txt", "labelmap.txt")]
    for file in sorted(listed, key=lambda f: len(f.parts))[:1]:
        lines = read_lines(file, kind=DataError)
        if file.name.lower() == "labelmap.txt":  # CVAT: name:colour:parts:actions, and a background class
            lines = [line.partition(":")[0] for line in lines if not line.startswith(("#", "background:"))]
        names = tuple(line.strip() for line in lines if line.strip())
        return Classes(names, tuple(range(1, len(names) + 1)))
    return Classes(VOC_NAMES, tuple(range(1, len(VOC_NAMES) + 1))) if reading.seen <= set(VOC_NAMES) else None


def _write(splits: Mapping[str, Dataset], output: Output) -> list[str]:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        output.folder(folder)
    names = output.classes.names
    output.text("labels.txt", "".join(f"{name}\n" for name in names))  # read as they are
    lines = ["VOC: image ids, class ids and areas are not kept; labels.txt holds the order of the classes"]
    fractions = 0
    stems, renamed = stems_of(splits)
    for split, dataset in splits.items():
        listed = []
        for index, record in enumerate(dataset.records):
            stem, suffix = stems[split, index]
            fractions += int((record.boxes % 1 != 0).any(axis=1).sum())
            listed.append(stem)
            height, width = record.size
            parts = [
                f"<annotation>\n  <folder>JPEGImages</folder>\n  <filename>{text(stem + suffix)}</filename>\n"
                f"  <size><width>{width}</width><height>{height}</height><depth>3</depth></size>\n"
            ]
            for (x1, y1, x2, y2), label, ignore in output.rows(record):
                parts.append(
                    f"  <object>\n    <name>{text(names[label])}</name>\n    <difficult>{int(ignore)}</difficult>\n"
                    f"    <bndbox><xmin>{short(x1 + 1)}</xmin><ymin>{short(y1 + 1)}</ymin>"
                    f"<xmax>{short(x2)}</xmax><ymax>{short(y2)}</ymax></bndbox>\n  </object>\n"
                )
            output.text(f"Annotations/{stem}.xml", "".join([*parts, "</annotation>\n"]))
            output.image(record, f"JPEGImages/{stem}{suffix}")
        output.text(f"ImageSets/Main/{split}.txt", "".join(f"{stem}\n" for stem in listed))
    if renamed:
        lines.append(f"VOC: {plural(renamed, 'image')} with a new name, as all lie in one folder")
    if fractions:
        lines.append(f"VOC: {plural(fractions, 'box')} with fractions of pixels, which some tools round")
    return lines


FORMAT = Format("voc", "Pascal VOC XML", (".xml",), _sniff, _sources, _write)
