"""A run folder that a person can read: config.yaml, environment.json, metrics.csv, weights, images."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from errno import ENOLCK, EOPNOTSUPP
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...config import Config
from ...errors import DataError, FcosError, require
from ...system.environment import CONFIG_FILE, RESULT, RUN_FILE, data_facts, hashes_in
from ...system.files import disk_reason, is_there, own, sweep, write_whole
from ...system.locks import Lock
from ...system.readers import read_json, read_lines, read_text

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger

    from ...data.dataset import Dataset


_BY_LEVEL = "positives_by_level"  # several numbers in a cell, "12 5 0"
COLUMNS = (
    "step", "epoch", "lr", "loss", "classification", "box", "centerness", "centerness_excess", "mean_iou",
    "positives", _BY_LEVEL, "ambiguous", "grad_norm", "images_per_second", "data_wait", "val_loss",
    "AP", "AP50", "AP75",
)  # fmt: skip


def _hold(path: Path, what: str) -> Lock | None:
    """The lock of a folder, made where it is not there, which ends with this process; None where the file system has no
    locks. FcosError where another process has it."""
    lock = Lock(path / f"{what}.lock")
    try:
        free = lock.take()
    except OSError as error:
        if error.errno in (ENOLCK, EOPNOTSUPP):  # as a network disk says it
            return None
        raise FcosError(f"cannot write into {path}: {error.strerror or error}") from error
    if not free:
        raise FcosError(f"another {what} is writing into {path}; wait for its end, or give another --out")
    return lock


def _let_go(lock: Lock | None) -> None:
    if lock is not None:
        lock.remove()


@contextmanager
def alone(path: Path, what: str) -> Iterator[None]:
    """No other process makes a `what` of several runs in the folder meanwhile; errors as `RunFolder.hold`."""
    lock = _hold(path, what)
    try:
        yield
    finally:
        _let_go(lock)


class RunFolder:
    """The files of one training run. Only the first process writes."""

    def __init__(self, path: Path, *, write: bool = True) -> None:
        self.path = path
        self.write = write
        self._metrics = path / "metrics.csv"
        self._alarms = path / "alarms.txt"
        self._loggers: list[Logger] = []
        self._logged: dict[str, int] = {}  # last step of each number that the logs have already
        self._resumed = False
        self._lock: Lock | None = None

    def hold(self) -> None:
        """Keep other runs out of the folder until `release` or the end of this process; FcosError when one is in it."""
        if not self.write:
            return
        self._lock = _hold(self.path, "run")
        if self._lock is not None and holds_run(self.path):
            own(self.path)  # to be resumed: its files are read, and go on

    def release(self) -> None:
        """Let other runs in."""
        _let_go(self._lock)
        self._lock = None

    def start(self, environment: Mapping[str, Any]) -> None:
        """Make the folder; FcosError when another run is in it. `describe` makes it a run, once it can be resumed."""
        if not self.write:
            return
        check_free(self.path)
        write_whole(self.path / RUN_FILE, json.dumps(environment, indent=1))
        write_whole(self._metrics, ",".join(COLUMNS) + "\n")

    def moved(self, sources: Mapping[str, Any], data: Mapping[str, Dataset]) -> None:
        """Remember where the data is from now on, where a run that goes on is given others."""
        file = self.path / RUN_FILE
        if not self.write or not file.is_file() or "data" not in sources:  # which a study does not tell
            return
        try:
            stored = read_json(file, kind=DataError)
        except DataError:  # nobody can read it, and the run goes on all the same
            return
        if not isinstance(stored, dict):
            return
        facts, now = data_facts(data), dict(sources)
        before = stored.get("sources")
        if (
            now["data"] is None
            and isinstance(before, dict)
            and hashes_in(stored).get("train") == facts["train"]["sha256"]
        ):
            now = {**before, **{key: now.get(key) for key in ("val", "judged_by", "held_out") if key in now}}
        if before != now:
            write_whole(file, json.dumps({**stored, "sources": now, "data": facts}, indent=1))

    def val_hash(self) -> str | None:
        """That of the images that the run was judged by, as `start` and `moved` have noted it."""
        try:
            return hashes_in(read_json(self.path / RUN_FILE, kind=DataError)).get("val")
        except DataError:
            return None

    def describe(self, config: Config) -> None:
        """Write config.yaml and open the logs of `train.logger`; remove what a killed process left half written."""
        if self.write:
            if config.train.logger:
                from .loggers import open_loggers

                self._loggers = open_loggers(config.train.logger, self.path, config, self._resumed)
            write_whole(self.path / CONFIG_FILE, config.dump())
            sweep(self.path)

    def record(self, row: Mapping[str, Any], alarms: Sequence[str] = ()) -> None:
        """Append one row to metrics.csv; unknown numbers stay empty. FcosError when the disk is full.

        Alarms that came on with it are appended to alarms.txt.
        """
        if not self.write:
            return
        if alarms:
            lines = [*self.alarms(), *(f"step {row['step']}: {alarm}" for alarm in alarms)]
            write_whole(self._alarms, "".join(f"{line}\n" for line in lines))
        text = io.StringIO()
        values = {k: f"{v:.6g}" if isinstance(v, float) else v for k, v in row.items()}
        csv.DictWriter(text, COLUMNS, lineterminator="\n").writerow(values)
        try:
            with self._metrics.open("a") as file:
                file.write(text.getvalue())
        except OSError as error:
            raise FcosError(f"cannot write {self._metrics}: {disk_reason(error)}") from error
        if self._loggers:
            self._log(row)

    def _log(self, row: Mapping[str, Any]) -> None:
        from .loggers import scalars

        step = int(row["step"])
        named = {k: v for k, v in scalars(row).items() if step > self._logged.get(k, -1)}
        for logger in self._loggers if named else ():
            logger.log_metrics(named, step)
            logger.save()

    def close(self) -> None:
        """End the logs; an exception on its way is told to them."""
        for logger in self._loggers:
            logger.finalize("success" if sys.exception() is None else "failed")
        self._loggers = []

    def rewind(self, step: int, judged: bool = True) -> None:
        """Drop rows of metrics.csv past `step`, so that a resumed run has none twice, and half a row at the end.
        Without `judged` earlier rows lose their AP and validation loss too, which were measured on other images."""
        if not self.write:
            return
        from .loggers import scalars

        rows = [r for r in self.rows() if r["step"].isdigit()]
        self._resumed = True
        steps = [_whole_number(row.get("step", "")) for row in rows]
        (self.path / RESULT).unlink(missing_ok=True)
        for row, at in zip(rows, steps, strict=True):
            self._logged |= dict.fromkeys(scalars(row), at) if at is not None else {}
        kept = [row for row, at in zip(rows, steps, strict=True) if at is not None and at <= step]
        for row in () if judged else kept:
            row.update(dict.fromkeys(("val_loss", "AP", "AP50", "AP75"), ""))
        text = io.StringIO()
        writer = csv.DictWriter(text, COLUMNS, lineterminator="\n", extrasaction="ignore")
        writer.writeheader()
        writer.writerows(kept)
        write_whole(self._metrics, text.getvalue())
        if self._alarms.is_file():
            told = [a for a in self.alarms() if (_whole_number(a.partition(":")[0].removeprefix("step ")) or 0) <= step]
            write_whole(self._alarms, "".join(f"{line}\n" for line in told))

    def alarms(self) -> list[str]:
        """The lines of alarms.txt, "step N: name: advice"."""
        return read_lines(self._alarms) if self._alarms.is_file() else []

    def rows(self) -> list[dict[str, str]]:
        """metrics.csv as it stands, without half a row at its end; FcosError when it is something else."""
        if not self._metrics.is_file():
            return []
        whole = read_text(self._metrics).rpartition("\n")[0]
        try:
            reader = csv.DictReader(io.StringIO(whole), restkey="more", restval="")
            if whole and not {"step", "epoch", "loss"} <= set(reader.fieldnames or ()):
                raise ValueError("its first line does not name the columns of a run")
            rows = list(reader)
            levels = next((row[_BY_LEVEL] for row in rows if row.get(_BY_LEVEL)), "").count(" ")
            for row in rows:
                if not all(_fits(key, value, levels) for key, value in row.items()):
                    raise ValueError(f"the row of step {row['step'][:20]!r} is no row of numbers")
        except (ValueError, csv.Error) as error:
            raise FcosError(
                f"{self._metrics} is damaged ({error}); move it away, and --resume goes on with a new one"
            ) from error
        return rows

    def finish(self, result: Mapping[str, Any]) -> None:
        """Write result.json, the last file of a run: from here on it is finished."""
        if self.write:
            write_whole(self.path / RESULT, json.dumps(result, indent=1))

    def finished(self) -> bool:
        """Whether the run has come to its end; one that was stopped or killed has not."""
        return (self.path / RESULT).is_file()


def check_loggers(names: Sequence[str]) -> None:
    """MissingExtra for a tool of `train.logger` that is not installed, before anything is done."""
    for name in names:
        for module in ("mlflow", "sqlalchemy") if name == "mlflow" else (name,):
            if find_spec(module) is None:
                require(module, name)


def _whole_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _fits(column: str, cell: str, levels: int) -> bool:
    """Whether a cell of metrics.csv is what its column holds; levels: the spaces in a cell of `_BY_LEVEL`."""
    if column == "step":
        return _whole_number(cell) is not None
    if column == _BY_LEVEL and cell:
        return cell.count(" ") == levels and all(map(_number, cell.split(" ")))
    return column != "more" and (not cell or _number(cell))


def _number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def next_folder(root: Path, name: str, wanted: Callable[[Path], bool] = lambda path: False) -> Path:
    """runs/NAME, or runs/NAME-2, -3 ... when it is taken; one that is there and `wanted` goes first."""
    path, number = root / name, 1
    while path.exists() and not wanted(path):
        number += 1
        path = root / f"{name}-{number}"
    return path


def check_free(folder: Path) -> None:
    """FcosError where a run is in the folder already."""
    if holds_run(folder):
        raise taken(folder)


def holds_run(folder: Path) -> bool:
    """Whether a run is, or was, in a folder, here or in a store."""
    return is_there(folder / CONFIG_FILE)


def taken(place: object) -> FcosError:
    """The error for a new run where one is already."""
    return FcosError(f"{place} holds a run already; give another --out, or go on with it: --resume")


def latest_folder(root: Path) -> Path:
    """The run in `root` that was written to last."""
    runs = [p.parent for p in root.glob(f"*/{CONFIG_FILE}")]
    if not runs:
        raise FcosError(f"there is no run to resume in {root}; give it with --out")
    return max(runs, key=lambda p: (p / "metrics.csv").stat().st_mtime if (p / "metrics.csv").exists() else 0.0)
