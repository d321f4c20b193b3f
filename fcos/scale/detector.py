"""A detector as batch engines want one: rows in, rows out."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from torch import Tensor

from ..changes import as_words
from ..config import Config
from ..detections import Detections
from ..errors import ConfigError, DataError, FcosError, ImageError, did_you_mean, first_line
from ..export.about import DTYPES
from ..inference.composite import OWN, Composite, Looks, tile_of
from ..inference.detector import Detector
from ..inference.load import RUNTIMES, load_together
from ..inference.scores import Scores, parse_scores
from ..inference.stream import Batching, pick_batching, run
from ..inference.tiles import parse_tile
from ..inference.views import parse_views
from ..system.files import stamp
from ..system.terminal import some
from ..system.threads import check_threads
from ..types import Classes
from ..version import __version__
from ..zoo.describe import read_settings
from ..zoo.download import sha256
from ..zoo.find import find_weights
from .rows import Row, columns, schema, to_row

if TYPE_CHECKING:
    from collections.abc import Iterable

Batch = TypeVar("Batch")
Opened: TypeAlias = "tuple[Detector | Composite, Tensor, str]"  # with the lowest scores [C], and the digest
Stamps: TypeAlias = tuple[tuple[int, int], ...]
_DIGITS = 12  # of the hash of the weights
_UPSET = 32  # so many images that upset more than their reader, and none good between: it is not the images


@dataclass(frozen=True)
class Work:
    """What is detected with and how; plain values, so that it travels to other processes. See `fcos.load`.

    models: names, run folders or files; several are put together. score: lowest score shown, as of `fcos predict
    --score`; empty: that of the model. threads and lanes: as of `fcos.load`, of one process. tile, overlap, tta: as of
    `fcos predict`. batch: images of one size that share a pass. batch and lanes of 0: chosen for the device, as by
    `fcos eval`. ConfigError for numbers that cannot be, ModelError for such a number of threads.
    """

    models: tuple[str, ...] = ("fcos-lite0",)
    overrides: tuple[str, ...] = ()
    score: str = ""
    device: str = "auto"
    runtime: str | None = None
    dtype: str | None = None
    threads: int = 1
    lanes: int = 1
    batch: int = 1
    trust: bool = False
    tile: str | int | None = None
    overlap: float = 0.2
    tta: str = ""

    def __post_init__(self) -> None:
        for name, number in (("batch", self.batch), ("lanes", self.lanes)):
            if not isinstance(number, Integral) or number < 0:
                raise ConfigError(f"{name}={number!r}: give 1 or more, or 0: chosen for you")
        check_threads(self.threads)

    def batching(self) -> Batching:
        """Batch and lanes, chosen where they are 0."""
        asked = Batching(self.batch, self.lanes)
        return asked if all(asked) else pick_batching(sys.maxsize, asked, self.threads, self.device)

    def check(self) -> tuple[Config, Classes]:
        """Settings and classes of what is detected, from the files alone; FcosError for what would fail later in each
        process."""
        settings = [read_settings(name) for name in self.models]
        config, classes = settings[0]
        config = config.override(*self.overrides)
        parse_views(self.tta)
        parse_scores(self.score or str(config.decode.lowest_shown), classes, config.decode.lowest_shown)
        tile = tile_of(self.tile)
        if tile not in (None, OWN):
            parse_tile(tile, config.data, self.overlap)
        for option, value, known in (("--runtime", self.runtime, RUNTIMES), ("--dtype", self.dtype, DTYPES)):
            if value is not None and value not in known:
                raise ConfigError(f"{option} {value!r} is none; choose from {', '.join(known)}")
        return config, classes

    def digest(self) -> str:
        """Names and hashes of the weights: fcos-lite0@1f0c...; of several models joined by +."""
        hashes = ("-".join(sha256(file)[:_DIGITS] for file in _files(name) if file.is_file()) for name in self.models)
        return "+".join(f"{name}@{digest}" for name, digest in zip(self.models, hashes, strict=True))

    def stamps(self) -> Stamps:
        """Size and time of the files of the weights."""
        return tuple(stamp(file) for name in self.models for file in _files(name))


def _files(name: str) -> tuple[Path, Path]:
    """The file of a model, and where OpenVINO keeps its weights."""
    path = find_weights(name)
    return path, path.with_suffix(".bin")


@lru_cache(maxsize=1)
def _opened(work: Work, stamps: Stamps) -> Opened:
    """What detects, once in each process while the files are as the `stamps` say."""
    detector = load_together(
        work.models,
        Looks(tile_of(work.tile), work.overlap, parse_views(work.tta)),
        overrides=work.overrides,
        device=work.device,
        runtime=work.runtime or "own",  # the same rows whoever makes them, and when
        dtype=work.dtype,
        threads=work.threads,
        lanes=work.batching().lanes,
        trust=work.trust,
    )
    scores = parse_scores(work.score or str(detector.shown), detector.classes, detector.shown)
    return detector, scores, work.digest()


class BatchDetector:
    """Rows with paths in, rows with detections out, for Ray Data, Daft, Spark and whatever calls a function on batches.

    A batch is a mapping of columns (lists or arrays), a pandas DataFrame or an Arrow table; its column `column` holds
    paths of images. What comes out is of the same kind: the columns that came in, and `Row`'s, whose names no other
    column may have. An image that cannot be read is a row with its error. Images are read ahead while the network
    computes. The network is loaded by the first batch, once in each process, and kept if its file changes later; a
    new object looks again. The object itself is small and can be pickled.

    `score` is the lowest score shown, 0..1, or "person=0.4,dog=0.5", or such a mapping; None: that of the model.
    Further settings are those of `Work`, by name: device, runtime, threads (1 unless told), batch, tile, tta and so on.

    >>> detect = fcos.scale.BatchDetector("fcos-lite0", device="cpu")
    >>> rows = detect({"path": ["photo.jpg", "missing.jpg"]})
    >>> rows["names"], rows["error"]
    ([['cat'], []], ['', 'cannot read missing.jpg: no such file or directory'])
    """

    _held: Opened | None = None

    def __init__(
        self, model: str | Path | Sequence[str | Path] = "fcos-lite0", *, score: Scores | None = None,
        column: str = "path", **settings: Any,
    ) -> None:  # fmt: skip
        known = set(Work.__dataclass_fields__) - {"models", "score"}
        for name in settings.keys() - known:
            raise FcosError(f"there is no setting {name!r}; {did_you_mean(name, known, ', '.join(sorted(known)))}")
        given = (model,) if isinstance(model, str | os.PathLike) else model
        models = tuple(os.fspath(one) for one in given)
        settings["overrides"] = as_words(settings.get("overrides", ()))
        if isinstance(score, Mapping):
            score = ",".join(f"{name}={least}" for name, least in score.items())
        self.work = Work(models, score="" if score is None else str(score), **settings)
        self.column = column

    @classmethod
    def of(cls, work: Work) -> BatchDetector:
        """From settings that are put together already."""
        made = cls()
        made.work = work
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {"work": self.work, "column": self.column}

    def _detector(self) -> Opened:
        if self._held is None:
            self._held = _opened(self.work, self.work.stamps())
        return self._held

    def __call__(self, batch: Batch) -> Batch:
        """The batch with the columns of `Row`; DataError where it is no table, lacks the column of paths or has a
        column of another meaning that would be lost to one of `Row`."""
        made: Any
        given: Any = batch
        if isinstance(given, Mapping):
            found = columns(self.rows(self._paths(given, list(given))))
            made = {**given, **found}
        elif hasattr(given, "to_pydict"):  # Arrow
            import pyarrow as pa

            table = pa.table(columns(self.rows(self._paths(given.to_pydict(), given.schema.names))), schema=schema())
            for name in given.schema.names:
                if name not in table.schema.names:
                    table = table.append_column(name, given.column(name))
            made = table
            if isinstance(given, pa.RecordBatch):
                parts = [column.combine_chunks() for column in table.columns]  # to_batches() has none for no rows
                made = pa.RecordBatch.from_arrays(parts, schema=table.schema)
        elif hasattr(given, "assign"):  # pandas
            paths = self._paths({key: given[key].tolist() for key in given.columns}, list(given.columns))
            made = given.assign(**columns(self.rows(paths)))
        else:
            raise DataError(
                f"cannot take a {type(given).__name__} for a batch; give a mapping of columns, a DataFrame or an "
                "Arrow table"
            )
        return made  # type: ignore[no-any-return]

    def _paths(self, batch: Mapping[str, Any], names: Sequence[str]) -> list[str]:
        if self.column not in names:
            hint = did_you_mean(self.column, names, f"they have {', '.join(names)}")
            raise DataError(f"the rows have no column {self.column!r}; {hint}")
        lost = [name for name in names if name in Row.__annotations__ and name != self.column]
        if lost:
            raise DataError(f"the rows have columns that are made here: {some(lost)}; rename them, or leave them out")
        return [os.fspath(path) if isinstance(path, os.PathLike) else str(path) for path in batch[self.column]]

    def rows(self, paths: Iterable[str]) -> list[Row]:
        """A row for each image, in order, as `stream`."""
        return list(self.stream(list(paths)))

    def stream(self, paths: Sequence[str]) -> Iterator[Row]:
        """A row for each image, in order, as they are done. An image that upsets more than its reader is a row with
        that error too, unless all do, or `_UPSET` of them since one that is good: then it is raised, since a device
        that is gone would make an error of every image that is left. So the rows of such images wait for a good one."""
        detector, scores, model = self._detector()
        batch = self.work.batching().batch
        held = _HeldRows()
        while held.seen < len(paths):
            try:
                for path, detections in _detect_each(detector, scores, paths[held.seen :], batch):
                    held.add(to_row(path, detections, model, __version__))
                    yield from held.ready()
            except FcosError:
                raise
            except Exception as error:  # the one that was next, or one of the few that were in work beside it
                path = paths[held.seen]
                held.add(to_row(path, _detect_alone(detector, scores, path), model, __version__), error)
        yield from held.rest()


class _HeldRows:
    """Rows of a stream that wait for a good one, since those before it upset more than their reader. seen: rows so far;
    upset: of them since a good one; last: what the last was upset by, one only, since it keeps the pixels of its
    image."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.seen = self.upset = 0
        self.good = False
        self.last: Exception | None = None

    def add(self, row: Row, error: Exception | None = None) -> None:
        """The next row, and what its image was upset by; that is raised where it is one too many."""
        self.rows.append(row)
        self.seen += 1
        if not row["error"]:
            self.good, self.upset, self.last = True, 0, None
        elif error is not None:
            self.upset, self.last = self.upset + 1, error
            if self.upset == _UPSET:
                raise error

    def ready(self) -> list[Row]:
        """The rows that need not wait, once."""
        if self.upset:
            return []
        rows, self.rows = self.rows, []
        return rows

    def rest(self) -> list[Row]:
        """What is left at the end; raises what upset the last image where none was good."""
        if self.last is not None and not self.good:
            raise self.last
        return self.rows


def _detect_each(
    detector: Detector | Composite, scores: Tensor, paths: Sequence[str], batch: int
) -> Iterator[tuple[str, Detections | FcosError]]:
    for path, (_, _, detections) in zip(paths, run(detector, [Path(p) for p in paths], scores, batch), strict=True):
        yield path, detections


def _detect_alone(detector: Detector | Composite, scores: Tensor, path: str) -> Detections | FcosError:
    """One image by itself, whatever happens."""
    try:
        return next(detections for _, detections in _detect_each(detector, scores, [path], 1))
    except Exception as error:
        if isinstance(error, torch.cuda.OutOfMemoryError):
            torch.cuda.empty_cache()
        return ImageError(f"cannot detect in {path}: {type(error).__name__}: {first_line(error)}")
