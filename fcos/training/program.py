"""`fcos.train`: from data and a model's name to a trained detector. The verb `fcos train` is this function."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial, wraps
from inspect import signature
from numbers import Real
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, ParamSpec, TypeVar

from ..changes import SYNONYMS, load_yaml
from ..config import Config, describe, from_dict
from ..data.dataset import Dataset
from ..data.loading.loader import end_if_begun_again, one_line_for_lost_loaders
from ..data.runs import check_there, stored_data, stored_sources
from ..data.tree import DataSource
from ..errors import ConfigError, DataError, FcosError, check_names
from ..presets import named_in
from ..system import remote
from ..system.door import door
from ..system.environment import COMMAND
from ..system.files import check_folder, real
from ..system.threads import own_random_numbers
from .clock import Budget, Deadline
from .data import Chosen, NamedData, check_data, choose
from .distributed import launched, started_again
from .equal_command import command, data_words, with_steps
from .extend import lengthened
from .given_settings import (
    Settings,
    changes_of,
    config_of,
    given_settings,
    settled_by,
    told_sizes,
    with_learned_sizes,
    without_learned,
)
from .loop import Trainer
from .output.checkpoint import load_checkpoint
from .output.console import Console
from .output.folder import RunFolder, check_free, holds_run, latest_folder, next_folder
from .output.store import begin_away
from .planning.minutes import Prepared, Wish, check, prepare
from .run import Result, RunOptions
from .starting import Start, start_for

if TYPE_CHECKING:
    from ..evaluation.coco import Metrics
    from .monitor import StepReport


P = ParamSpec("P")
T = TypeVar("T")


def _told_of_names(function: Callable[P, T]) -> Callable[P, T]:
    """The same function; a name that it does not have is a ConfigError with the option or the setting that is meant."""
    known = list(signature(function).parameters)

    @wraps(function)
    def checked(*args: P.args, **options: P.kwargs) -> T:
        for name in (name for name in options if name not in known):
            keys = {key.rpartition(".")[2]: key for key, _, _ in describe(Config()) if "." in key} | SYNONYMS
            if keys.get(name):
                given = f"settings={{{keys[name]!r}: {options[name]!r}}}"
                raise ConfigError(f"fcos.train has no option {name!r}; it is a setting: {given}")
        check_names(options, known, "fcos.train")
        return function(*args, **options)

    return checked


@_told_of_names
@door
@own_random_numbers()
@one_line_for_lost_loaders()
def train(
    data: str | Path | DataSource | Dataset | Mapping[str, Dataset] | None = None,
    *,
    model: str | Config | None = None,
    out: str | Path | None = None,
    settings: Settings = (),
    val: str | Path | Dataset | None = None,
    split: str | None = None,
    holdout: float | None = None,
    epochs: int | None = None,
    minutes: float | Budget | None = None,
    init: str | Path | None = None,
    config: str | Path | None = None,
    dialect: str | None = None,
    resume: bool = False,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    strict: bool = False,
    quiet: bool = False,
    on_step: Callable[[int, StepReport], object] | None = None,
    on_epoch: Callable[[float, Metrics | None], object] | None = None,
) -> Result:
    """Train a detector on `data` and keep everything about it in the folder `out`.

    >>> settings = {"train.iterations": 2, "data.size": 64, "data.train_sizes": [64], "train.plots": False}
    >>> result = fcos.train("my_data", out="runs/mine", settings=settings, holdout=0.5, device="cpu", quiet=True)
    >>> result
    Result('runs/mine', 2 steps, AP ..., AP50 ..., 0:...)
    >>> result.metrics.images, abs(result.interval.value - result.metrics.ap) < 1e-6
    (2, True)
    >>> result.detector
    Detector(fcos-lite0, 3 classes, torch fp32 on cpu)
    >>> fcos.evaluate("runs/mine").ap == result.metrics.ap  # on the images that were held out
    True

    Data: `data` is a path (any known format; file or folder), a DataSource, a Dataset, or Datasets by the name of their
    split, as `open_splits` gives them. `split` names what to learn from, such as "train,val" (left out: train, else
    trainval, else the only one). It is judged by `val`, a Dataset or a path (of several splits val, else
    test); left out, by the val split; where there is none, by a tenth of the training images, which is held out;
    `holdout` is another share, 0 for none. `strict` refuses faulty boxes.

    Model: `model` is the name of a preset (left out: the one that `config` names, else "fcos-lite0"; `fcos models`) or
    a Config. `settings` go on top of it: {"train.lr": 0.001}, {"train": {"lr": 0.001}} or ["train.lr=0.001"], any
    setting that `fcos config` lists; below them a YAML file `config`, of the same model and dialect where it names
    them, below that the conventions of a published implementation, `dialect`. `init` names the weights to start from: a
    detector (name, run folder, file), or "none" for those of the backbone alone; left out, the bundled detector of the
    same name, or "backbone", its backbone with a fresh FPN and head, where features without those of the detector tell
    the classes clearly better (fcos/training/starting.py).

    Time: `epochs` is train.epochs, how often to go through the images. `minutes`, in its place, is how long all of it
    may take, from this call to its end. The program looks at the data, times some steps and plans the rest; it tells
    the plan, and keeps the equal command in command.txt. What `settings` and `model` name is as they say
    (docs/training.md).

    Run: `out` is runs/NAME when left out. `resume` goes on with the run in `out` (left out: the latest in runs/), with
    its data and settings; `settings` may change some, such as train.epochs, and `minutes` are then minutes more, from
    where it stands. `device` is auto, cpu, cuda, cuda:1 or mps;
    `devices` and `nodes` start more processes, from a script only: each runs it from its beginning, so other work in it
    belongs into a script of its own. `on_step(step, report)` is called after every
    optimiser step, `on_epoch(epoch, metrics)` after every epoch, metrics being None where it was not evaluated.
    StopIteration raised in `on_epoch` ends the run as `train.patience` does; before another error goes on, a
    checkpoint is kept.

    Returns a Result: `.metrics` of the best weights, `.detector` with them, `.folder`. Raises FcosError, with one line
    that says what to do: DataError, ConfigError, ModelError, DeviceError, MissingExtra; Stopped after Ctrl-C.
    """
    began = time.monotonic()
    end_if_begun_again()
    _check_kinds(
        model=model, init=init, settings=settings, split=split, holdout=holdout, minutes=minutes, on_step=on_step,
        on_epoch=on_epoch,
    )  # fmt: skip
    settings = _with_epochs(settings, epochs)
    url = remote.url_of(out) if out is not None and remote.is_remote(out) else None
    budget = minutes if minutes is None or isinstance(minutes, Budget) else Budget(minutes, began)
    asked = _Asked(
        data, val, split, holdout, strict, quiet, model, settings, config, dialect, init, device, budget
    )  # fmt: skip
    if not resume and started_again() and out is not None and holds_run(Path(out)):
        asked, resume = asked.of_the_run(), True
    here, machines = launched(devices, nodes)
    if asked.budget is not None:
        check(asked.budget.minutes, given_settings(settings, config), here * machines)
        if not resume:
            Console(quiet).note("looking at the data, then timing some steps: the plan follows in half a minute or so")
    if out is not None and not resume and here * machines == 1:  # of several the first tells, once they are together
        check_free(Path(out))
    ready = _resumed(asked, out, url) if resume else _begun(asked, out, url)
    options = RunOptions(
        out=ready.folder,
        init=ready.start.init,
        seen=tuple(ready.start.seen),
        resume=resume,
        device=device,
        devices=devices,
        nodes=nodes,
        quiet=quiet,
        sources={**ready.source.stored(), "held_out": ready.chosen.held_out},
        notes=[*ready.chosen.lines, *ready.lines],
        on_step=on_step,
        on_epoch=on_epoch,
        deadline=ready.deadline,
        url=url,
        began=began,
        equal=ready.equal,
    )
    with closing(Trainer(ready.config, ready.chosen.data, options)) as trainer:
        return trainer.run()


_KINDS: dict[str, tuple[type | UnionType, str]] = {  # of what `train` is given, and what to give in place of others
    "model": (Config | str | None, "the name of a preset, or a Config"),
    "init": (os.PathLike | str | None, "the name of a model, or its run folder or file"),
    "settings": (Mapping | Sequence, "a mapping or a list"),
    "split": (str | None, 'its name, or several as "train,val"'),
    "holdout": (Real | None, "a share, such as 0.1"),
    "minutes": (Real | Budget | None, "a number"),
}


def _check_kinds(**given: object) -> None:
    """ConfigError for an argument of another kind than `_KINDS` has, or a function that is none."""
    for name, value in given.items():
        if name not in _KINDS:
            if value is not None and not callable(value):
                raise ConfigError(f"{name}={value!r} cannot be called; give a function")
        elif not isinstance(value, _KINDS[name][0]):
            raise ConfigError(f"{name} is a {type(value).__name__}; give {_KINDS[name][1]}")


def _with_epochs(settings: Settings, epochs: int | None) -> Settings:
    """The settings with the epochs that are asked for; ConfigError where they name others."""
    told = given_settings(settings, None)
    if epochs is None:
        return settings
    if str(told.get("train.epochs", epochs)) not in (str(epochs), f"{float(epochs)}"):
        raise ConfigError(f"epochs are {epochs} and train.epochs is {told['train.epochs']}; give one of them")
    # in front: a number of steps among the settings counts, one of a file or of a plan does not
    return [{"train.epochs": epochs, "train.iterations": 0}, *changes_of(settings)]


@dataclass(frozen=True)
class _Asked:
    """What `train` was asked for; see there."""

    data: str | Path | DataSource | Dataset | Mapping[str, Dataset] | None
    val: str | Path | Dataset | None
    split: str | None
    holdout: float | None
    strict: bool
    quiet: bool
    model: str | Config | None
    settings: Settings
    config: str | Path | None
    dialect: str | None
    init: str | Path | None
    device: str
    budget: Budget | None

    def of_the_run(self) -> _Asked:
        """The same for a run that has begun, whose folder says what it was asked for then."""
        return replace(self, model=None, holdout=None, config=None, dialect=None, init=None, budget=None)

    def check_resume(self, model: str, split: str | None) -> None:
        """FcosError for what a run with this model and split has settled otherwise."""
        settled = {"model": model, "init": None, "config": None, "dialect": None, "holdout": None}
        for name, has in {**settled, **({"split": split} if self.data is None else {})}.items():
            if getattr(self, name) not in (None, has):
                told = f" ({has})" if has is not None else ""
                raise FcosError(
                    f"--{name} was settled when the run began{told} and cannot go with --resume; leave it out"
                )

    def resolved(self, preset: str | None, planned: Settings = ()) -> Config:
        """The config that is asked for, of `preset` where no model is; `planned` settings stand below the user's."""
        changes = [*changes_of(planned), *changes_of(self.settings)]
        return config_of(self.model or preset, changes, self.dialect, self.config)


