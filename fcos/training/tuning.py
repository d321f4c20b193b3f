"""`fcos tune`: many short runs of `fcos train --minutes`, each with other settings, chosen by Optuna; for a night.

Everything is kept in one folder: trials.log (Optuna's journal), a run folder for each trial, the report. Several
processes may work in it at once, and any of them may be killed: what a dead one was at is done again.
"""

from __future__ import annotations

import gc
import os
import shlex
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from filelock import FileLock, Timeout

from ..config import Config
from ..errors import ConfigError, DataError, FcosError, require
from ..evaluation.coco import Metrics
from ..files import check_folder
from ..terminal import clock, plural
from . import space as spaces
from .clock import Budget
from .data import Source, choose
from .minutes import Wish, check, prepare
from .program import data_words, given_settings, train
from .run import Result
from .stop import Stopped
from .tuned import Tried, Tuned

if TYPE_CHECKING:
    import optuna

_TRIALS = 24  # that the hours are divided into, where nobody says how long one takes
_FEWEST_MINUTES = 3.0  # of a trial then
_USUAL_MINUTES = 10.0  # of a trial where only their number is given
_LOOKS = 4  # times at most that a trial is judged, each of which may give it up
_LOOKING = 0.1  # share of a trial's time that may go into that
_FIRST = 5  # whole trials before one is given up
_FEW = 10  # whole trials below which nothing is said about what mattered
_WRONG = 3  # trials in a row that end in an error end the search
_REST = 10.0  # seconds kept for the report
_RENEW = 20.0  # seconds at least between two reports
_STUDY = "fcos"
_BARE = ("train.plots=false", "train.keep=weights")  # of a trial, not of the command that comes out


class Hopeless(Exception):
    """Raised inside a trial that is given up: others were better at this time."""


@dataclass(frozen=True)
class Search:
    """What is asked for. `words`: settings, those with a range (`train.lr=1e-4..1e-2`, `train.batch='4|8'`) are what is
    searched; without any, the usual ones. `minutes`: of a trial; `hours`, counted from the start of the process, or
    `trials`, how many the folder shall have, end it. model, init, device: as of `fcos.train`."""

    source: Source
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
    from the one in the folder, and where there is no time for two trials; MissingExtra without Optuna.
    """
    for module in ("optuna", "sklearn"):  # which Optuna needs to say what mattered
        require(module, "tune")
    if search.hours is None and search.trials is None:
        raise ConfigError("how long may it take? give --hours 6, or --trials 20")
    budget = None if search.hours is None else Budget.of_process(search.hours * 60)
    check_folder(out)
    folder = Folder(out)
    with folder.alone():
        about = folder.about()
        try:
            about = about or folder.begin(begin(search))
        except BaseException:
            folder.leave()
            raise
        _same(about, search, out)
    plan = Trials(search, folder, about, tell, learn or _learn(search))
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
    minutes = search.minutes or (_USUAL_MINUTES if hours is None else max(_FEWEST_MINUTES, hours * 60 / _TRIALS))
    if hours is not None and hours * 60 < 2 * minutes:
        raise ConfigError(f"in {hours:g} hours there is no time for two trials of {minutes:g} minutes; give more")
    base = _config(search, fixed)
    check(minutes, given_settings(fixed, None), 1)
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


def _config(search: Search, settings: list[str], preset: str = "fcos-lite0") -> Config:
    from ..presets import resolve

    return resolve(search.model or preset, settings)


def _asked(search: Search) -> dict[str, Any]:
    """What two calls for one folder must agree in."""
    stored = search.source.stored()
    told = {"data": stored["data"], "val": stored["val"], "split": search.source.split,
            "holdout": search.source.holdout, "model": search.model, "init": search.init}  # fmt: skip
    return {**told, "settings": sorted(search.words)}


def _same(about: Mapping[str, Any], search: Search, out: Path) -> None:
    asked = {**_asked(search), "minutes": search.minutes or about["minutes"]}
    stored = {**about["asked"], "minutes": about["minutes"]}
    differs = [key for key, value in asked.items() if value != stored.get(key)]
    if differs:
        was, now = stored.get(differs[0]), asked[differs[0]]
        raise ConfigError(f"{out} holds a search with {differs[0]} {was}, not {now}; give another --out, or the same")


def _learn(search: Search) -> Learn:
    source = search.source

    def learn(
        out: Path, settings: list[str], minutes: float, on_epoch: Callable[[float, Metrics | None], object]
    ) -> Result:
        return train(
            source.data,
            val=source.val,
            split=source.split,
            holdout=source.holdout,
            model=search.model,
            init=search.init,
            out=out,
            settings=settings,
            minutes=minutes,
            device=search.device,
            quiet=True,
            on_epoch=on_epoch,
        )

    return learn


class Folder:
    """The folder of a search, which several processes may use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FcosError(f"cannot write into {path}: {error.strerror or error}") from error
        self._lock = FileLock(path / "tune.lock")
        with self.alone():
            _mend(path / "trials.log")
            self.study = _open(path / "trials.log")

    @contextmanager
    def alone(self) -> Iterator[None]:
        """No other process chooses or cleans up meanwhile; the lock of a dead one is free."""
        with self._lock:
            yield

    def about(self) -> dict[str, Any]:
        """What `begin` settled; empty where nobody has."""
        return dict(self.study.user_attrs.get("about", {}))

    def leave(self) -> None:
        """Nothing was begun: nothing stays."""
        for name in ("trials.log", "trials.log.lock", "tune.lock"):
            (self.path / name).unlink(missing_ok=True)
        with suppress(OSError):
            self.path.rmdir()

    def begin(self, about: dict[str, Any]) -> dict[str, Any]:
        """Keep it, and let the first trial be the plan's own settings."""
        self.study.enqueue_trial(about["start"])
        self.study.set_user_attr("about", about)
        return about

    def trial(self, number: int) -> Path:
        """The run folder of a trial."""
        return self.path / f"trial-{number:04d}"

    def hold(self, number: int) -> FileLock | None:
        """The lock of a trial, which ends with the process that does it; None where one does it now."""
        lock = FileLock(self.path / f".trial-{number:04d}.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            return None
        return lock

    def let_go(self, lock: FileLock) -> None:
        """The trial is done."""
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()

    def bury(self) -> list[int]:
        """The trials of processes that are no more: each is closed, and its settings are tried again. Call `alone`."""
        import optuna

        dead = []
        for trial in self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            lock = self.hold(trial.number)
            if lock is None:
                continue
            values = trial.params or trial.system_attrs.get("fixed_params", {})
            self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL)
            if values:
                self.study.enqueue_trial(values)
            dead.append(trial.number)
            self.let_go(lock)
        return dead

    def lighten(self) -> None:
        """Keep the weights of the best trial; of the others, what a person may want to read. Call `alone`."""
        tried = self.tried()
        best = max((t for t in tried if t.state == "whole"), key=lambda t: t.ap, default=None)
        for one in tried:
            if one.state not in ("running", "waiting") and one != best:
                for pattern in ("*.safetensors", "*.pt"):
                    for path in self.trial(one.number).glob(pattern):
                        path.unlink(missing_ok=True)

    def tried(self) -> list[Tried]:
        """All trials so far."""
        return [_tried(t) for t in self.study.get_trials(deepcopy=False)]

    def report(self) -> Tuned:
        """tune.html and command.txt as things are."""
        about = self.about()
        found = Tuned(self.path, about, tuple(self.tried()), _importances(self.study))
        with self.alone():
            found.write()
        return found


