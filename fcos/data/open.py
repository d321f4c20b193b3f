"""A data set opened, whatever its format and however its folders are called."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import DataError, did_you_mean, first_line
from ..system.door import door
from ..system.environment import RUN_FILE
from ..system.readers import uncollected
from ..system.terminal import plural
from ..types import Classes, class_names
from .dataset import Dataset, Sources
from .formats.common.lists import named_in, share_out, told
from .formats.common.pages import in_order
from .ids import Id
from .images.reading import SUFFIXES
from .in_python import dataset_of
from .probe import Probe, suffix_of
from .registry import Format, ReadOptions, format_named, formats, recognise
from .splits import CHOSEN_BY, JUDGED, canonical_split, check_split, default_split, meant_split, name_of
from .tree import DataSource, Tree


@door
def open_dataset(
    path: str | Path | DataSource | Iterable[Mapping[str, Any]],
    split: str | None = None,
    *,
    classes: Sequence[str] = (),
    strict: bool = False,
    inclusive: bool = False,
) -> Dataset:
    """One split of the data set at `path`, a file or a folder of any known format; or rows that your program holds.

    `split` may be left out when there is only one; 'valid' and 'validation' mean 'val'. `classes`: only the boxes of
    these classes, in this order; a list of names, one name, or names by their numbers from 0. `strict` turns everything
    that would be skipped with a note into a DataError. `inclusive`: x2 = x + w - 1 for COCO boxes, as the original
    implementation. A `DataSource` says the format, or other folders for the images and the annotations.

    Rows: for each image a mapping with `image`, the path of its file, `boxes` [G,4], the corners x1, y1, x2, y2 in
    pixels of the image as displayed, `labels` [G], names of classes or their numbers in `classes`, and, if need be,
    `ignore` [G] bool. `split` is what they are called.

    Raises DataError with one line for anything that cannot be used.

    >>> data = fcos.open_dataset("my_data")
    >>> len(data), data.records[0].boxes.shape[1]
    (4, 4)
    >>> row = {"image": "my_data/cat.jpg", "boxes": [[20, 30, 200, 210]], "labels": ["cat"]}
    >>> fcos.open_dataset([row], "train")
    Dataset(...my_data, train: 1 image, 1 class, python)
    """
    names = class_names(classes, DataError)
    if isinstance(path, Dataset):
        raise DataError("this is a Dataset already; .with_classes([...]) and slices take parts of it")
    if isinstance(path, Mapping):
        raise DataError("rows are a list of mappings, one for each image; give [row, ...]")
    with uncollected():
        if not isinstance(path, str | Path | DataSource):
            return dataset_of(path, split or "all", classes=names, strict=strict)
        dataset = _chosen(path, _sources(DataSource.of(path), ReadOptions(strict, inclusive)), split)
    return dataset.with_classes(names) if names else dataset


def _chosen(path: str | Path | DataSource, sources: Sources, split: str | None) -> Dataset:
    if split is None:
        if len(sources) > 1:
            first = next(iter(sources))
            raise DataError(
                f"{path} has the splits {', '.join(sources)}; choose one with --split {first!r}, or name its own file"
            )
        return next(iter(sources.values()))()
    there = meant_split(split, sources)
    if there is None:
        hint = did_you_mean(canonical_split(split), sources, f"there are: {', '.join(sources)}")
        raise DataError(f"{path} has no split {split!r}; {hint}")
    return sources[there]()


def open_judged(path: str | Path | DataSource, split: str | None, *, pixels: bool = True) -> Dataset:
    """The split to judge in: the one that is named, else test, val, or the only one there is. `pixels`: whether the
    images are looked at, not only their annotations."""
    with uncollected():
        sources = _sources(DataSource.of(path), ReadOptions(pixels=pixels))  # once: it looks at every file of a folder
        return _chosen(path, sources, split or default_split(list(sources), JUDGED))


def open_validation(path: str | Path | DataSource, *, strict: bool = False) -> tuple[Dataset, tuple[str, ...]]:
    """(the split that a run is judged by where other data is named for that: val, test, or the only one there is; the
    names of all). DataError where it is none of these."""
    with uncollected():
        sources = _sources(DataSource.of(path), ReadOptions(strict))
        split = default_split(list(sources), CHOSEN_BY)
        if split is None:
            raise DataError(
                f"{path} has the splits {', '.join(sources)}, neither val nor test; name the folder or file of the "
                "one to judge by"
            )
        return sources[split](), tuple(sources)


def open_splits(path: str | Path | DataSource, *, strict: bool = False, inclusive: bool = False) -> dict[str, Dataset]:
    """Every split that stands at `path`, by name ('train', 'val', 'test', 'trainval', ...)."""
    with uncollected():
        return {name: load() for name, load in _sources(DataSource.of(path), ReadOptions(strict, inclusive)).items()}


def split_names(path: str | Path | DataSource) -> list[str]:
    """The names of the splits at `path`, without reading more than it takes. Raises DataError as `open_dataset`."""
    return list(_sources(DataSource.of(path), ReadOptions()))


class Numbers(NamedTuple):
    """How a data set numbers what it holds, all splits together: image ids by resolved path, as its file has them, and
    the classes."""

    ids: Mapping[Path, Id]
    classes: Classes


def numbers_of(path: str | Path | DataSource) -> Numbers:
    """The numbers of the data set at `path`. Raises DataError as `open_dataset`."""
    splits = list(open_splits(path).values())
    ids: dict[Path, Id] = {}
    for dataset in splits:
        texts = dataset.text_ids
        ids |= {r.path.resolve(): texts.get(r.id, r.id) for r in dataset.records if r.path is not None}
    return Numbers(ids, splits[0].classes)


def _sources(source: DataSource, options: ReadOptions) -> Sources:
    tree = Tree(source)
    tried = [format_named(source.format)] if source.format else list(formats().values())
    readings: dict[str, Sources] = {}
    failures: dict[str, DataError] = {}
    for form in tried:
        files = tree.matching(form.suffixes, form.sniff)
        if not files and tree.file is not None and _asked_for(form, tree.file, source):
            files = [tree.file]  # its own reader says best what is wrong with it
        elif not files and source.format is not None and tree.file is None:
            files = [path for path in tree.annotations if suffix_of(path.name) in form.suffixes]
        if not files:
            continue
        try:
            sources = form.sources(tree, files, options)
        except DataError as error:
            failures[form.name] = error
            continue
        if sources:
            readings[form.name] = sources
    if len(readings) == 1:
        sources = _parted(tree, next(iter(readings.values())))
        for name in sources:
            check_split(name, source)
        return sources
    if not readings and len(failures) == 1:
        raise next(iter(failures.values()))
    raise _unclear(tree, readings, failures)


def _asked_for(form: Format, file: Path, source: DataSource) -> bool:
    """Whether the reader of a format shall judge a file that does not look like it."""
    suffix = file.name.lower()
    usual = {"coco": (".json", ".json.gz"), "yolo": (".yaml", ".yml")}.get(form.name, ())
    return source.format is not None or (suffix.endswith(tuple(usual)) and not _known(file))


def _known(file: Path) -> bool:
    probe = Probe(file)
    return any(probe.suffix in f.suffixes and f.sniff(probe) for f in formats().values())


def _parted(tree: Tree, sources: Sources) -> Sources:
    """A set without splits, parted where lists (train.txt) or the folders of its images say so."""
    if list(sources) != ["all"]:
        return sources
    by_folder = {s for s in tree.images.splits.values() if s} if tree.file is None else set()
    lists = tree.lists if tree.file is None else {}
    if not lists and len(by_folder) < 2:
        return sources
    load = cache(sources["all"])
    whole = load()
    named = named_in(lists, [name_of(record) for record in whole.records], tree.root)
    records, splits = whole.records, tree.images.splits

    def split_of(index: int) -> str | None:
        path = records[index].path
        return splits.get(path) if path is not None else None

    parts, notes = share_out(named, range(len(records)), lists, split_of, lambda k: name_of(records[k]))
    if not parts and len(by_folder) > 1:
        for index in range(len(records)):
            parts.setdefault(split_of(index) or "all", []).append(index)
    if not parts:
        return told({"all": load}, notes)
    return told({name: partial(_part, load, parts[name], name) for name in in_order(parts)}, notes)


def _part(load: Callable[[], Dataset], indices: list[int], name: str) -> Dataset:
    return replace(load().subset(indices), split=name)


def _unclear(tree: Tree, readings: dict[str, Sources], failures: dict[str, DataError]) -> DataError:
    path = tree.source.path
    options = "--format NAME, --images FOLDER and --labels FOLDER settle it"
    tree_lines = tree.describe(recognise)
    reasons = [f"{name}: {first_line(error)}" for name, error in failures.items()]
    if readings:
        found = "; ".join(f"as {name}: {', '.join(sources)}" for name, sources in readings.items())
        line = f"{path} can be read in {len(readings)} ways ({found}); give --format NAME, {' or '.join(readings)}"
    elif tree.file is not None and tree.file.suffix.lower() in SUFFIXES:
        return DataError(f"{path} is an image; give the file or folder of its annotations, or rows: [{{'image': ...}}]")
    elif tree.file is not None:
        line = f"{path} is no annotation file of a known format: it is {recognise(tree.probe(tree.file))}; {options}"
    elif failures:
        line = f"{path} holds no data set that can be read: {'; '.join(reasons)}; {options}"
    elif tree.images and not tree.annotations:
        held = plural(len(tree.images), "image")
        line = (
            f"{path} holds no data set that is known: {held}, no labels; if they are elsewhere, add --labels FOLDER; "
            "if there are none, fcos labels propose makes the first ones"
        )
    elif path.is_dir() and (path / RUN_FILE).is_file():
        return DataError(f"{path} is a run folder, not a data set; give the data that it learned from")
    else:
        from .formats.yolo import nearly

        held = f"{len(tree.images):,} images and {len(tree.annotations):,} files that could be annotations"
        hint = nearly(tree)
        line = f"{path} holds no data set that is known ({held}); {f'as YOLO: {hint}' if hint else options}"
    details = ["found:", *tree_lines] if tree.file is None else []
    if reasons:
        details += ["tried:", *(f"  {reason}" for reason in reasons)]
    details.append(f"formats: {', '.join(formats())}")
    return DataError(line, details)
