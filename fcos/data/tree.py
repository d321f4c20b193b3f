"""The files of a data set, listed once, and what the names of its folders say.

Readers never search: they ask the tree for annotation files, for the image that belongs to one, and for the images
that a file names. Only what lies under the folder given is ever opened, whatever names a file holds.
"""

from __future__ import annotations

import json
import os
import re
import stat
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import DataError
from .image import SUFFIXES
from .splits import is_generic, split_of_folder

MAX_FILES = 3_000_000
MAX_DEPTH = 12
_NEAR_DEPTH = 4  # below the folder of a single file that was named
_HEAD = 1 << 16
_ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tbz2", ".tar.bz2", ".txz", ".tar.xz", ".7z", ".rar")
ANNOTATIONS = (
    *(".json", ".json.gz", ".jsonl", ".ndjson", ".xml", ".txt", ".csv", ".parquet"),
    *(".yaml", ".yml", ".data", ".names", ".labels"),
)


@dataclass(frozen=True)
class DataSource:
    """Where a data set is, and what a person has said about how to read it.

    path: its file or folder. format: the name of a format, None to recognise it. images and labels: where the
    images and the annotation files lie, None for below `path`.
    """

    path: Path
    format: str | None = None
    images: Path | None = None
    labels: Path | None = None

    @staticmethod
    def of(path: str | Path | DataSource) -> DataSource:
        """A path alone, or a source as it is."""
        return path if isinstance(path, DataSource) else DataSource(Path(path))

    def __str__(self) -> str:
        return str(self.path)


# --------------------------------------------------------------------------- one file


