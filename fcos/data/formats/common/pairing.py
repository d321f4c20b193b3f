"""Which image belongs to an annotation file, and which one a file means by a name."""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import cache, cached_property
from heapq import heapify, heappop, heappush
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from ....errors import DataError
from ....system.files import folded
from ...splits import is_generic, split_of_folder

_Folders = tuple[str, ...]
_PLAIN = re.compile(r"[\w-][\w. -]*(?:/[\w-][\w. -]*)*")  # no folder of it is . or ..


_UPLOAD = re.compile(r"[0-9a-f]{8}-(.+)", re.DOTALL)  # what Label Studio calls a file that was uploaded
_LOST = re.compile(r"[^-\w.]")


def uploaded(stem: str) -> str:
    """The stem of a file before Label Studio put eight characters in front, in the letters that it keeps; '' for one
    that it has not named."""
    match = _UPLOAD.fullmatch(unquote(stem))
    return as_uploaded(match[1]) if match else ""


def count_uploads(names: Iterable[str]) -> Counter[str]:
    """Count different names by the stem that each had before Label Studio renamed it; one that it has not renamed
    counts as what it would have become (`as_uploaded`)."""
    stems = {folded(os.path.splitext(name.rpartition("/")[2])[0]) for name in names}
    return Counter(uploaded(stem) or as_uploaded(stem) for stem in stems)


def as_uploaded(stem: str) -> str:
    """A stem in the letters that Label Studio keeps, in lower case: spaces become _, brackets and such are left out."""
    return _LOST.sub("", folded(stem.strip().replace(" ", "_")))


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
            table[folded(parts[-1])].append(index)
        return table

    @cached_property
    def _by_stem(self) -> dict[str, list[int]]:
        table: dict[str, list[int]] = defaultdict(list)
        for index, parts in enumerate(self._relative):
            table[folded(os.path.splitext(parts[-1])[0])].append(index)
        return table

    @cached_property
    def _by_key(self) -> dict[tuple[str, ...], list[int]]:
        table: dict[tuple[str, ...], list[int]] = defaultdict(list)
        for index, parts in enumerate(self._relative):
            table[(*folder_key(parts[:-1]), folded(os.path.splitext(parts[-1])[0]))].append(index)
        return table

    @cached_property
    def _by_upload(self) -> dict[str, list[int]]:
        table: dict[str, list[int]] = defaultdict(list)
        for index, parts in enumerate(self._relative):
            table[as_uploaded(os.path.splitext(parts[-1])[0])].append(index)
        table.pop("", None)
        return table

    def _called(self, name: str, uploads: Callable[[], Mapping[str, int]]) -> list[int]:
        """The images of that name (without folders, folded), else of that stem, else those that were uploaded under it
        and have their own names here; none where two names of `uploads`, how many there are of each, mean one image."""
        stem = os.path.splitext(name)[0]
        found = self._by_name.get(name) or self._by_stem.get(stem)
        if found or not ("%" in stem or "-" in stem):  # most
            return found or []
        before = uploaded(stem)
        alike = self._by_stem.get(folded(unquote(stem))) or self._by_upload.get(before, [])
        return alike if not before or uploads().get(before, 1) == 1 else []

    def pair(self, folders: Sequence[str], stem: str) -> Path | None:
        """The image that belongs to an annotation file: same stem, in the parallel folder, or the only one so called.

        `folders` are those of the file, from the root on. images/train/a.jpg, train/images/a.jpg and train/a.jpg are
        all parallel to labels/train/a.txt. None where there is no such image, or several with equal right.
        """
        key = (*folder_key(folders), folded(stem))
        exact = self._by_key.get(key, [])
        if len(exact) > 1:  # a.jpg and a.png: nothing says which
            beside = [i for i in exact if self._relative[i][:-1] == tuple(folders)]
            exact = beside if len(beside) == 1 else []
            return self.paths[exact[0]] if exact else None
        if exact:
            return self.paths[exact[0]]
        own = _split_in(tuple(folders))
        alike = self._by_stem.get(folded(stem)) or self._by_upload.get(uploaded(stem), [])
        free = [i for i in alike if not _conflict(own, self.split(i))]
        return self.paths[free[0]] if len(free) == 1 else None

    @cached_property
    def folders(self) -> set[str]:
        """What the folders with images are called, in lower case."""
        return {part.lower() for parts in {parts[:-1] for parts in self._relative} for part in parts}

    def split(self, index: int) -> str | None:
        """The split that the innermost telling folder of an image names."""
        return _split_in(self._relative[index][:-1])

    @cached_property
    def splits(self) -> dict[Path, str | None]:
        """The split that the folders of each image name."""
        return {path: self.split(index) for index, path in enumerate(self.paths)}

    def beside(self, used: Collection[Path], split: str, one_split: bool) -> list[Path]:
        """Images in the folders of those `used` by a split that it does not use, where no other split may have them:
        in folders of that split, or where there is one split, "all"."""
        folders = {path.parent for path in used}
        mine = (p for p in self.paths if p not in used and p.parent in folders)
        return [p for p in mine if self.splits[p] == split or (split == "all" and one_split)]

    def locate(
        self,
        names: Sequence[str],
        near: Path,
        split: str | None,
        uploads: Callable[[], Mapping[str, int]] | None = None,
    ) -> list[Path | None]:
        """Where the images are that a file names.

        They are taken from the one folder that holds most of them. What is left is taken from others: where the image
        lies in all folders of the name, if there is such a one. Folders of another split are left alone. A suffix or a
        letter's case may differ. uploads: `count_uploads` of all names of the set; left out, of these.
        """
        groups: dict[str, list[int]] = defaultdict(list)  # the numbers of names that differ in their folders alone
        for k, name in enumerate(names):
            groups[folded(name.rpartition("/")[2])].append(k)
        home = near.relative_to(self.root).parts if near.is_relative_to(self.root) else ()
        asked = [_folded(name.split("/")[:-1]) for name in names]
        uploads = uploads or cache(lambda: count_uploads(names))
        hits = {key: _Hits(self._relative, self._called(key, uploads)) for key in groups}
        votes = Counter(base for key, ks in groups.items() for base in hits[key].votes([asked[k] for k in ks]))
        free = {base for base in votes if not _conflict(split, _split_in(base))}
        if not free:
            return [None] * len(names)
        order = sorted(free, key=lambda base: (_agrees(base, split), _common(base, home), -len(base), base))
        rank = {base: number for number, base in enumerate(order)}
        best = max(free, key=lambda base: (votes[base], rank[base]))

        paths: list[Path | None] = [None] * len(names)
        left: dict[tuple[str, _Folders, bool], list[int]] = defaultdict(list)  # names that could mean the same images
        for key, members in groups.items():
            for k in members:
                mine = self._nearest(names[k], hits[key].inside(best, asked[k]))
                exact = [i for i in mine if self._relative[i][-1] == names[k].rpartition("/")[2]]
                if exact or len(mine) == 1:
                    paths[k] = self.paths[(exact or mine)[0]]
                elif not mine:
                    end = hits[key].known(asked[k])
                    left[key, end, end == asked[k]].append(k)
        options: list[tuple[Sequence[int], dict[_Folders, list[int]]]] = []
        for (key, end, whole), members in left.items():
            choices = _by_base(hits[key].whole(end) if whole else (), free) or _by_base(hits[key].all(end), free)
            options.append((members, choices))
        for k, image in _settle(options, rank).items():
            paths[k] = self.paths[image]
        return self._once(paths, names)

    def _once(self, paths: Sequence[Path | None], names: Sequence[str]) -> list[Path | None]:
        """The images that names have found, None for a name that must mean another one (see `_others`)."""
        claims: dict[Path, list[int]] = defaultdict(list)
        for k, path in enumerate(paths):
            if path is not None:
                claims[path].append(k)
        kept = list(paths)
        for path, ks in claims.items():
            for k in _others(path.relative_to(self.root).parts, {k: names[k].split("/") for k in ks}):
                kept[k] = None
        return kept

    def _nearest(self, name: str, images: Sequence[int]) -> Sequence[int]:
        """Of images with one base for a name those that share most folders with it, by the very letters if any do."""
        if len(images) < 2:
            return images
        deepest = max(len(self._relative[i]) for i in images)
        images = [i for i in images if len(self._relative[i]) == deepest]
        parts = tuple(name.split("/"))
        alike = {i: _common(self._relative[i][::-1], parts[::-1]) for i in images}
        return [i for i in images if alike[i] == max(alike.values())]


