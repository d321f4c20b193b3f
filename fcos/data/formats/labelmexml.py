"""LabelMe XML: one XML file an image, with polygons, as the first LabelMe (MIT) wrote them; read only.

Defined by the tool's database and its toolbox (Russell et al., IJCV 77, 2008;
https://github.com/CSAILVision/LabelMeToolbox). Later tools write it too, datumaro among them, with masks in `segm`.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from ...errors import DataError
from ...system.readers import read_xml
from ..dataset import Sources
from ..probe import Probe
from ..registry import Format, ReadOptions
from ..tree import Tree
from .common.pages import Box, Object, Page, listed_classes
from .common.per_image import FilePerImage
from .common.values import around, number, size, yes


def sniff(probe: Probe) -> bool:
    """VOC's root has the same name, but its objects have a bndbox and its images a size."""
    if probe.root != "annotation" or "<bndbox" in probe.text:
        return False
    return any(mark in probe.text for mark in ("<polygon", "<imagesize", "<sourceImage"))


def _sources(tree: Tree, files: list[Path], options: ReadOptions) -> Sources:
    return FilePerImage(
        "labelmexml", tree, files, _parse, options.strict, classes=listed_classes, noun="XML file"
    ).sources()


def _parse(file: Path) -> list[Page]:
    root = read_xml(file, kind=DataError)
    objects, problems = [], []
    for index, item in enumerate(root.iter("object"), 1):
        if yes(item.findtext("deleted", "")):
            continue
        box = _box(item)
        if box is None:
            problems.append(f"object {index} has neither a polygon with an area nor a box")
            continue
        objects.append(Object(item.findtext("name", "").strip(), box))
    shape = size(*((root.findtext(f"imagesize/{key}") or "").strip() for key in ("nrows", "ncols")))
    return [Page((root.findtext("filename") or "").strip(), shape, objects, problems=problems)]


def _box(item: Element) -> Box | None:
    """The box around the polygon, or that of a mask."""
    points = [(_number(p, "x"), _number(p, "y")) for p in item.iterfind("polygon/pt")]
    mask = item.find("segm/box")
    if not points and mask is not None:
        points = [(_number(mask, f"x{end}"), _number(mask, f"y{end}")) for end in ("min", "max")]
    if len({x for x, _ in points}) < 2 or len({y for _, y in points}) < 2:
        return None
    return around(points)


def _number(item: Element, key: str) -> float:
    return number((item.findtext(key) or "").strip())


FORMAT = Format("labelmexml", "LabelMe XML", (".xml",), sniff, _sources)