class Probe:
    """The beginning of a file, looked at in the ways that formats recognise themselves by."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.suffix = suffix_of(path.name)

    @cached_property
    def text(self) -> str:
        """The first 64 KB, unpacked where it is gzip; '' for what cannot be read."""
        data = _head(self.path)
        if data[:2] == b"\x1f\x8b":
            try:
                data = zlib.decompressobj(31).decompress(data, _HEAD)
            except zlib.error:
                return ""
        for mark, encoding in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
            if data.startswith(mark):
                return data.decode(encoding, "replace")
        return data.decode("utf-8", "replace")

    @cached_property
    def lines(self) -> list[str]:
        """The first lines that are whole and not empty, at most 50."""
        lines = self.text.split("\n")
        whole = lines if len(self.text) < _HEAD - 4 else lines[:-1]
        return [line.strip("\r ") for line in whole[:200] if line.strip()][:50]

    @cached_property
    def json(self) -> Any:
        """What the first 64 KB of a JSON file hold, as far as they go; None where it is no JSON."""
        text = self.text.lstrip()
        return peek_json(text) if text[:1] in ("{", "[") else None

    @cached_property
    def records(self) -> list[dict[str, Any]]:
        """The first lines as JSON objects (JSON lines); empty where one of them is none."""
        rows = []
        for line in self.lines[:3]:
            value = peek_json(line) if line.startswith("{") else None
            if not isinstance(value, dict):
                return []
            rows.append(value)
        return rows

    @cached_property
    def root(self) -> str:
        """The name of the root of an XML file, '' where it is no XML."""
        text, at = self.text, 0
        while True:  # step by step: one pattern for all of it would try every way to part a row of comments
            at += len(text[at:]) - len(text[at:].lstrip())
            for start, end in (("<?", "?>"), ("<!--", "-->"), ("<!DOCTYPE", ">")):
                if text.startswith(start, at):
                    inside = text.find("[", at, text.find(">", at)) if start == "<!DOCTYPE" else -1
                    stop = text.find(end, text.find("]", inside) if inside >= 0 else at + len(start))
                    if stop < 0:
                        return ""
                    at = stop + len(end)
                    break
            else:
                match = re.compile(r"<([A-Za-z_][\w.-]*)").match(text, at)
                return match[1] if match else ""

    def first(self, key: str | None = None) -> dict[str, Any]:
        """The first object of a JSON list: of the file, or of the list under `key`; {} where there is none."""
        value = self.json if key is None else self.json.get(key) if isinstance(self.json, dict) else None
        return value[0] if isinstance(value, list) and value and isinstance(value[0], dict) else {}


def _head(path: Path) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(handle, "rb") as file:
            return file.read(_HEAD) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    except (OSError, ValueError):
        return b""


_TOKEN = re.compile(r'"(?:[^"\\]++|\\.)*+"|"|[{}\[\]:,]|[^\s{}\[\]:,"]++', re.DOTALL)


def peek_json(text: str) -> Any:
    """The value that JSON text begins, as far as it goes: a text that is cut off gives what stood before the cut."""
    top: list[Any] = []
    stack: list[Any] = [top]
    keys: list[str | None] = [None]
    for match in islice(_TOKEN.finditer(text), 20000):
        token, place = match[0], stack[-1]
        if token == '"':  # a text that is cut off
            break
        if token in ("}", "]"):
            if len(stack) == 1:
                break
            stack.pop()
            keys.pop()
        elif token == ",":
            keys[-1] = None
        elif token != ":":
            value: Any = {} if token == "{" else [] if token == "[" else _scalar(token)
            if not isinstance(place, dict):
                place.append(value)
            elif keys[-1] is None:
                keys[-1] = value if isinstance(value, str) else str(token)
                continue
            else:
                place[keys[-1]] = value
            if token in ("{", "["):
                stack.append(value)
                keys.append(None)
        if len(stack) > 60:
            break
    return top[0] if top else None


def _scalar(token: str) -> Any:
    try:
        return json.loads(token) if len(token) < 4000 else token[1:4000]
    except (ValueError, RecursionError):
        return token


def suffix_of(name: str) -> str:
    """'.json', '.json.gz', ...: lower case, with the packing."""
    lower = name.lower()
    return next((s for s in (*_ARCHIVES, ".json.gz") if lower.endswith(s)), os.path.splitext(lower)[1])


def stem_of(path: Path) -> str:
    """The name of a file without its suffix; 'a.json.gz' -> 'a'."""
    return path.name[: len(path.name) - len(suffix_of(path.name))] if suffix_of(path.name) else path.name


# --------------------------------------------------------------------------- names in files


def clean_name(name: str, source: Path) -> str:
    """A file name out of an annotation file as a relative path with forward slashes.

    Drives, leading slashes and steps upwards are dropped: the rest is looked up among the images of the data set,
    and nothing else is opened. DataError for a name that no file can have.
    """
    text = re.sub(r"^(file|https?|s3|gs)://[^/]*/", "", name.replace("\\", "/"))
    parts = [p for p in PurePosixPath(re.sub(r"^[A-Za-z]:", "", text)).parts if p not in ("/", "..", ".", "//")]
    if not parts or "\0" in name:
        raise DataError(f"{source}: {name!r} is no name of a file")
    return "/".join(parts)


# --------------------------------------------------------------------------- images


class Images:
    """All images below a folder, found by where they lie and what they are called."""

    def __init__(self, root: Path, paths: Sequence[Path]) -> None:
        self.root, self.paths = root, paths
        self._relative = [p.relative_to(root).parts for p in paths]

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


# --------------------------------------------------------------------------- the tree


class Tree:
    """The files of a data set.

    root: the folder of the annotation files. file: the one file that was named, or None. annotations: every file that
    could hold annotations, in the order of their paths. Raises DataError when the path is not there, is an archive,
    or holds more than three million files.
    """

    def __init__(self, source: DataSource) -> None:
        self.source = source
        path = source.path
        for place, option in ((source.images, "--pictures"), (source.labels, "--labels")):
            if place is not None and not place.exists():
                raise DataError(f"{option} {place}: there is no such file or folder")
        if not _exists(path):
            raise DataError(f"there is no file or folder {path}")
        if suffix_of(path.name) in _ARCHIVES and path.is_file():
            raise DataError(f"{path} is an archive; unpack it first, then give the folder")
        labels = source.labels or path
        self._found: Images | None = None
        self.file = labels if labels.is_file() else None
        self.root = labels.parent if self.file else labels
        if self.file and self.file.suffix.lower() in (".yaml", ".yml", ".data"):  # what they describe lies below
            images, beside = _walk(self.root, MAX_DEPTH, MAX_FILES // 10, whole=False)
            self.annotations = [self.file, *(p for p in beside if p.suffix.lower() in (".txt", ".names"))]
            self._found = Images(self.root, images)
        elif self.file:
            self.annotations = [self.file]
        else:
            images, self.annotations = _walk(self.root, MAX_DEPTH, MAX_FILES)
            self._found = Images(self.root, images)
        self._probes: dict[Path, Probe] = {}

    @cached_property
    def images(self) -> Images:
        """The images: below --pictures, else below the path; for a single file below its folder, or the one above."""
        chosen = self.source.images or (self.source.path if self.source.labels else None)
        if chosen is not None:
            chosen = chosen if chosen.is_dir() else chosen.parent
            return Images(chosen, _walk(chosen, MAX_DEPTH, MAX_FILES)[0])
        if self._found is not None:
            return self._found
        folder = self.root
        # annotations/train.json and train/_annotations.json mean images that lie one level up, or beside that.
        if is_generic(folder.name) or split_of_folder(folder.name):
            folder = folder.parent
        images = _walk(folder, _NEAR_DEPTH, MAX_FILES // 10, whole=False)[0]
        if not images and folder != self.root and folder.resolve().parent != folder.resolve():
            above = folder.resolve().parent
            names = [p for p in sorted(above.iterdir()) if is_generic(p.name) or split_of_folder(p.name)]
            images = [i for p in names for i in _walk(p, _NEAR_DEPTH, MAX_FILES // 10, whole=False)[0]]
            folder = above
        return Images(folder, images)

    def probe(self, path: Path) -> Probe:
        """The beginning of a file, read once."""
        if path not in self._probes:
            self._probes[path] = Probe(path)
        return self._probes[path]

    def folders(self, path: Path) -> tuple[str, ...]:
        """The folders between the root and a file."""
        return path.relative_to(self.root).parts[:-1]

    def matching(self, suffixes: Sequence[str], sniff: Callable[[Probe], bool]) -> list[Path]:
        """The annotation files that `sniff` takes for its own. Of a folder of many alike only a sample is opened."""
        groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
        for path in self.annotations:
            suffix = suffix_of(path.name)
            if suffix in suffixes:
                groups[path.parent, suffix].append(path)
        taken: list[Path] = []
        for group in groups.values():
            if len(group) > 30:
                sample = [group[round(k * (len(group) - 1) / 9)] for k in range(10)]
                verdicts = {sniff(self.probe(path)) for path in sample}
                if len(verdicts) == 1:
                    taken += group if True in verdicts else []
                    continue
            taken += [path for path in group if sniff(self.probe(path))]
        return sorted(taken)

    def pair(self, path: Path) -> Path | None:
        """The image that belongs to an annotation file."""
        folders = self.folders(path)
        stem = stem_of(path)
        if os.path.splitext(stem)[1].lower() in SUFFIXES:  # Supervisely: a.jpg.json
            stem = os.path.splitext(stem)[0]
        return self.images.pair(folders, stem)

    def with_empty(self, files: Sequence[Path]) -> list[Path]:
        """`files` and the empty ones of the same kind beside them: an image without objects has an empty file."""
        kinds = {(f.parent, f.suffix.lower()) for f in files}
        taken = set(files)
        beside = (p for p in self.annotations if (p.parent, p.suffix.lower()) in kinds and p not in taken)
        return sorted([*files, *(p for p in beside if not self.probe(p).text.strip())])

    def split_of(self, path: Path) -> str | None:
        """The split that an annotation file's folders name, innermost first."""
        return next((s for s in map(split_of_folder, reversed(self.folders(path))) if s), None)

    @cached_property
    def lists(self) -> dict[str, list[str]]:
        """Split lists: name of the split -> the lines of train.txt, ImageSets/Main/val.txt, ..."""
        folders: dict[str, list[Path]] = defaultdict(list)
        for path in self.annotations:
            name = split_of_folder(stem_of(path)) if path.suffix.lower() == ".txt" else None
            if name and len(stem_of(path)) < 40 and _is_list(self.probe(path)):
                folders[name].append(path)
        lists = {}
        for name, paths in folders.items():
            exact = [p for p in paths if stem_of(p).lower() == name] or paths
            main = [p for p in exact if p.parent.name.lower() == "main"] or exact
            if len(main) > 1:
                listed = ", ".join(str(p.relative_to(self.root)) for p in main)
                raise DataError(f"{self.root} has several lists of the split {name}: {listed}; name the folder of one")
            from ..readers import read_lines

            lists[name] = [line.strip() for line in read_lines(main[0], kind=DataError) if line.strip()]
        return lists

    def describe(self, name: Callable[[Probe], str]) -> list[str]:
        """A short tree for a person: what each folder holds, and what `name` says of the files that stand alone."""
        lines: dict[str, Counter[str]] = defaultdict(Counter)
        alone: dict[str, list[str]] = defaultdict(list)
        for index in range(len(self.images)):
            parts = self.images.paths[index].parent.relative_to(self.images.root).parts
            lines["/".join(parts[:3])]["images"] += 1
        by_folder: dict[tuple[str, str], list[Path]] = defaultdict(list)
        for path in self.annotations:
            by_folder["/".join(self.folders(path)[:3]), suffix_of(path.name)].append(path)
        for (folder, suffix), paths in by_folder.items():
            lines[folder][suffix[1:] if suffix in (".txt", ".names", ".data") else suffix[1:].upper()] += len(paths)
            if len(paths) <= 3:
                alone[folder] += [f"{p.name}: {name(self.probe(p))}" for p in paths]
            else:
                alone[folder] += [f"{paths[0].name} and {len(paths) - 1:,} more: {name(self.probe(paths[0]))}"]
        shown = []
        for folder in sorted(lines)[:20]:
            counts = ", ".join(f"{count:,} {kind}" for kind, count in sorted(lines[folder].items()))
            shown.append(f"  {folder or '.'}/  {counts}")
            shown += [f"    {line}" for line in alone[folder][:6]]
        if len(lines) > 20:
            shown.append(f"  and {len(lines) - 20:,} more folders")
        return shown or ["  no images and no annotation files"]


