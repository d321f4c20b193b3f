"""A few steps of a run that is thrown away, for whoever wants to know how fast a config learns here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager

from ...config import Config
from ...data.dataset import Dataset
from ...data.loading.loader import train_loader
from ...system.files import scratch
from ..loop import Trainer
from ..prefetch import Ahead
from ..run import RunOptions

Make = Callable[[Config, Mapping[str, Dataset], RunOptions], Trainer]


@contextmanager
def sample_run(
    config: Config, data: Mapping[str, Dataset], init: str | None, device: str, make: Make = Trainer
) -> Iterator[tuple[Trainer, Callable[[], object]]]:
    """(the trainer, what does its next step) of `config` on `data`, as training has them, in a folder that is deleted
    in the end. It never judges, draws or logs. init, device: as of `fcos.train`."""
    quick = config.override(
        {"train": {"plots": False, "logger": [], "iterations": 10_000, "val_loss": False, "linear_probe": 0}}
    )
    with scratch() as folder:
        trainer = make(quick, data, RunOptions(folder / "pace", init, device=device, quiet=True))
        with closing(trainer):
            batches = train_loader(trainer.data["train"], trainer.config, sampler=trainer.sampler, quiet=True)
            with closing(Ahead(iter(batches), trainer.fabric.device)) as loader:
                yield trainer, lambda: trainer.train_step(loader)