@dataclass(frozen=True)
class _Ready:
    """A run that can begin or go on. lines: to tell first. equal: the command that does the same in a number of steps;
    None where none were planned, or where the run goes on otherwise."""

    config: Config
    source: NamedData
    chosen: Chosen
    folder: Path
    start: Start
    lines: Sequence[str]
    deadline: Deadline | None = None
    equal: Callable[[int], str] | None = None


def _resumed(asked: _Asked, out: str | Path | None, url: str | None) -> _Ready:
    out = begin_away(url, resume=True) if url is not None else out
    folder = Path(out) if out is not None else latest_folder(Path("runs"))
    given = given_settings(asked.settings, None)
    stored, rows = load_checkpoint(folder), RunFolder(folder, write=False).rows()
    before = from_dict(stored["config"], stored["file"])
    asked.check_resume(before.name, _stored_split(folder))
    longer = lengthened(stored, changes_of(asked.settings), given, asked.budget, rows)
    source, held = _source_of(folder, asked)
    chosen = choose(source, longer.config, held, resumed=True)
    as_planned = longer.config == before and all(one is None for one in (asked.budget, asked.data, asked.val))
    equal = partial(with_steps, folder / COMMAND) if as_planned and (folder / COMMAND).is_file() else None
    return _Ready(longer.config, source, chosen, folder, Start(None, ""), longer.lines, longer.deadline, equal=equal)


