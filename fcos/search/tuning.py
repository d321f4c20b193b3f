"""`fcos tune`: many short runs of `fcos train --minutes`, each with other settings, chosen by Optuna; for a night.

Everything is kept in one folder: trials.log (Optuna's journal), a run folder for each trial, the report. Several
processes may work in it at once, and any of them may be killed: what a dead one was at is done again.
"""

from __future__ import annotations

import gc
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch

from ..config import Config
from ..errors import ConfigError, DataError, FcosError, require
from ..evaluation.coco import Metrics
from ..system.environment import COMMAND, HASHES, check_same, data_hashes
from ..system.files import check_folder
from ..system.machine import is_out_of_memory
from ..system.stop import Stopped
from ..system.terminal import clock, plural
from ..training.clock import Budget
from ..training.data import NamedData, choose
from ..training.equal_command import data_words
from ..training.given_settings import given_settings
from ..training.planning.minutes import Wish, check, prepare
from ..training.program import train
from ..training.run import Result
from . import space as spaces
from .journal import Folder
from .tuned import Tuned

_TRIALS = 24  # that the hours are divided into, where nobody says how long one takes
_FEWEST_MINUTES = 3.0  # of a trial then
_USUAL_MINUTES = 10.0  # of a trial where only their number is given
_LOOKS = 4  # times at most that a trial is judged, each of which may give it up
_LOOKING = 0.1  # share of a trial's time that may go into that
_WRONG = 3  # trials in a row that end in an error end the search
_REST = 10.0  # seconds kept for the report
_RENEW = 20.0  # seconds at least between two reports
_BARE = ("train.plots=false", "train.keep=weights")  # of a trial, not of the command that comes out


class Hopeless(Exception):
    """Raised inside a trial that is given up: others were better at this time."""


@dataclass(frozen=True)
class Search:
    """What is asked for. `words`: settings, those with a range (`train.lr=1e-4..1e-2`, `train.batch='4|8'`) are what is
    searched; without any, the usual ones. `minutes`: of a trial; `hours`, counted from the start of the process, or
    `trials`, how many the folder shall have, end it. model, init, device: as of `fcos.train`."""

    source: NamedData
    words: list[str] = field(default_factory=list)
    model: str | None = None
    init: str | None = None
    hours: float | None = None
    minutes: float | None = None
    trials: int | None = None
    device: str = "auto"


class Learn(Protocol):
    """How a trial learns: `fcos.train` with its data and time, or what a test puts in its place."""

    def __call__(
        self, out: Path, settings: list[str], minutes: float, on_epoch: Callable[[float, Metrics | None], object]
    ) -> Result: ...


def tune(search: Search, out: Path, tell: Callable[[str], object], learn: Learn | None = None) -> Tuned:
    """Search in the folder `out` until the time is up or the trials are done; what is there already counts.

    `tell` gets a line for each trial. Raises ConfigError for ranges that no config can have, for a search that differs
    from the one in the folder, in its data too, and where there is no time for two trials; MissingExtra without Optuna.
    """
    for module in ("optuna", "sklearn"):  # which Optuna needs to say what mattered
        require(module, "tune")
    if search.hours is None and search.trials is None:
        raise ConfigError("give the time that it may take, such as --hours 6, or --trials 20")
    budget = None if search.hours is None else Budget.of_process(search.hours * 60)
    check_folder(out)
    folder = Folder(out)
    with folder.alone():
        about = folder.about()
        if about:
            _same(about, search, out)
        else:
            try:
                about = folder.begin(begin(search))
            except BaseException:
                folder.leave()
                raise
    plan = Trials(search, folder, about, tell, learn or _learn(search, about["model"]))
    tell(plan.head())
    wrong: list[FcosError] = []
    drawn = time.monotonic()
    while plan.next_fits(budget):
        error = plan.one()
        wrong = [*wrong, error] if error is not None else []
        if len(wrong) >= _WRONG:
            raise wrong[-1]
        if time.monotonic() - drawn > _RENEW:
            folder.report()
            drawn = time.monotonic()
    return folder.report()


