"""Logs beside metrics.csv, chosen with `train.logger`: TensorBoard, trackio, W&B, MLflow.

Each writes into the run folder and sends nothing anywhere, unless the tool's own environment variable says so:
TRACKIO_DIR or TRACKIO_SPACE_ID, WANDB_MODE=online, MLFLOW_TRACKING_URI. Numbers of training steps are named
train/..., those of evaluations val/.... A resumed run goes on in the same log.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning_fabric.loggers.logger import Logger
from lightning_fabric.loggers.tensorboard import TensorBoardLogger

from ...config import Config, describe
from ...errors import require
from ...system.environment import CONFIG_FILE, RUN_FILE
from ...system.readers import read_bytes
from ...system.stderr import quieter

_JUDGED = ("AP", "AP50", "AP75", "val_loss")
_PROJECT = "fcos"


def open_loggers(names: Sequence[str], folder: Path, config: Config, resumed: bool) -> list[Logger]:
    """The loggers called `names` for the run in `folder`; MissingExtra for one whose package is not installed."""
    key = hashlib.sha256(read_bytes(folder / RUN_FILE)).hexdigest()[:12]  # a name no other run has
    settings = {k: str(v) for k, v, _ in describe(config)}
    made: list[Logger] = []
    for name in names:
        if name == "tensorboard":
            require("tensorboard", "tensorboard")
            logger = TensorBoardLogger(folder, name="", version="tensorboard")
            if not resumed:
                logger.experiment.add_text(CONFIG_FILE, "".join(f"    {line}\n" for line in config.dump().split("\n")))
            made.append(logger)
        else:
            tool = Trackio if name == "trackio" else Wandb if name == "wandb" else MLflow
            made.append(tool(folder, key, settings, resumed))
    return made


def scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a row of metrics.csv under the names they have in a log; what was not measured is left out."""
    named: dict[str, float] = {}
    for key, value in row.items():
        if key == "positives_by_level" and value:
            named |= {f"train/positives_level_{i}": float(n) for i, n in enumerate(value.split())}
        elif key not in ("step", "epoch") and value not in (None, ""):
            named[f"{'val' if key in _JUDGED else 'train'}/{key}"] = float(value)
    return {k: v for k, v in named.items() if v == v}


class _Tool(Logger):
    """What Fabric wants of a logger. Settings are handed over when it is opened."""

    name = _PROJECT
    version = None

    def log_hyperparams(self, params: Any, *args: Any, **kwargs: Any) -> None:
        """Nothing to do."""


class Trackio(_Tool):
    """trackio: a local SQLite file, looked at with `trackio show`."""

    def __init__(self, folder: Path, key: str, settings: dict[str, str], resumed: bool) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(folder.resolve() / "trackio"))
        self.trackio: Any = require("trackio", "trackio")
        with contextlib.redirect_stdout(io.StringIO()):  # where to look, which docs/runs.md says too
            self.run = self.trackio.init(
                project=_PROJECT,
                name=f"{folder.name}-{key}",
                config=settings,
                resume="allow" if resumed else "never",
                embed=False,
                auto_log_gpu=False,
                auto_log_cpu=False,
            )

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.run.log(metrics, step=step)

    def finalize(self, status: str) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            self.trackio.finish()


class Wandb(_Tool):
    """Weights & Biases: offline files, uploaded with `wandb sync` by who wants that."""

    def __init__(self, folder: Path, key: str, settings: dict[str, str], resumed: bool) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        wandb = require("wandb", "wandb")
        self.run = wandb.init(
            project=_PROJECT,
            name=folder.name,
            id=key,
            dir=str(folder),
            config=settings,
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow" if resumed and os.environ.get("WANDB_MODE") == "online" else None,
            settings=wandb.Settings(silent=True, console="off", disable_git=True, save_code=False),
        )

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.run.log(metrics, step=step)

    def finalize(self, status: str) -> None:
        self.run.finish(exit_code=int(status != "success"))


class MLflow(_Tool):
    """MLflow: an SQLite file, looked at with `mlflow ui --backend-store-uri sqlite:///RUN/mlflow.db`."""

    def __init__(self, folder: Path, key: str, settings: dict[str, str], resumed: bool) -> None:
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        mlflow = require("mlflow", "mlflow")
        local = f"sqlite:///{folder.resolve() / 'mlflow.db'}"
        if "MLFLOW_TRACKING_URI" not in os.environ:
            require("sqlalchemy", "mlflow")
        with quieter(logging.WARNING, "mlflow", "alembic"):  # the tables of a new file, one line each
            self.client = mlflow.MlflowClient(os.environ.get("MLFLOW_TRACKING_URI", local))
            known = self.client.get_experiment_by_name(_PROJECT)
        place = known.experiment_id if known else self.client.create_experiment(_PROJECT)
        runs = self.client.search_runs([place], f"tags.fcos_run = '{key}'") if resumed else []
        self.run = runs[0] if runs else self.client.create_run(place, tags={"fcos_run": key}, run_name=folder.name)
        if not runs:
            rows = [mlflow.entities.Param(k, v[:500]) for k, v in settings.items()]
            for i in range(0, len(rows), 100):  # MLflow's limit
                self.client.log_batch(self.run.info.run_id, params=rows[i : i + 100])

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        self.client.log_batch(self.run.info.run_id, [Metric(k, v, now, step or 0) for k, v in metrics.items()])

    def finalize(self, status: str) -> None:
        self.client.set_terminated(self.run.info.run_id, "FINISHED" if status == "success" else "KILLED")
