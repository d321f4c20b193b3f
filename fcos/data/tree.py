"""The files of a data set, listed once, and what the names of its folders say.

Readers never search: they ask the tree for annotation files, for the image that belongs to one, and for the images
that a file names. Only what lies under the folder given is ever opened, whatever names a file holds.
"""

from __future__ import annotations

import os
import re
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..errors import DataError, ImageWarning, or_near
from ..system.environment import CONFIG_FILE, RUN_FILE
from ..system.remote import is_remote, local
from ..system.terminal import plural, some
from ..system.walk import parents_of, tell_unreadable
from .formats.common.pairing import Images
from .images.reading import SUFFIXES, UNREAD, tell_unread
from .probe import ARCHIVES, Probe, stem_of, suffix_of
from .splits import is_generic, split_of_folder

MAX_FILES = 3_000_000
MAX_DEPTH = 12
UNSEEN = (".", "__MACOSX")  # what files and folders begin with that are passed over
_NEAR_FILES = MAX_FILES // 3  # looked at there, where the images of COCO and as many labels may lie
_NEAR_DEPTH = 4  # below the folder of a single file that was named
ANNOTATIONS = (
    *(".json", ".json.gz", ".jsonl", ".ndjson", ".xml", ".txt", ".csv", ".parquet"),
    *(".yaml", ".yml", ".data", ".names", ".labels", ".tar"),
)


@dataclass(frozen=True)
class DataSource:
    """Where a data set is, and what a person has said about how to read it.

    path: its file or folder. format: the name of a format, None to recognise it. images and labels: where the
    images and the annotation files lie, None for below `path`. Texts become paths.

    >>> from pathlib import Path
    >>> source = fcos.DataSource(Path("my_data/instances.json"), format="coco", images=Path("my_data"))
    >>> fcos.open_dataset(source)
    Dataset(my_data/instances.json, all: 4 images, 3 classes, coco)
    """

    path: Path
    format: str | None = None
    images: Path | None = None
    labels: Path | None = None

    def __post_init__(self) -> None:
        for place in ("path", "images", "labels"):
            if (given := getattr(self, place)) is not None:
                object.__setattr__(
                    self, place, local(given, DataError) if is_remote(given) else Path(os.path.expanduser(given))
                )

    @staticmethod
    def of(path: str | Path | DataSource) -> DataSource:
        """A path alone, or a source as it is. DataError for an empty name, which would mean the current folder."""
        if isinstance(path, str) and not path.strip():
            raise DataError("an empty name was given for a data set; for this folder write .")
        if not isinstance(path, str | os.PathLike | DataSource):
            raise DataError(f"a data set is a path, a DataSource or a Dataset, not {type(path).__name__}")
        return path if isinstance(path, DataSource) else DataSource(Path(path))

    def __str__(self) -> str:
        return str(self.path)


class Tree:
    """The files of a data set.

    root: the folder of the annotation files. file: the one file that was named, or None. annotations: every file that
    could hold annotations, in the order of their paths. Raises DataError when the path is not there, is an archive,
    or holds more than three million files.
    """

    def __init__(self, source: DataSource) -> None:
        self.source = source
        path = source.path
        for place, option in ((source.images, "--images"), (source.labels, "--labels")):
            if place is not None and not place.exists():
                raise DataError(f"{option} {place}: there is no such file or folder{or_near(place)}")
        if not _exists(path):
            raise DataError(f"there is no file or folder {path}{or_near(path)}")
        if suffix_of(path.name) in ARCHIVES and path.is_file():
            raise DataError(f"{path} is an archive; unpack it first, then give the folder")
        labels = source.labels or path
        self._found: Images | None = None
        self.file = labels if labels.is_file() else None
        self.root = labels.parent if self.file else labels
        if self.file and self.file.suffix.lower() in (".yaml", ".yml", ".data"):  # what they describe lies below
            images, beside = _walk(self.root, MAX_DEPTH, _NEAR_FILES, whole=False)
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
        """The images: below --images, else below the path; for a single file below its folder, or the one above."""
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
        images = _walk(folder, _NEAR_DEPTH, _NEAR_FILES, whole=False)[0]
        names: list[Path] = []
        if not images and folder != self.root and folder.resolve().parent != folder.resolve():
            above = folder.resolve().parent
            with suppress(OSError):
                names = sorted(p for p in above.iterdir() if is_generic(p.name) or split_of_folder(p.name))
            images = [i for p in names for i in _walk(p, _NEAR_DEPTH, _NEAR_FILES, whole=False)[0]]
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
        """The annotation files that `sniff` takes for its own. Of a folder of many alike only a sample is opened,
        if that tells something."""
        groups: dict[tuple[Path, str], list[Path]] = defaultdict(list)
        for path in self.annotations:
            suffix = suffix_of(path.name)
            if suffix in suffixes:
                groups[path.parent, suffix].append(path)
        return sorted(path for group in groups.values() for path in self._sniffed(group, sniff))

    def _sniffed(self, group: list[Path], sniff: Callable[[Probe], bool]) -> list[Path]:
        if len(group) > 30:
            sample = [group[round(k * (len(group) - 1) / 9)] for k in range(10)]
            verdicts = {sniff(self.probe(path)) for path in sample}
            if verdicts == {True}:
                return group
            if verdicts == {False}:
                if any(self.probe(path).text.strip() for path in sample):
                    return []
                # Empty files, as images without objects have them, tell nothing of the others.
                filled = [path for path in group if path.stat().st_size]
                if len(filled) < len(group):
                    return self._sniffed(filled, sniff)
        return [path for path in group if sniff(self.probe(path))]

    def pair(self, path: Path) -> Path | None:
        """The image that belongs to an annotation file."""
        folders = self.folders(path)
        stem = stem_of(path)
        if os.path.splitext(stem)[1].lower() in SUFFIXES:  # Supervisely: a.jpg.json
            stem = os.path.splitext(stem)[0]
        return self.images.pair(folders, stem)

    def with_empty(self, files: Sequence[Path]) -> list[Path]:
        """`files` and the empty ones of the same kind beside them, or in a folder of the same name (val/label_2 for
        train/label_2): an image without objects has an empty file. Others beside them belong to them too where they are
        called as an image: what is wrong in these is then told."""
        kinds = {(f.parent.name, f.suffix.lower()) for f in files}
        taken, folders = set(files), {f.parent for f in files}
        beside = [p for p in self.annotations if (p.parent.name, p.suffix.lower()) in kinds and p not in taken]
        mine = (p for p in beside if not self.probe(p).text.strip() or (p.parent in folders and self.pair(p)))
        return sorted([*files, *mine])

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
            from ..system.readers import read_lines

            lists[name] = [line.strip() for line in read_lines(main[0], kind=DataError) if line.strip()]
        return lists | self._further_lists(lists)

    def _further_lists(self, lists: dict[str, list[str]]) -> dict[str, list[str]]:
        """Lists of other names in ImageSets/Main beside the usual ones, `lists`, where they share no line with any
        other: splits of their own names. default, as CVAT calls it, is all."""
        from ..system.readers import read_lines

        found: dict[str, list[str]] = {}
        for path in self.annotations if lists else ():
            stem = stem_of(path).lower()
            if path.parent.name.lower() != "main" or path.suffix.lower() != ".txt" or split_of_folder(stem):
                continue
            if _is_list(self.probe(path)):
                lines = [line.strip() for line in read_lines(path, kind=DataError) if line.strip()]
                found["all" if stem == "default" else stem] = lines
        often = Counter(line for lines in (*lists.values(), *found.values()) for line in set(lines))
        return {name: lines for name, lines in found.items() if all(often[line] == 1 for line in lines)}

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
    odd = (re.fullmatch(r"\S+\s+-?[01]", line) or _numbers(line.replace(",", " ")) > 3 for line in lines)
    return 2 * sum(map(bool, odd)) < len(lines)  # a name may look so too