def begin(search: Search) -> dict[str, Any]:
    """What a fresh search settles for all its processes: the plan that it starts from, and what may change."""
    space, fixed = spaces.sort_ranges(search.words)
    hours = search.hours
    minutes = search.minutes
    if minutes is None:
        minutes = _USUAL_MINUTES if hours is None else max(_FEWEST_MINUTES, hours * 60 / _TRIALS)
    if hours is not None and hours * 60 < 2 * minutes:
        raise ConfigError(f"in {hours:g} hours there is no time for two trials of {minutes:g} minutes; give more")
    base = _config(search, fixed)
    check(minutes, {**given_settings(fixed, None), **space}, 1)
    for settings in spaces.ends(space):
        base.override(*settings, source="--set")
    data = choose(search.source, base).data
    if "val" not in data or not data["val"].counts().sum():
        raise DataError(f"{data['train'].root}: nothing to judge by; give --holdout 0.1 or --val")
    given = given_settings(fixed, None)
    wish = Wish(Budget(minutes, time.monotonic()), given, search.model, search.device, search.init)

    def resolved(preset: str, changes: Mapping[str, object]) -> Config:
        words = [f"{key}={value}" for key, value in changes.items() if key not in given]
        return _config(search, [*words, *fixed], preset)

    planned = prepare(wish, resolved, data)
    space = space or spaces.usual(planned.config, given)
    looks = int(max(1, min(_LOOKS, _LOOKING * minutes * 60 / max(planned.judging, 1e-9))))
    epochs = planned.config.train.iterations * planned.config.train.batch / max(len(data["train"]), 1)
    return {
        "asked": _asked(search),
        HASHES: _hashes(search),
        "minutes": minutes,
        "model": planned.config.name,
        "fixed": fixed,
        "space": {key: str(what) for key, what in space.items()},
        "start": spaces.start(space, planned.config),
        "every": max(1, round(epochs / looks)),
        "tail": planned.plan.tail,
        "judged": len(data["val"]),
        "words": data_words(search.source, planned.config.name, {"init": search.init}),
    }


def _config(search: Search, settings: list[str], preset: str | None = None) -> Config:
    from ..presets import resolve

    return resolve(search.model or preset, settings)


def _asked(search: Search) -> dict[str, Any]:
    """What two calls for one folder must agree in."""
    stored = search.source.stored()
    told = {"data": stored["data"], "val": stored["val"], "split": search.source.split,
            "holdout": search.source.holdout, "model": search.model, "init": search.init}  # fmt: skip
    return {**told, "settings": sorted(search.words)}


def _same(about: Mapping[str, Any], search: Search, out: Path) -> None:
    stored = {**about["asked"], "minutes": about["minutes"]}
    check_same(
        out,
        "a search",
        stored,
        {**_asked(search), "minutes": about["minutes"] if search.minutes is None else search.minutes},
    )
    check_same(out, "a search", about, {HASHES: _hashes(search)})


def _hashes(search: Search) -> dict[str, str]:
    """Of the data, before anything is held out of it: which images that are follows from them and the settings."""
    _, fixed = spaces.sort_ranges(search.words)
    return data_hashes(choose(replace(search.source, holdout=0), _config(search, fixed)).data)


def _learn(search: Search, model: str) -> Learn:
    """By `fcos.train`, the model that the search chose when it began."""
    source = search.source

    def learn(
        out: Path, settings: list[str], minutes: float, on_epoch: Callable[[float, Metrics | None], object]
    ) -> Result:
        return train(
            source.data,
            val=source.val,
            split=source.split,
            holdout=source.holdout,
            model=model,
            init=search.init,
            out=out,
            settings=settings,
            minutes=minutes,
            device=search.device,
            quiet=True,
            on_epoch=on_epoch,
        )

    return learn