class Trials:
    """Doing them, one after another, in this process."""

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
            study.sampler = _sampler(len(study.get_trials(deepcopy=False)))
            trial = study.ask()
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
            folder.let_go(lock)
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
    if isinstance(reason, MemoryError) or "out of memory" in str(reason) or "allocate memory" in str(reason):
        return FcosError("there was not enough memory")
    raise reason


def _command(folder: Path, fixed: Sequence[str]) -> str:
    """The explicit command of a trial, without what only trials want."""
    path = folder / "command.txt"
    words = shlex.split(path.read_text(encoding="utf-8")) if path.is_file() else []
    return shlex.join(word for word in words if word not in _BARE or word in fixed)


# --------------------------------------------------------------------------- Optuna


def _open(path: Path) -> optuna.Study:
    import optuna
    from optuna.storages import JournalStorage

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", module="optuna")
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    # given up: what is below the median of the whole trials, from the second quarter of its time on
    pruner = optuna.pruners.MedianPruner(n_startup_trials=_FIRST, n_warmup_steps=2)
    return optuna.create_study(
        study_name=_STUDY,
        storage=JournalStorage(_backend(path)),
        direction="maximize",
        load_if_exists=True,
        pruner=pruner,
        sampler=_sampler(0),
    )


def _sampler(number: int) -> optuna.samplers.BaseSampler:
    """Proposals depend on the trials so far and on nothing else: two processes never draw the same."""
    import optuna

    return optuna.samplers.TPESampler(multivariate=True, constant_liar=True, n_startup_trials=8, seed=number)


def _backend(path: Path) -> Any:
    from optuna.storages import journal

    class Lock(journal.JournalFileOpenLock):
        """The system's lock: that of a killed process is free at once."""

        def __init__(self, name: str) -> None:
            super().__init__(name)
            self._held = FileLock(f"{name}.lock")

        def acquire(self) -> bool:
            self._held.acquire()
            return True

        def release(self) -> None:
            self._held.release()

    return journal.JournalFileBackend(str(path), lock_obj=Lock(str(path)))


def _mend(path: Path) -> None:
    """Cut off the half line that a killed process or a full disk left at the end of a journal."""
    with FileLock(f"{path}.lock"):
        if not path.is_file():
            return
        data = path.read_bytes()
        if data and not data.endswith(b"\n"):
            with path.open("r+b") as file:
                file.truncate(data.rfind(b"\n") + 1)
                os.fsync(file.fileno())


def _tried(trial: optuna.trial.FrozenTrial) -> Tried:
    kinds = {"COMPLETE": "whole", "PRUNED": "given up", "RUNNING": "running", "WAITING": "waiting", "FAIL": "cut off"}
    about = trial.user_attrs
    return Tried(
        number=trial.number,
        state="failed" if about.get("error") else kinds[trial.state.name],
        ap=float(trial.value) if trial.value is not None else float("nan"),
        values=dict(trial.params),
        looks=dict(trial.intermediate_values),
        interval=about.get("interval"),
        command=about.get("command", ""),
        error=about.get("error", ""),
        seconds=float(about.get("seconds", 0.0)),
    )


def _importances(study: optuna.Study) -> dict[str, float]:
    """How much each setting decided, 0..1, together 1; empty where too few trials were whole to say."""
    import optuna
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances

    whole = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    if len(whole) < _FEW or len({t.value for t in whole}) < 2:
        return {}
    try:
        shares = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    except (ValueError, RuntimeError):  # settings that never differed
        return {}
    return {key: float(value) for key, value in shares.items() if value == value}
