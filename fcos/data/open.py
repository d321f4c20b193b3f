"""A data set opened, whatever its format: COCO JSON, YOLO or Pascal VOC."""

from __future__ import annotations

from pathlib import Path

from ..errors import DataError, did_you_mean
from .dataset import Dataset, Sources
from .splits import JUDGED, canonical_split, default_split


def open_dataset(
    path: str | Path, split: str | None = None, *, strict: bool = False, inclusive: bool = False
) -> Dataset:
    """One split of the data set at `path`, a file or a folder of any known format.

    `split` may be left out when there is only one; 'valid' and 'validation' mean 'val'. `strict` turns
    everything that would be skipped with a note into a DataError. `inclusive`: x2 = x + w - 1 for COCO
    boxes, as the original implementation. Raises DataError with one line for anything that cannot be used.
    """
    sources = _sources(Path(path), strict, inclusive)
    if split is None:
        if len(sources) > 1:
            raise DataError(f"{path} has the splits {', '.join(sources)}; choose one")
        return next(iter(sources.values()))()
    name = canonical_split(split)
    found = name if name in sources else split if split in sources else None
    if found is None:
        hint = did_you_mean(name, sources, f"there are: {', '.join(sources)}")
        raise DataError(f"{path} has no split {split!r}; {hint}")
    return sources[found]()


def open_judged(path: str | Path, split: str | None = None) -> Dataset:
    """The split to judge in: the one that is named, else test, val, or the only one there is."""
    return open_dataset(path, split or default_split(split_names(path), JUDGED))


def open_splits(path: str | Path, *, strict: bool = False, inclusive: bool = False) -> dict[str, Dataset]:
    """Every split that stands at `path`, by name ('train', 'val', 'test', 'trainval', ...)."""
    return {name: load() for name, load in _sources(Path(path), strict, inclusive).items()}


def _sources(path: Path, strict: bool, inclusive: bool) -> Sources:
    from .formats import coco, voc, yolo

    if path.is_file():
        if path.name.lower().endswith((".json", ".json.gz")):
            return coco.sources(path, strict, inclusive)
        if path.suffix.lower() in (".yaml", ".yml"):
            return yolo.sources(path, strict)
        hint = "unpack it first" if path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz") else "known: .json, .yaml"
        raise DataError(f"{path} is no annotation file; {hint}, or a folder of a COCO, YOLO or VOC data set")
    if not path.is_dir():
        raise DataError(f"there is no file or folder {path}")
    sources = coco.sources(path, strict, inclusive) or yolo.sources(path, strict) or voc.sources(path, strict)
    if not sources:
        raise DataError(
            f"{path} holds no data set that is known: COCO (instances_train.json), YOLO (data.yaml) or "
            "VOC (Annotations and JPEGImages)"
        )
    return sources


def split_names(path: str | Path) -> list[str]:
    """The names of the splits at `path`, without reading them. Raises DataError as `open_dataset`."""
    return list(_sources(Path(path), strict=False, inclusive=False))