def _others(image: Sequence[str], names: Mapping[int, Sequence[str]]) -> set[int]:
    """Of several names that found one image, those that must mean another one, which is missing. A name loses to one
    that has the image's very letters, if it has not; to one that has a telling folder of the image, if it leaves that
    out (1.jpg to cam/1.jpg, of cam/1.jpg); and, if it has a telling folder of its own and none of the image's, to one
    that has none of its own (cam/1.jpg to 1.jpg, of 1.jpg)."""
    if len(names) < 2:
        return set()
    exact = {k for k, name in names.items() if name[-1] == image[-1]} or set(names)
    folders = _folded(image[:-1])
    asked = {k: _folded(names[k][:-1]) for k in exact}
    shared = {k: _common(folders[::-1], asked[k][::-1]) for k in exact}
    most = max(shared.values())
    near = {k for k in exact if all(map(is_generic, folders[len(folders) - most : len(folders) - shared[k]]))}
    whole = {k for k in near if shared[k] == len(asked[k])}
    known = {k for k in near if not all(map(is_generic, folders[len(folders) - shared[k] :]))}
    own = {k for k in near if not all(map(is_generic, asked[k][: len(asked[k]) - shared[k]]))}
    kept = near - (own - known) if whole else near
    return set(names) - kept


def one_name(a: str, b: str) -> bool:
    """Whether two names of one image may mean the same: folders that tell something are those of the other, from the
    end on."""
    first, second = ([f for f in _folded(name.split("/")[:-1]) if not is_generic(f)] for name in (a, b))
    short = min(len(first), len(second))
    return first[len(first) - short :] == second[len(second) - short :]


