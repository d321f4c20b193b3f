"""A run folder that a person can read: config.yaml, environment.json, metrics.csv, weights, pictures."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Config
from ..errors import FcosError
from ..files import disk_reason, sweep, write_whole
from ..readers import read_lines, read_text

if TYPE_CHECKING:
    from lightning_fabric.loggers.logger import Logger


COLUMNS = (
    "step", "epoch", "lr", "loss", "classification", "box", "centerness", "centerness_excess", "mean_iou",
    "positives", "positives_by_level", "ambiguous", "grad_norm", "images_per_second", "data_wait", "val_loss",
    "AP", "AP50", "AP75",
)  # fmt: skip


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

    def start(self, environment: Mapping[str, Any]) -> None:
        """Make the folder; FcosError when another run is in it. `describe` makes it a run, once it can be resumed."""
        if not self.write:
            return
        if (self.path / "config.yaml").exists():
            raise FcosError(f"{self.path} holds a run already; give another --out, or --resume it")
        write_whole(self.path / "environment.json", json.dumps(environment, indent=1))
        write_whole(self._metrics, ",".join(COLUMNS) + "\n")

    def describe(self, config: Config) -> None:
        """Write config.yaml and open the logs of `train.logger`; remove what a killed process left half written."""
        if self.write:
            if config.train.logger:
                from .loggers import open_loggers

                self._loggers = open_loggers(config.train.logger, self.path, config, self._resumed)
            write_whole(self.path / "config.yaml", config.dump())
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
            raise FcosError(
                f"cannot write {self._metrics}: {disk_reason(error)}; go on with --resume once there is room"
            ) from error
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

    def rewind(self, step: int) -> None:
        """Drop rows of metrics.csv past `step`, so that a resumed run has none twice, and half a row at the end."""
        if not self.write:
            return
        from .loggers import scalars

        rows = self.rows()
        self._resumed = True
        steps = [_whole_number(row.get("step", "")) for row in rows]
        for row, at in zip(rows, steps, strict=True):
            try:
                self._logged |= dict.fromkeys(scalars(row), at) if at is not None else {}
            except ValueError as error:
                raise FcosError(f"{self._metrics}: step {at}: {error}; move the file away and --resume again") from None
        kept = [row for row, at in zip(rows, steps, strict=True) if at is not None and at <= step]
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
        """metrics.csv as it stands."""
        if not self._metrics.is_file():
            return []
        whole = read_text(self._metrics).rpartition("\n")[0]
        try:
            table = csv.DictReader(io.StringIO(whole))
            if table.fieldnames is not None and "step" not in table.fieldnames:
                raise FcosError(f"{self._metrics} is no table of a run; move it away, then --resume makes a new one")
            return [{k: v for k, v in row.items() if isinstance(v, str) and k is not None} for row in table]
        except csv.Error as error:
            raise FcosError(f"{self._metrics} cannot be read: {error}; move it away and --resume again") from error


def _whole_number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def next_folder(root: Path, name: str) -> Path:
    """runs/NAME, or runs/NAME-2, -3 ... when it is taken."""
    path, number = root / name, 1
    while path.exists():
        number += 1
        path = root / f"{name}-{number}"
    return path


def latest_folder(root: Path) -> Path:
    """The run in `root` that was written to last."""
    runs = [p.parent for p in root.glob("*/config.yaml")]
    if not runs:
        raise FcosError(f"there is no run to resume in {root}; give it with --out")
    return max(runs, key=lambda p: (p / "metrics.csv").stat().st_mtime if (p / "metrics.csv").exists() else 0.0)