def _is_list(probe: Probe) -> bool:
    """Names, one a line: not the numbers of a label file, nor a class's list with its second column of 1 and -1."""
    lines = probe.lines
    if not lines or any("\ufffd" in line for line in lines):
        return False
    return not any(re.fullmatch(r"\S+\s+-?[01]", line) or _numbers(line) > 3 or line.count(",") > 2 for line in lines)


def _numbers(line: str) -> int:
    return sum(bool(re.fullmatch(r"[-+]?[\d.]+([eE][-+]?\d+)?", field)) for field in line.split())


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _walk(root: Path, depth: int, limit: int, whole: bool = True) -> tuple[list[Path], list[Path]]:
    """(images, annotation files) below a folder, sorted; links are followed, but no folder twice."""
    images: list[Path] = []
    annotations: list[Path] = []
    seen: set[tuple[int, int]] = set()
    stack = [(os.fspath(root), 0)]
    count = 0
    while stack:
        folder, level = stack.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = list(os.scandir(folder))
        except OSError:
            continue
        for entry in entries:
            count += 1
            if count > limit:
                if whole:
                    raise DataError(f"{root} holds more than {limit:,} files; name the folder of one data set")
                return sorted(images), sorted(annotations)
            name = entry.name
            if name.startswith((".", "__MACOSX")):
                continue
            try:
                inside = entry.is_dir()
            except OSError:
                continue
            if inside:
                if level < depth:
                    stack.append((entry.path, level + 1))
            elif os.path.splitext(name)[1].lower() in SUFFIXES:
                images.append(Path(entry.path))
            elif name.lower().endswith(ANNOTATIONS):
                annotations.append(Path(entry.path))
    return sorted(images), sorted(annotations)