def _numbers(line: str) -> int:
    return sum(bool(re.fullmatch(r"[-+]?[\d.]+([eE][-+]?\d+)?", field)) for field in line.split())


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False


def _walk(root: Path, depth: int, limit: int, whole: bool = True) -> tuple[list[Path], list[Path]]:
    """(images, annotation files) below a folder, sorted; links are followed, but no folder twice, and none to a folder
    that `root` lies in."""
    images: list[str] = []
    annotations: list[str] = []
    unread: list[str] = []
    seen = parents_of(root)
    stack = [(os.fspath(root), 0)]
    count = 0
    deeper: list[str] = []
    while stack:
        folder, level = stack.pop()
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = list(os.scandir(folder))
        except OSError as error:
            tell_unreadable(folder, root if whole else "", error)  # else it is looked into for want of a better place
            continue
        plots = level and _is_run(entries)
        for entry in entries:
            count += 1
            if count > limit:
                if whole:
                    raise DataError(f"{root} holds more than {limit:,} files; name the folder of one data set")
                advice = "not all were looked at; name the folder of the images with --images"
                warnings.warn(f"{root} holds more than {limit:,} files, and {advice}", ImageWarning, 3)
                return _in_order(images), _in_order(annotations)
            name = entry.name
            if name.startswith(UNSEEN):
                continue
            try:
                inside = entry.is_dir()
            except OSError:
                continue
            if inside:
                if level < depth:
                    stack.append((entry.path, level + 1))
                elif _holds_any(entry.path):
                    deeper.append(entry.path)
            elif plots:
                continue
            elif (suffix := os.path.splitext(name)[1].lower()) in SUFFIXES:
                images.append(entry.path)
            elif suffix in UNREAD:
                unread.append(entry.path)
            elif name.lower().endswith(ANNOTATIONS):
                annotations.append(entry.path)
    if whole:
        tell_unread(root, unread)
        if deeper:
            are, them = ("is", "it") if len(deeper) == 1 else ("are", "them")
            told = f"{plural(len(deeper), 'folder')} more than {depth} deep {are} not looked at: {some(deeper, 3)}"
            warnings.warn(f"{told}; name a folder nearer to {them}", ImageWarning, 3)
    return _in_order(images), _in_order(annotations)


def _holds_any(folder: str) -> bool:
    """Whether anything lies in a folder, but for what is never looked at."""
    try:
        with os.scandir(folder) as entries:
            return any(not entry.name.startswith(UNSEEN) for entry in entries)
    except OSError:
        return True


def set_images_below(folder: Path) -> list[Path]:
    """The images of a data set in a folder, as deep as one is looked at and in order, but not the drawings of training
    runs. DataError where it cannot be read."""
    return _walk(folder, MAX_DEPTH, MAX_FILES)[0]


def _is_run(entries: Sequence[os.DirEntry[str]]) -> bool:
    """Whether a folder is one of a training run, whose own images are plots."""
    return {RUN_FILE, CONFIG_FILE, "metrics.csv"} <= {entry.name for entry in entries}


def _in_order(paths: list[str]) -> list[Path]:
    """Paths in the order that sorted() gives, from texts: to compare a hundred thousand `Path`s takes seconds."""
    paths.sort(key=lambda path: os.path.normcase(path).split(os.sep))
    return [Path(path) for path in paths]
