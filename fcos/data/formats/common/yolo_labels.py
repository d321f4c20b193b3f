"""Which label file of YOLO belongs to an image: in the parallel folder, beside the image, or elsewhere by its name."""

from __future__ import annotations

from collections import defaultdict
from functools import cached_property
from pathlib import Path

from ....system.files import folded
from ...probe import stem_of
from ...tree import Tree
from .pairing import as_uploaded, folder_key, uploaded

# text files that name the classes, and so belong to no image
CLASS_FILES = ("classes.txt", "obj.names", "_darknet.labels", "labels.txt", "predefined_classes.txt", "class_names.txt")


class LabelFiles:
    """Which label file belongs to an image. elsewhere: those that are found by their name alone."""

    def __init__(self, tree: Tree) -> None:
        self.tree = tree
        self.elsewhere: dict[Path, Path] = {}

    @cached_property
    def _texts(self) -> list[Path]:
        return [p for p in self.tree.annotations if p.suffix.lower() == ".txt" and p.name.lower() not in CLASS_FILES]

    @cached_property
    def _by_key(self) -> dict[tuple[str, ...], Path]:
        return {(*folder_key(self.tree.folders(p)), folded(stem_of(p))): p for p in self._texts}

    @cached_property
    def _by_upload(self) -> dict[tuple[str, ...], list[Path]]:
        """Those that are called by what Label Studio made of the name of their image."""
        table: dict[tuple[str, ...], list[Path]] = defaultdict(list)
        for path in self._texts:
            if before := uploaded(stem_of(path)):
                table[*folder_key(self.tree.folders(path)), before].append(path)
        return table

    def of(self, image: Path) -> Path:
        """images/train/a.jpg -> labels/train/a.txt, or beside the image, or in the parallel folder of --labels."""
        if found := self.elsewhere.get(image):
            return found
        parts = list(image.parts)
        for at in range(len(parts) - 2, -1, -1):
            if parts[at] == "images" and self.tree.source.labels is None:
                parts[at] = "labels"
                usual = Path(*parts).with_suffix(".txt")
                if usual.is_file():
                    return usual
                break
        beside = image.with_suffix(".txt")
        root = self.tree.images.root
        folders = image.relative_to(root).parts[:-1] if image.is_relative_to(root) else ()
        key = folder_key(folders)
        if found := self._by_key.get((*key, folded(image.stem))):
            return found
        uploads = self._by_upload.get((*key, as_uploaded(image.stem)), [])
        return uploads[0] if len(uploads) == 1 and not beside.is_file() else beside
