"""The folder of a search: Optuna's journal, a run folder for each trial, the report. Several processes may use it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import FcosError
from ..system.locks import Lock
from .tuned import Tried, Tuned

if TYPE_CHECKING:
    import optuna
    from optuna.storages.journal import JournalFileBackend

_FIRST = 5  # whole trials before one is given up
_FEW = 10  # whole trials below which nothing is said about what mattered
_STUDY = "fcos"


class Folder:
    """The folder of a search, which several processes may use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FcosError(f"cannot write into {path}: {error.strerror or error}") from error
        self._lock = Lock(path / "tune.lock")
        with self.alone():
            _mend(path / "trials.log")
            try:
                self.study = _open(path / "trials.log")
            except (ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
                raise FcosError(
                    f"{path / 'trials.log'} is damaged ({error}); give another --out, or move the file away"
                ) from error

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

    def ask(self) -> optuna.Trial:
        """The next trial, without its settings yet. Call `alone`: proposals depend on the trials so far and on nothing
        else, so that two processes never draw the same."""
        self.study.sampler = _sampler(len(self.study.get_trials(deepcopy=False)))
        return self.study.ask()

    def hold(self, number: int) -> Lock | None:
        """The lock of a trial, which ends with the process that does it; None where one does it now."""
        lock = Lock(self.path / f".trial-{number:04d}.lock")
        return lock if lock.take() else None

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
            lock.remove()
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


def _backend(path: Path) -> JournalFileBackend:
    from optuna.storages import journal

    class OneWriter(journal.JournalFileOpenLock):
        """The system's lock: that of a killed process is free at once."""

        def __init__(self, name: str) -> None:
            super().__init__(name)
            self._held = _lock_of(name)

        def acquire(self) -> bool:
            return self._held.take(None)

        def release(self) -> None:
            self._held.release()

    class Backend(journal.JournalFileBackend):
        """An error of the disk has the file's name."""

        def append_logs(self, logs: list[dict[str, Any]]) -> None:
            try:
                super().append_logs(logs)
            except OSError as error:
                reason = error.strerror or error
                raise FcosError(f"cannot write {path}: {reason}; make room, then the same command goes on") from error

    return Backend(str(path), lock_obj=OneWriter(str(path)))


def _lock_of(path: Path | str) -> Lock:
    return Lock(Path(f"{path}.lock"))


def _mend(path: Path) -> None:
    """Cut off the half line that a killed process or a full disk left at the end of a journal."""
    with _lock_of(path):
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