def _begun(asked: _Asked, out: str | Path | None, url: str | None) -> _Ready:
    if asked.model is None and asked.config is not None:
        asked = replace(asked, model=named_in(load_yaml(Path(asked.config))))
    if asked.data is None:
        raise DataError("give the data set to learn from: fcos train DATA")
    source = NamedData(asked.data, asked.val, asked.split, asked.holdout, asked.strict, asked.quiet)
    config = asked.resolved(None)
    out = begin_away(url, resume=False) if url is not None else out
    check_folder(Path(out) if out is not None else None)
    _check_apart(out, source)
    config = without_learned(config, given_settings(asked.settings, None))
    chosen = choose(source, config)
    check_data(chosen.data)
    init = None if asked.init is None else str(asked.init)
    planned: Prepared | None = None
    if asked.budget is not None:
        model = asked.model.name if isinstance(asked.model, Config) else asked.model
        given = {**settled_by(asked.model, asked.dialect), **given_settings(asked.settings, asked.config)}

        def with_plan(name: str, changes: Mapping[str, object]) -> Config:
            made = asked.resolved(name, {key: value for key, value in changes.items() if key not in given})
            return without_learned(made, given_settings(asked.settings, None))

        planned = prepare(Wish(asked.budget, given, model, asked.device, init), with_plan, chosen.data)
    start = planned.start if planned else start_for(config, chosen.data["train"], init, asked.device)
    config = with_learned_sizes(planned.config if planned else config, chosen.data["train"])
    folder = Path(out) if out is not None else next_folder(Path("runs"), f"{config.name}-{_stem(source.data)}")
    if planned is None:
        usual = config_of(asked.model, (), asked.dialect, asked.config)
        told = told_sizes(usual, config, given_settings(asked.settings, None))
        return _Ready(config, source, chosen, folder, start, [*told, *start.lines()])
    equal = partial(_equal_command, asked, source, planned)
    return _Ready(config, source, chosen, folder, start, planned.lines, planned.deadline, equal)


