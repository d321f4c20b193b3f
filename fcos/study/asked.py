"""What a person asks of a study, in the words of the command line; a study opens what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from ..config import Config
from ..data.classes import as_seen, match_classes
from ..data.dataset import Dataset
from ..data.open import open_judged
from ..data.tree import DataSource
from ..inference.detector import Detector
from ..inference.load import Placing, load
from ..system.stderr import say
from ..zoo.describe import settings_of
from .cached import Cached, cache


class Told(Protocol):
    """What a study comes to; one that has a `plot(path)` too is drawn."""

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        ...

    def text(self) -> str:
        """For a terminal."""
        ...


Judged = tuple[Dataset | None, Told]  # the data set that it is of, where there is one


@dataclass(frozen=True)
class Asked:
    """Of one study: the data, the model and changes to its settings, the split and how many of its images, the folder
    of the result, seeds from `train.seed` on, where to compute. `own`: options that this study alone has, by name."""

    data: DataSource | None = None
    model: str | None = None
    settings: Sequence[str] = ()
    split: str | None = None
    limit: int = 0
    out: Path | None = None
    seeds: int = 1
    placing: Placing = field(default_factory=Placing)
    own: Mapping[str, Any] = field(default_factory=dict)

    def source(self) -> DataSource:
        """The data, which the registry says that the study needs."""
        assert self.data is not None
        return self.data

    def named(self) -> str:
        """The model, which the registry says that the study needs."""
        assert self.model is not None
        return self.model

    def config(self, otherwise: str = "fcos-r50") -> Config:
        """The settings of the model, of `otherwise` where none is named."""
        return settings_of(self.model or otherwise, self.settings)

    def dataset(self, split: str | None = None) -> Dataset:
        """The images of the split asked for, else of `split`, else those to judge by; notes go to stderr."""
        dataset = open_judged(self.source(), self.split or split)
        for note in dataset.notes:
            say(f"note: {note}")
        return self.limited(dataset)

    def limited(self, dataset: Dataset) -> Dataset:
        """Its first images, as many as were asked for."""
        return dataset.subset(range(min(self.limit, len(dataset)))) if self.limit else dataset

    def detector(self) -> Detector:
        """The model, loaded."""
        return load(self.named(), overrides=self.settings, **self.placing)

    def judged(self, detector: Detector) -> Dataset:
        """The images as `detector` sees them, as `fcos eval` judges it: under its `data.classes` and
        `data.single_class`. DataError where it does not know all of their classes."""
        dataset = as_seen(self.dataset(), detector.config.data, detector.classes.names[0])
        match_classes(detector.classes, dataset.classes)
        return dataset

    def seed_range(self, config: Config) -> range:
        """As many seeds, from `train.seed` on: machines can share a study."""
        return range(config.train.seed, config.train.seed + self.seeds)

    def on_cached(self, study: Callable[[Sequence[Cached], Dataset, Config], Told]) -> Judged:
        """A study that only decodes: the network runs once over the images."""
        detector = self.detector()
        dataset = self.judged(detector)
        return dataset, study(cache(detector, dataset), dataset, detector.config)