class Trials:
    """Run trials one after another in this process."""

    def __init__(
        self, search: Search, folder: Folder, about: dict[str, Any], tell: Callable[[str], object], learn: Learn
    ) -> None:
        self.search, self.folder, self.tell, self.learn = search, folder, tell, learn
        self.minutes: float = about["minutes"]
        self.fixed: list[str] = about["fixed"]
        self.every: int = about["every"]
        self.learning: float = max(1.0, 60 * self.minutes - about["tail"])  # seconds until a trial's last step, about
        self.space = spaces.sort_ranges([f"{key}={text}" for key, text in about["space"].items()])[0]
        self.model: str = about["model"]

    def head(self) -> str:
        """What is about to happen, in a line."""
        done = len([t for t in self.folder.tried() if t.state in ("whole", "given up")])
        before = f", {plural(done, 'trial')} done" if done else ""
        return f"{plural(len(self.space), 'setting')} to search, {self.minutes:g} minutes a trial{before}"

    def next_fits(self, budget: Budget | None) -> bool:
        """Whether another trial is wanted and ends in time."""
        most = self.search.trials
        if most is not None:
            with self.folder.alone():
                self.bury()
                if len([t for t in self.folder.tried() if t.state not in ("waiting", "cut off")]) >= most:
                    return False
        return budget is None or budget.left >= self.minutes * 60 + _REST

    def bury(self) -> None:
        """Do again what dead processes were at; the folder is held."""
        for number in self.folder.bury():
            self.tell(f"trial {number} was cut off; it is done again")

    def one(self) -> FcosError | None:
        """Choose settings, learn, and tell how it went; the error it ended in, if so."""
        import optuna

        study, folder = self.folder.study, self.folder
        with folder.alone():
            self.bury()
            trial = folder.ask()
            lock = folder.hold(trial.number)
            values = spaces.draw(self.space, trial)
        assert lock is not None  # nobody else knows the number yet
        chosen = spaces.words(values)
        settings = [*_BARE, f"train.eval_every={self.every}", *self.fixed, *chosen]  # the last of a name counts
        trial.set_user_attr("chosen", chosen)
        began = time.monotonic()

        def look(epoch: float, metrics: Metrics | None) -> None:
            """Give the trial up where others were better at the same time."""
            at = round(_LOOKS * (time.monotonic() - began) / self.learning)
            if metrics is None or at >= _LOOKS:
                return
            trial.report(metrics.ap, at)
            if trial.should_prune():
                raise Hopeless

        error: FcosError | None = None
        state, ap = optuna.trial.TrialState.COMPLETE, None
        try:
            result = self.learn(folder.trial(trial.number), settings, self.minutes, look)
            ap = float("nan") if result.metrics is None else result.metrics.ap
            trial.set_user_attr("interval", None if result.interval is None else result.interval.to_dict())
            trial.set_user_attr("command", _command(folder.trial(trial.number), self.fixed))
        except Hopeless:
            state = optuna.trial.TrialState.PRUNED
        except Stopped as stopped:
            raise Stopped("stopped; the same command goes on, and does the trial again", stopped.code - 128) from None
        except (FcosError, RuntimeError, MemoryError) as reason:
            error = _said(reason)
            trial.set_user_attr("error", str(error))
            state = optuna.trial.TrialState.PRUNED  # which counts as bad; a failed one would be forgotten
        trial.set_user_attr("seconds", round(time.monotonic() - began, 1))
        if ap is not None and ap != ap:
            ap = 0.0
        study.tell(trial, ap, state=state)
        with folder.alone():
            lock.remove()
            folder.lighten()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        self.tell(self._line(trial.number, chosen))
        return error

    def _line(self, number: int, chosen: list[str]) -> str:
        tried = self.folder.tried()
        this = next(t for t in tried if t.number == number)
        best = max((t for t in tried if t.state == "whole"), key=lambda t: t.ap, default=None)
        record = "" if best is None else ("  the best so far" if best == this else f"  (best {best.ap:.3f})")
        if this.state == "whole":
            how = f"AP {this.ap:.3f}{record}"
        else:
            at = f" at AP {max(this.looks.values()):.3f}" if this.looks else ""
            how = this.error or f"given up{at}{record}"
        return f"trial {number}  {clock(this.seconds)}  {how}  {' '.join(chosen)}"


def _said(reason: Exception) -> FcosError:
    """What a trial ended in, as one line; what is no matter of settings is raised again."""
    if isinstance(reason, FcosError):
        return reason
    if is_out_of_memory(reason):
        return FcosError("there was not enough memory")
    raise reason


def _command(folder: Path, fixed: Sequence[str]) -> str:
    """The explicit command of a trial, without what only trials want."""
    path = folder / COMMAND
    words = shlex.split(path.read_text(encoding="utf-8")) if path.is_file() else []
    return shlex.join(word for word in words if word not in _BARE or word in fixed)
