"""Training runs of a study: each in a folder of its own, resumed where it stopped, read where it has ended."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from statistics import median

import torch

from ..changes import load_yaml
from ..config import Config, from_dict
from ..data.dataset import Dataset
from ..data.tiles import tiled
from ..errors import ConfigError
from ..system.environment import CONFIG_FILE, HASHES, RUN_FILE, check_same, data_hashes, hashes_in
from ..system.readers import read_json
from ..system.stop import Stopped
from ..training.data import NamedData, choose
from ..training.given_settings import with_learned_sizes
from ..training.loop import Trainer
from ..training.output.checkpoint import checkpoints
from ..training.output.folder import RunFolder
from ..training.planning.sample import Make, sample_run
from ..training.run import RunOptions

_STEPS = 7  # that are timed, the first two not counted


def check_batch(config: Config) -> None:
    """ConfigError for train.batch=auto: runs of a study are compared, and read by their settings."""
    if not config.train.batch:
        raise ConfigError("train.batch=auto may differ from run to run; give a number, such as train.batch=8")


def trained(
    config: Config, data: Mapping[str, Dataset], folder: Path, device: str = "auto", make: Make = Trainer
) -> Config:
    """Train into `folder`, or go on there, unless the run has ended; returns the config as it was trained.

    Learned from is data["train"], judged by is data["val"] where there is one. Every run starts from the weights of
    the backbone alone. Raises ConfigError where the folder holds a run with other settings or of other data.
    """
    config = with_learned_sizes(config, data["train"])  # as training keeps it
    settings = folder / CONFIG_FILE
    if settings.exists():
        before = from_dict(load_yaml(settings), str(settings))  # of an earlier version the file lacks new settings
        check_same(folder, "a run", {"settings": before.dump()}, {"settings": config.dump()})
    seen = choose(NamedData({k: v for k, v in data.items() if k in ("train", "val")}, holdout=0), config).data
    finished, begun = RunFolder(folder, write=False).finished(), bool(checkpoints(folder))
    if finished or begun:
        file = folder / RUN_FILE
        stored = {HASHES: hashes_in(read_json(file) if file.is_file() else None)}
        learned = {**seen, "train": tiled(seen["train"], config.data.tile)}  # as the run tells of it
        check_same(folder, "a run", stored, {HASHES: data_hashes(learned)})
    if not finished:
        if not begun:
            settings.unlink(missing_ok=True)  # stopped before anything was saved
        trainer = make(config, seen, RunOptions(folder, init="none", resume=begun, device=device, quiet=True))
        try:
            trainer.run()
        except Stopped as stop:  # fcos train --resume would go on with this run alone, and knows no rivals
            raise Stopped(f"stopped in {folder}; the same command goes on", stop.code - 128) from None
    return config


def seconds_a_step(config: Config, data: Mapping[str, Dataset], device: str, make: Make = Trainer) -> float:
    """Of training, by doing a few in a run that is thrown away: the median. On a CPU it is processor time by the number
    of threads, which other programs on the machine do not lengthen."""
    seen = choose(NamedData({"train": data["train"]}, holdout=0), config).data
    times: list[float] = []
    with sample_run(config, seen, "none", device, make) as (trainer, step):
        watch = Stopwatch(trainer.fabric.device)
        for _ in range(_STEPS):
            began = watch()
            step()
            times.append(watch() - began)
    return median(times[2:])


class Stopwatch:
    """Seconds of work on a device: of the clock on a GPU, of the processor by the number of threads on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self.threads = torch.get_num_threads() if device.type == "cpu" else 0

    def __call__(self) -> float:
        if self.threads:
            return time.process_time() / self.threads
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return time.perf_counter()
