"""The data of a training run, as its folder remembers it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import DataError, or_near
from ..system import remote
from ..system.environment import RUN_FILE
from ..system.readers import read_json
from .dataset import Dataset, merge
from .holdout import called_now, hold_out
from .open import open_dataset, open_splits, open_validation, split_names
from .splits import name_of, taught_splits, val_is_learned
from .tree import DataSource


def run_of(model: str | Path) -> Path | None:
    """The run folder that `model` is, or in which its file lies; None where it is something else."""
    path = Path(model).expanduser()
    folder = path if path.is_dir() else path.parent
    return folder if path.exists() and (folder / RUN_FILE).is_file() else None


def missing(name: str | Path) -> str:
    """ "there is no folder or file NAME" where `name` is written as a path and nothing is there; else empty."""
    path = Path(name).expanduser()
    named = not remote.is_remote(name) and (path.parent != Path() or bool(path.suffix))
    return f"there is no folder or file {path}{or_near(path)}" if named and not path.exists() else ""


def stored_sources(folder: Path) -> dict[str, Any]:
    """Where the data of a run came from: data, val, split and held_out of its environment.json, None where they were
    objects, with the root of a Dataset. DataError that names the file when it cannot be read."""
    file = folder / RUN_FILE
    try:
        stored = read_json(file, kind=DataError)
    except DataError as error:
        raise DataError(f"{error}; give the data with --data") from error
    sources = stored.get("sources") if isinstance(stored, dict) else None
    if not isinstance(sources, dict):
        raise DataError(f"{file} does not say what data the run used; give it with --data")
    keys = ("data", "root", "val", "judged_by", "split", "held_out", "format", "images", "labels")
    told = {key: sources.get(key) for key in keys}
    held = told["held_out"]
    texts = [*(told[key] for key in told if key != "held_out"), *(held if isinstance(held, list) else ())]
    if not all(v is None or isinstance(v, str) for v in texts) or not isinstance(held, list | None):
        raise DataError(f"{file}: data, val, split and held_out must be texts; give the data with --data")
    return told


def stored_data(told: dict[str, Any], folder: Path, give: str) -> DataSource:
    """The data set that `stored_sources` tells of; DataError where the run was given objects, or where the data is no
    longer there: `give` says how to name it instead."""
    if told["data"] is None:
        raise DataError(f"the run in {folder} got its data as Python objects; pass them again")
    check_there(told["data"], folder, give)
    given = [None if part is None else Path(part) for part in (told["images"], told["labels"])]
    return DataSource(Path(told["data"]), told["format"], *given)


def check_there(data: str, folder: Path, give: str) -> None:
    """DataError where what the run in `folder` learned from or was judged by is not at hand. give: how to name it."""
    if not Path(data).exists():
        raise DataError(f"the data of the run in {folder}, {data}, is not here; say where it is now: {give}")


def judged_by(folder: Path, split: str | None = None) -> Dataset:
    """What the run in `folder` was judged by: its --val, the part that it held out, or its val split; with `split`,
    that of its data. DataError where nothing was, or where the data is gone."""
    told, give = stored_sources(folder), f"--data DATA --model {folder}"
    if split is not None:
        return open_dataset(stored_data(told, folder, give), split)
    if told["val"] is not None:
        check_there(told["val"], folder, give)
        return open_validation(told["val"])[0]
    if told["judged_by"] is not None:
        raise DataError(f"the run in {folder} was judged by a Dataset of Python; name a data set")
    source = stored_data(told, folder, give)
    splits = open_splits(source)
    taught = taught_splits(splits, told["split"], source.path)
    if told["held_out"] is not None:
        return hold_out(merge([splits[name] for name in taught]), told["held_out"])[1]
    if "val" not in splits or val_is_learned(splits, taught) or not splits["val"].counts().sum():
        raise DataError(f"the run in {folder} had no images to judge by; name a data set")
    return splits["val"]


def learned_from(folder: Path, dataset: Dataset) -> int:
    """How many images of `dataset` the run in `folder` learned from; 0 where its folder does not tell."""
    try:
        told = stored_sources(folder)
        if told["data"] is None:
            return _learned_from_objects(told, dataset)
        source, root = Path(told["data"]).resolve(), dataset.root.resolve()
        if source not in (root, *root.parents) and root not in source.parents:
            return 0
        names = split_names(stored_data(told, folder, "--data DATA"))
        if dataset.split not in taught_splits(names, told["split"], source):
            return 0
    except DataError:
        return 0
    held = called_now(dataset, told["held_out"] or ())
    return sum(name_of(record) not in held for record in dataset.records)


def _learned_from_objects(told: dict[str, Any], dataset: Dataset) -> int:
    """The same for a run that was given a Dataset and held some of its images out: all others of a Dataset that lies
    in the same folder and has those, too."""
    names, held = [name_of(record) for record in dataset.records], called_now(dataset, told["held_out"] or ())
    elsewhere = told["root"] is not None and Path(told["root"]) != dataset.root.resolve()
    return sum(name not in held for name in names) if held and held.issubset(names) and not elsewhere else 0
