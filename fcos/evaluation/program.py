"""Judge a model on a data set, or two, from Python; `fcos eval` does it with more options."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, TypedDict, Unpack

import numpy as np
import torch

from ..data.classes import as_seen, match_classes
from ..data.dataset import Dataset
from ..data.open import open_judged
from ..data.runs import judged_by, learned_from, missing, run_of
from ..detections import Detections
from ..errors import ConfigError, DataError, check_count, check_names
from ..inference.composite import OWN, Composite, Looks, compose
from ..inference.dataset import predict_dataset
from ..inference.detector import Detector
from ..inference.load import load
from ..system.door import door
from ..system.names import UNKNOWN
from ..system.stderr import say
from ..system.terminal import plural, some
from ..types import Classes
from . import coco
from .coco import Metrics
from .metrics import IOU
from .operating_point import Cut
from .results import read_results
from .uncertainty import Comparison, Draws, compare_detections, intervals

# Detectors keep scores from 0.001 to 0.05 on to be judged by, fcos geometric means with class scores from 0.05 on.
_WEAK, _LOWEST = 0.22, 0.06
_KEPT = 100  # detections of an image, by decode.max_detections and of most programs
_MANY, _ENOUGH = 10, 200  # detections below which nothing is said of their scores, and of how these begin
_EACH = 1.7  # detections an object from which on AP loses less than a hundredth by what is left out (evaluation)
_SHARP = 0.32  # how far the weakest twentieth reach of what the weakest quarter do, where they begin all at once
Judged: TypeAlias = "Detector | Composite | str | Path | Sequence[Detections]"


class Looking(TypedDict, total=False):
    """What both functions may be told about data and models; see `evaluate`."""

    split: str | None
    batch: int
    tile: int | str | None
    allow_missing: bool
    class_agnostic: bool


class Options(Looking, total=False):
    """What `evaluate` may be told; see there."""

    ci: bool
    voc_plus_one: bool
    score: float | None
    iou: float


class CompareOptions(Looking, total=False):
    """What `compare` may be told; see there."""

    resamples: int
    seed: int


@door
def evaluate(model: Judged, data: Dataset | str | Path | None = None, **options: Unpack[Options]) -> Metrics:
    """COCO and VOC numbers of a model on annotated images, or of detections that are there already.

    Args:
        model: a Detector, the name, run folder or file of one; a list with the Detections of each image of `data`, or
            a COCO results file (.json) of any program.
        data: a Dataset, or the path of one; left out: what the run of the model was judged by (`model` is its folder).
        split: of a path, or of the data of the run; left out: test, else val, else the only one.
        batch: images that go through the network together, 8.
        tile: look in tiles of so many pixels or "auto"; None: whole images. Left out, a Detector that learned from
            tiles (`data.tile`) is judged through such, as it was in training.
        ci: 95 % intervals too, `metrics.intervals`; some seconds for hundreds of images.
        allow_missing: go on when the data has classes that the model does not know.
        class_agnostic: take all classes for one (proposals).
        voc_plus_one: VOC numbers by the devkit's pixels, x2 - x1 + 1 wide.
        score: count what is found, missed and wrong (precision, recall, confusion) from this score on, 0..1:
            `metrics.at_score`. Left out: from that of the best F1.
        iou: from which IoU on a detection is right there, above 0, up to 1; 0.5.

    All detections count, whatever their score; the data is taken as the model sees it (`data.classes`,
    `data.single_class`).

    Raises:
        DataError: data that cannot be used, or classes that do not fit. ModelError: no such model. ConfigError:
            `batch` or `tile` beside detections.

    >>> metrics = fcos.evaluate("fcos-lite0", "my_data")
    >>> metrics.images, 0 <= metrics.ap <= metrics.ap50 <= 1
    (4, True)
    >>> print(fcos.evaluate("fcos-lite0", "my_data", ci=True))
    AP 0... [...]  AP50 1.000  AP75 1.000
    small -  medium -  large 0...
    4 images, 3 objects (and 1 ignored), ... detections
    at score 0...: 3 of 3 objects found, recall 1.000; ... wrong detections, precision ... (IoU 0.5)
    <BLANKLINE>
    class   objects     AP   AP50
    person        2  0...  1.000
    cat           1  0...  1.000
    """
    check_names(options, Options.__annotations__, "fcos.evaluate")
    check_count("batch", options.get("batch", 8))
    cut = Cut(options.get("score"), options.get("iou", IOU)).check()
    _check_of_model([model], options)
    run = run_to_judge(model) if data is None and not is_results(model) else None
    dataset = _dataset([model], data, run, options.get("split"))
    tell_learned([model], dataset, own=data is None and options.get("split") is None)
    detections, dataset = _seen(model, dataset, options)
    tell_cut(model, detections, dataset)
    agnostic = options.get("class_agnostic", False)
    metrics = coco.evaluate(
        detections, dataset, class_agnostic=agnostic, voc_plus_one=options.get("voc_plus_one", False), cut=cut
    )
    if options.get("ci", False):
        metrics = replace(metrics, intervals=intervals(detections, dataset, class_agnostic=agnostic))
    return metrics


@door
def compare(
    first: Judged, second: Judged, data: Dataset | str | Path | None = None, **options: Unpack[CompareOptions]
) -> Comparison:
    """Which of two models is better on the same annotated images, and whether so few images can tell.

    Args:
        first, second: as the `model` of `evaluate`: Detectors, names, run folders, files, results files, or lists of
            Detections.
        data: a Dataset, or the path of one; left out: what the run of the first was judged by, else that of the second.
        split, batch, tile, allow_missing, class_agnostic: as of `evaluate`.
        resamples: how many random halves of the images the intervals come from, 1,000; `seed`: of these halves, 0.

    Returns a Comparison: `first`, `second` and `difference` (second less first) hold an Interval `value, low, high` in
    -1..1 for "AP", "AP50" and "AP75", `p` the chance of a difference this large were both equally good.

    Raises:
        DataError: data that cannot be used, or two models that judge different classes. ModelError: no such model.

    >>> judged = fcos.compare("fcos-lite0", "fcos-lite1", "my_data")
    >>> judged.images, judged.difference["AP50"].value, judged.p["AP50"]
    (4, 0.0, 1.0)
    """
    check_names(options, CompareOptions.__annotations__, "fcos.compare")
    _check_of_model([first, second], options)
    check_count("batch", options.get("batch", 8))
    draws = Draws(options.get("resamples", Draws().resamples), options.get("seed", Draws().seed))
    if not all(isinstance(number, int) for number in draws) or draws.resamples < 10 or draws.seed < 0:
        raise ConfigError(f"resamples={draws.resamples!r}, seed={draws.seed!r}: give 10 or more, and 0 or more")
    run = None
    if data is None:
        run = next(filter(None, (run_of(m) for m in (first, second) if isinstance(m, str | Path))), None)
        run = run_to_judge(first) if run is None else run
    dataset = _dataset([first, second], data, run, options.get("split"))
    tell_learned([first, second], dataset, own=data is None and options.get("split") is None)
    (a, judged), (b, other) = (_seen(model, dataset, options) for model in (first, second))
    if judged.classes != other.classes:
        raise DataError(f"the two models judge different classes of {dataset.root}")
    return compare_detections(a, b, judged, draws, class_agnostic=options.get("class_agnostic", False))


def is_results(model: object) -> bool:
    """Whether it names a file of detections, not a model."""
    return isinstance(model, str | Path) and str(model).lower().endswith((".json", ".json.gz"))


def _found_already(model: Judged) -> bool:
    """Whether it is detections, not what makes them."""
    return is_results(model) or not isinstance(model, str | Path | Detector | Composite)


def _check_of_model(models: Sequence[Judged], options: Looking) -> None:
    """ConfigError for an option that only models heed, where there is none."""
    given = [name for name in ("batch", "tile") if name in options]
    if given and all(map(_found_already, models)):
        raise ConfigError(f"{given[0]} is of a model, and these detections are there already; leave it out")


def cut_note(detections: Sequence[Detections], dataset: Dataset) -> str:
    """A line where detections of the images of `dataset` look as if the weak ones had been left out, and few are there
    for each object, so that AP is too low; "" else. Images with as many as detectors keep say nothing of that."""
    looked = [both for both in zip(detections, dataset.records, strict=True) if len(both[0]) < _KEPT]
    scores = np.sort(torch.cat([torch.zeros(0), *(seen.scores.float().cpu() for seen, _ in looked)]).numpy())
    objects = sum(int((~record.ignore).sum()) for _, record in looked)
    if len(scores) < _MANY or len(scores) >= _EACH * objects or not _begin_late(scores):
        return ""
    return (
        f"note: no detection has a score below {float(scores[0]):.2f}; AP counts weaker ones too, and is too low "
        "without them: detect with score 0"
    )


def tell_cut(judged: Judged, detections: Sequence[Detections], dataset: Dataset) -> None:
    """Say `cut_note` of what is judged alone, where its detections were there already."""
    if _found_already(judged) and (note := cut_note(detections, dataset)):
        say(note)


def _begin_late(scores: np.ndarray) -> bool:
    """Whether scores, rising, begin higher than detectors let them, or all at once and not as geometric means do, which
    get fewer the lower they are."""
    least = float(scores[0])
    if least >= _WEAK or least < _LOWEST or len(scores) < _ENOUGH:
        return least >= _WEAK
    twentieth, quarter = (float(v) - least for v in np.quantile(scores, (0.05, 0.25)))
    return twentieth < _SHARP * quarter


def _dataset(
    models: Sequence[Judged], data: Dataset | str | Path | None, run: Path | None, split: str | None
) -> Dataset:
    """The data set to judge by: the one given, or that of the run if none is."""
    if isinstance(data, Dataset):
        if split is not None:
            raise ConfigError("split is of a path; the data set that was given is one split already")
        return data
    if data is not None:
        return open_judged(data, split, pixels=not all(map(is_results, models)))
    if run is None:
        raise ConfigError(f"{models[0]} is a results file; give the data set that it is judged by too")
    return judged_by(run, split)


def _seen(model: Judged, dataset: Dataset, options: Looking) -> tuple[list[Detections], Dataset]:
    """The detections of a model, or those given, and the data set as the model sees it."""
    if isinstance(model, str | Path):
        model = read_results(model, dataset) if is_results(model) else load(model, runtime="own")
    if isinstance(model, Detector):
        model = compose([model], Looks(options.get("tile", OWN)))
    allow_missing = options.get("allow_missing", False)
    if isinstance(model, Detector | Composite):
        return detect(model, dataset, options.get("batch", 8), allow_missing=allow_missing)
    detections = list(model)
    _check_order(detections, dataset)
    if not options.get("class_agnostic", False):
        detections = _named_as(detections, dataset, allow_missing)
    return detections, dataset


def _check_order(given: Sequence[Detections], dataset: Dataset) -> None:
    """Refuse, by a DataError, detections that are not one for each image of `dataset`, in its order."""
    other = next((one for one in given if not isinstance(one, Detections)), None)
    if other is not None:
        rows = (
            "; rows of COCO's results go into a .json file, whose path is given" if isinstance(other, Mapping) else ""
        )
        raise DataError(f"a list to judge holds Detections, one for each image, not {type(other).__name__}{rows}")
    if len(given) != len(dataset):
        raise DataError(f"there are detections of {plural(len(given), 'image')}, and {len(dataset):,} to judge by")
    for seen, record in zip(given, dataset.records, strict=True):
        names = {Path(record.file_name).name, *([record.path.name] if record.path is not None else [])}
        if seen.source is not None and Path(seen.source).name not in names:
            raise DataError(
                f"detections of {Path(seen.source).name} stand where {record.file_name} is judged; give them in the "
                "order of the data"
            )


def _named_as(given: Sequence[Detections], dataset: Dataset, allow_missing: bool) -> list[Detections]:
    """The detections with the labels that `dataset` has for their names. The names of all images are taken together, as
    each may name only what was found there. Detections of other classes are left out, with a note. DataError for a
    label without a class."""
    names = tuple(dict.fromkeys(name for seen in given for name in seen.names))
    numbered = any(len(seen) and not seen.names for seen in given)  # by the data's own numbers
    found_alone = all(len(seen.labels.unique()) == len(seen.names) for seen in given)  # names say what was found there
    label_of: dict[str, int] = {}
    if names:
        missing_too = allow_missing or numbered or found_alone
        mapping = match_classes(Classes(names), dataset.classes, allow_missing=missing_too)
        label_of = dict(zip(names, mapping.tolist(), strict=True))
    found = []
    other: Counter[str] = Counter()
    for seen, record in zip(given, dataset.records, strict=True):
        if seen.names and seen.names != dataset.classes.names:
            labels = torch.tensor([label_of[name] for name in seen.names])[seen.labels.cpu()]
            other.update(seen.name(int(row)) for row in (labels == UNKNOWN).nonzero())
            seen = replace(seen, labels=labels.to(seen.labels.device), names=())[labels != UNKNOWN]
        if len(seen) and not 0 <= int(seen.labels.min()) <= int(seen.labels.max()) < len(dataset.classes):
            raise DataError(f"{record.file_name}: a detection has a label beyond the {len(dataset.classes)} classes")
        found.append(seen)
    if other:
        count = plural(other.total(), "detection")
        say(f"note: {count} of classes that the data does not have, left out: {some([*other])}")
    return found


def tell_learned(models: Sequence[object], dataset: Dataset, *, own: bool) -> None:
    """Say `learned_note` of each of the models that has one. `own`: the images are those that a run was judged by,
    which says nothing new of that run, so that it is told only where two are compared."""
    notes = (learned_note(model, dataset) for model in models if not is_results(model))
    for note in filter(None, () if own and len(models) == 1 else notes):
        say(note)


def learned_note(model: object, dataset: Dataset) -> str:
    """A line where `model` is a run that learned from images of `dataset`, on which it looks better than it is."""
    run = run_of(model) if isinstance(model, str | Path) else None
    count = learned_from(run, dataset) if run is not None else 0
    if not count:
        return ""
    seen = f"note: {run} learned from {count:,} of the {plural(len(dataset), 'image')} that it is judged on"
    return f"{seen}; on those it kept for judging: fcos eval {run}"


def run_to_judge(model: object) -> Path:
    """The run folder that `model` is or lies in, which knows what it was judged by; DataError where it is none."""
    run = run_of(model) if isinstance(model, str | Path) else None
    if run is None:
        known = "give the data set to judge on (a run folder needs none)"
        raise DataError((missing(model) if isinstance(model, str | Path) else "") or known)
    return run


def detect(
    detector: Detector | Composite,
    dataset: Dataset,
    batch: int = 8,
    *,
    allow_missing: bool = False,
) -> tuple[list[Detections], Dataset]:
    """All detections of a data set, and the data set as the model sees it."""
    seen = as_seen(dataset, detector.config.data, detector.classes.names[0])
    return predict_dataset(detector, seen, batch, allow_missing=allow_missing), seen