def _equal_command(asked: _Asked, source: NamedData, planned: Prepared, steps: int) -> str:
    told = {"init": planned.start.init, "config": asked.config, "dialect": asked.dialect}
    words = data_words(source, asked.model or planned.config.name, told)
    own = settled_by(asked.model, None) if isinstance(asked.model, Config) else {}
    chosen = {**own, **planned.plan.settings, **given_settings(asked.settings, None)}
    return command(words, {**chosen, "train.iterations": steps})


def _check_apart(out: str | Path | None, source: NamedData) -> None:
    """DataError where the run would lie right in its data: its plots would be images to learn from."""
    if out is None or not isinstance(source.data, str | Path | DataSource):
        return
    data = DataSource.of(source.data).path
    if real(Path(out)) == real(data):
        raise DataError(f"--out {out} is the data set itself; name a folder for the run")


def _stored_split(folder: Path) -> str | None:
    """The splits that the run in `folder` learns from, where it was told which and remembers it."""
    try:
        split: str | None = stored_sources(folder)["split"]
    except DataError:
        return None
    return split


def _source_of(folder: Path, asked: _Asked) -> tuple[NamedData, list[str] | None]:
    """Where the run in `folder` has its data, and what it held out; what is asked for now goes first."""
    data, val, split = asked.data, asked.val, asked.split
    try:
        stored = stored_sources(folder)
    except DataError:
        if data is None:
            raise
        stored = {}
    if data is None:
        data = stored_data(stored, folder, f"fcos train --resume --out {folder} --data DATA")
    split = stored.get("split") if split is None else split
    if val is None and (before := stored.get("val")) is not None:
        check_there(before, folder, f"fcos train --resume --out {folder} --val DATA")
        val = before
    if val is None and stored.get("judged_by") is not None:
        raise DataError(f"the run in {folder} was judged by a Dataset of Python; pass it again, as val")
    return NamedData(data, val, split, strict=asked.strict), stored.get("held_out")


def _stem(data: str | Path | DataSource | Dataset | Mapping[str, Dataset]) -> str:
    """What the run is called after its data."""
    if isinstance(data, Mapping):
        data = next(iter(data.values()))
    return (data.root if isinstance(data, Dataset) else DataSource.of(data).path).resolve().stem