class _Hits:
    """The images that some names could mean which differ in their folders alone. The base of an image, for such a name,
    is its folder without the folders at the end that the name has too. The folders of names come case-folded."""

    def __init__(self, relative: Sequence[_Folders], images: Sequence[int]) -> None:
        self.folders = {i: relative[i][:-1] for i in images}

    @cached_property
    def _in(self) -> dict[_Folders, list[int]]:
        table: dict[_Folders, list[int]] = defaultdict(list)
        for image, folders in self.folders.items():
            table[_folded(folders)].append(image)
        return table

    @cached_property
    def _ends(self) -> dict[_Folders, list[int]]:
        table: dict[_Folders, list[int]] = defaultdict(list)
        for folders, images in self._in.items():
            for start in range(len(folders) + 1):
                table[folders[start:]] += images
        return table

    def votes(self, asked: Sequence[_Folders]) -> list[_Folders]:
        """Bases, each as often as there are folders below it where one of the names has an image: v1 holds a single
        0.jpg, however many of v1/0.jpg, v2/0.jpg, v3/0.jpg are asked for. Images and names are gone through one after
        the other, since the pairs of them may be millions."""
        if len(asked) == len(self.folders) == 1:
            return [self._base(i, asked[0]) for i in self.folders]
        ends = Counter(folders[start:] for folders in asked for start in range(len(folders) + 1))
        places: set[tuple[_Folders, _Folders]] = set()  # a base, and the folders below it
        for folders in self.folders.values():
            alike = _folded(folders)
            for at in range(len(folders), -1, -1):
                count = ends[alike[at:]]
                if not count:
                    break
                if not at or count > ends[alike[at - 1 :]]:  # some name has these folders and no more
                    places.add((folders[:at], alike[at:]))
        return [base for base, _ in places]

    def inside(self, base: _Folders, asked: _Folders) -> list[int]:
        """The images that have this base for a name, in order."""
        found: Iterable[int] = self.folders
        if len(self.folders) > 1:
            above = _folded(base)
            found = [i for start in range(len(asked) + 1) for i in self._in.get(above + asked[start:], ())]
        return sorted(i for i in found if self._base(i, asked) == base)

    def known(self, asked: _Folders) -> _Folders:
        """The longest end of the folders of a name in which an image lies. It tells the base of each image for it."""
        ends = (asked[start:] for start in range(len(asked)))
        return next((end for end in ends if end in self._ends), ())

    def whole(self, asked: _Folders) -> list[tuple[_Folders, int]]:
        """Base and image, of the images that lie in all folders of a name."""
        return [(self._base(i, asked), i) for i in self._ends.get(asked, ())]

    def all(self, asked: _Folders) -> list[tuple[_Folders, int]]:
        """Base and image, of all images."""
        return [(self._base(i, asked), i) for i in self.folders]

    def _base(self, image: int, asked: _Folders) -> _Folders:
        folders = self.folders[image]
        same = _common(_folded(folders)[::-1], asked[::-1]) if asked else 0
        return folders[: len(folders) - same]


def _by_base(choices: Iterable[tuple[_Folders, int]], free: Collection[_Folders]) -> dict[_Folders, list[int]]:
    """The images of each base that is in `free`."""
    table: dict[_Folders, list[int]] = defaultdict(list)
    for base, image in choices:
        if base in free:
            table[base].append(image)
    return table


def _settle(
    options: Sequence[tuple[Sequence[int], dict[_Folders, list[int]]]], rank: Mapping[_Folders, int]
) -> dict[int, int]:
    """The image of each name that has one option, or comes to have one where the base of most options is dropped, then
    that of most that are left, and so on. `options`: names, and the images of each base that they could mean."""
    found: dict[int, int] = {}
    members: dict[_Folders, list[int]] = defaultdict(list)
    votes: Counter[_Folders] = Counter()
    left = [sum(map(len, choices.values())) for _, choices in options]  # images that are not dropped
    for number, (names, choices) in enumerate(options):
        if left[number] == 1:
            found |= dict.fromkeys(names, next(iter(choices.values()))[0])
            continue
        for base in choices:
            members[base].append(number)
            votes[base] += len(names)
    most = [(-count, -rank[base], base) for base, count in votes.items()]
    heapify(most)
    while most:
        count, _, best = heappop(most)
        if votes[best] != -count:  # it had more before
            continue
        for number in members[best]:
            names, choices = options[number]
            if left[number] == 1:
                continue
            left[number] -= len(choices.pop(best))
            if left[number] == 1:
                ((base, (image,)),) = choices.items()
                found |= dict.fromkeys(names, image)
                votes[base] -= len(names)
                if votes[base]:
                    heappush(most, (-votes[base], -rank[base], base))
    return found


def _folded(folders: Iterable[str]) -> _Folders:
    return tuple([folded(folder) for folder in folders])


def _split_in(folders: _Folders) -> str | None:
    """The split that the innermost telling folder names."""
    return next((s for s in map(split_of_folder, reversed(folders)) if s), None)


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
    return tuple(f"<{s}>" if s else folded(f) for s, f in named if s or not is_generic(f))
