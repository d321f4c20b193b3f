"""Which image belongs to an annotation file, and which one a file means by a name."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath

from ..errors import DataError
from .splits import is_generic, split_of_folder

_PLAIN = re.compile(r"[\w-][\w. -]*(?:/[\w-][\w. -]*)*")  # no folder of it is . or ..


def clean_name(name: str, source: Path) -> str:
    """A file name out of an annotation file as a relative path with forward slashes.

    Drives, leading slashes and steps upwards are dropped: the rest is looked up among the images of the data set,
    and nothing else is opened. DataError for a name that no file can have.
    """
    if _PLAIN.fullmatch(name):  # most names, and quicker
        return name
    text = re.sub(r"^(file|https?|s3|gs)://[^/]*/", "", name.replace("\\", "/"))
    parts = [p for p in PurePosixPath(re.sub(r"^[A-Za-z]:(?=/)", "", text)).parts if p not in ("/", "..", ".", "//")]
    if not parts or "\0" in name:
        raise DataError(f"{source}: {name!r} is no name of a file")
    return "/".join(parts)


class Images:
    """All images below a folder, found by where they lie and what they are called."""

    def __init__(self, root: Path, paths: Sequence[Path]) -> None:
        self.root, self.paths = root, paths
        above = len(root.parts)  # all lie below it; `relative_to` takes three times as long
        self._relative = [p.parts[above:] for p in paths]

    def __len__(self) -> int:
        return len(self.paths)

    @cached_property
    def _by_name(self) -> dict[str, list[int]]:
        table: dict[str, list[int]] = defaultdict(list)
        for index, parts in enumerate(self._relative):
            table[parts[-1].casefold()].append(index)
        return table

    @cached_property
    def _by_stem(self) -> dict[str, list[int]]:
        table: dict[str, list[int]] = defaultdict(list)
        for index, parts in enumerate(self._relative):
            table[os.path.splitext(parts[-1])[0].casefold()].append(index)
        return table

    @cached_property
    def _by_key(self) -> dict[tuple[str, ...], list[int]]:
        table: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, parts in enumerate(self._relative):
            table[(*folder_key(parts[:-1]), os.path.splitext(parts[-1])[0].casefold())].append(index)
        return table

    def pair(self, folders: Sequence[str], stem: str) -> Path | None:
        """The image that belongs to an annotation file: same stem, in the parallel folder, or the only one so called.

        `folders` are those of the file, from the root on. images/train/a.jpg, train/images/a.jpg and train/a.jpg are
        all parallel to labels/train/a.txt. None where there is no such image, or several with equal right.
        """
        key = (*folder_key(folders), stem.casefold())
        exact = self._by_key.get(key, [])
        if len(exact) > 1:  # a.jpg and a.png: nothing says which
            beside = [i for i in exact if self._relative[i][:-1] == tuple(folders)]
            exact = beside if len(beside) == 1 else []
            return self.paths[exact[0]] if exact else None
        if exact:
            return self.paths[exact[0]]
        own = next((s for s in map(split_of_folder, reversed(folders)) if s), None)
        free = [i for i in self._by_stem.get(stem.casefold(), []) if not _conflict(own, self.split(i))]
        return self.paths[free[0]] if len(free) == 1 else None

    def has(self, name: str) -> bool:
        """Whether an image is called so, in whatever folder."""
        return name.rpartition("/")[2].casefold() in self._by_name

    def split(self, index: int) -> str | None:
        """The split that the innermost telling folder of an image names."""
        return next((s for s in map(split_of_folder, reversed(self._relative[index][:-1])) if s), None)

    @cached_property
    def splits(self) -> dict[Path, str | None]:
        """The split that the folders of each image name."""
        return {path: self.split(index) for index, path in enumerate(self.paths)}

    def locate(self, names: Sequence[str], near: Path, split: str | None) -> list[Path | None]:
        """Where the images are that a file names.

        They are taken from the one folder that holds most of them; what is left from others, where the name stands
        only once. Folders of another split are left alone. A suffix or a letter's case may differ.
        """
        paths: list[Path | None] = [None] * len(names)
        options: list[list[tuple[tuple[str, ...], int]]] = []  # for each name: (folder, image)
        for name in names:
            parts = tuple(name.split("/"))
            hits = self._by_name.get(parts[-1].casefold()) or self._by_stem.get(
                os.path.splitext(parts[-1])[0].casefold(), []
            )
            options.append(
                [(self._base(i, parts), i) for i in hits if not _conflict(split, self._folder_split(i, parts))]
            )
        home = near.relative_to(self.root).parts if near.is_relative_to(self.root) else ()
        rest = [k for k, choice in enumerate(options) if choice]
        first = True
        while rest:
            votes = Counter(base for k in rest for base in {b for b, _ in options[k]})
            best = max(votes, key=lambda b: (votes[b], _agrees(b, split), _common(b, home), -len(b), b))
            left = []
            for k in rest:
                mine = [i for base, i in options[k] if base == best]
                if not mine or (not first and len({i for _, i in options[k]}) > 1):
                    left.append(k)
                    continue
                exact = [i for i in mine if self._relative[i][-1] == names[k].rpartition("/")[2]]
                if exact or len(mine) == 1:
                    paths[k] = self.paths[(exact or mine)[0]]
            if len(left) == len(rest):
                for k in rest:
                    options[k] = [(b, i) for b, i in options[k] if b != best]
                left = [k for k in rest if options[k]]
            rest, first = left, False
        return paths

    def _folder_split(self, index: int, name: tuple[str, ...]) -> str | None:
        """As `split`, but what the file's own name says is no conflict."""
        base = self._base(index, name)
        return next((s for s in map(split_of_folder, reversed(base)) if s), None)

    def _base(self, index: int, name: tuple[str, ...]) -> tuple[str, ...]:
        """The folder of an image without the folders that its name in the file has too."""
        folders = self._relative[index][:-1]
        asked = name[:-1]
        same = 0
        while same < min(len(folders), len(asked)) and folders[-1 - same].casefold() == asked[-1 - same].casefold():
            same += 1
        return folders[: len(folders) - same]


def _conflict(wanted: str | None, there: str | None) -> bool:
    if wanted is None or there is None or wanted == there:
        return False
    known = {"train", "val", "test"}
    return wanted in known and there in known


def _agrees(base: tuple[str, ...], split: str | None) -> bool:
    return split is not None and any(split_of_folder(part) == split for part in base)


def _common(a: tuple[str, ...], b: tuple[str, ...]) -> int:
    count = 0
    for x, y in zip(a, b, strict=False):
        if x != y:
            break
        count += 1
    return count


def folder_key(folders: Iterable[str]) -> tuple[str, ...]:
    """Folders without those that only say what kind of files they hold; splits by their usual name."""
    named = [(split_of_folder(f), f) for f in folders]
    return tuple(f"<{s}>" if s else f.casefold() for s, f in named if s or not is_generic(f))
