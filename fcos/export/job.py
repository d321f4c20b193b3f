"""One run of `fcos export`: write beside the target, compare with torch, and only then give it its name."""

from __future__ import annotations

import copy
import errno
import os
import shlex
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from torch import Tensor

from ..data.classes import as_seen, match_classes
from ..data.images.reading import read_image
from ..data.open import open_dataset, open_judged, split_names
from ..data.records import evenly
from ..data.splits import TAUGHT, default_split
from ..errors import ConfigError, FcosError, ImageError, ModelError
from ..network.model import FCOS
from ..points import padded
from ..system.files import check_kept, disk_reason, is_full
from ..system.machine import Placement
from ..system.progress import ticking
from ..system.terminal import clock, plural
from . import check
from .about import DTYPES, About
from .judging import Before, judge
from .open import write_export
from .registry import FORMATS, Format, format_of

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..inference.detector import Detector

_FULL = os.strerror(errno.ENOSPC)


class ExportOptions(TypedDict, total=False):
    """The options of `Detector.export`: those of Job."""

    format: str | None
    dynamic: str | None
    size: str | int | tuple[int, int] | None
    nms: bool
    dtype: str | None
    calibrate: str | Path | None
    images: int
    data: str | Path | None
    split: str | None


@dataclass(frozen=True)
class Job:
    """The options of `fcos export`, as given; `format` None: what the suffix of `out` says, else ONNX."""

    model: Callable[[], tuple[Detector, str]]  # the detector and what to call it, asked once the options fit
    format: str | None = None
    out: Path | None = None
    dynamic: str | None = None
    size: str | None = None
    nms: bool = False
    dtype: str | None = None  # that of the format
    calibrate: str | Path | None = None
    images: int = 200
    data: str | Path | None = None
    split: str | None = None


@dataclass(frozen=True, repr=False)
class Result:
    """What was written and how it compares; `wrong` says why it was rejected. `report` is None for a format
    that cannot run on this machine. `room`: what a fixed size does to images, empty where it does nothing."""

    file: Path
    bytes: int
    seconds: float
    about: About
    format: str
    report: check.Report | None
    wrong: list[str]
    room: str = ""

    def to_dict(self) -> dict[str, Any]:
        return {
            "file": str(self.file),
            "bytes": self.bytes,
            "seconds": round(self.seconds, 1),
            "format": self.format,
            "dtype": self.about.dtype,
            "input": self.about.pixels,
            "batch": self.about.batch,
            "size": self.about.size,
            "nms": self.about.nms,
            "check": asdict(self.report) if self.report else None,
            "room": self.room,
            "wrong": self.wrong,
        }

    def __repr__(self) -> str:
        return self.text()

    def text(self) -> str:
        """For a terminal."""
        about = self.about
        size = "x".join(map(str, about.size)) if about.size else "any size"
        lines = [
            f"{self.file}: {self.bytes / 1e6:.1f} MB, {about.dtype}, input {about.pixels} "
            f"[{about.batch or 'any'}, 3, {size}], ends in {'detections' if about.nms else 'predictions'}, "
            f"written in {self.seconds:.0f} s"
        ]
        if self.room:
            lines.append(self.room)
        if about.ap50 is not None:
            own, sized = about.ap50
            costs = f"{100 * (own - sized):.1f} points" if own - sized > 0.0005 else "nothing"
            lines.append(f"the fixed size costs {costs} of AP50: {own:.4f} as the model is, {sized:.4f} at this size")
        report = self.report
        if report is None:
            html = self.format == "html"
            lines.append(
                f"not checked: {'there is no Chromium or Chrome' if html else f'{self.format} cannot run'} here"
            )
        elif report.images:
            lines += _compared(report, about.dtype)
        if self.wrong:
            lines += [f"rejected: {line}" for line in self.wrong]
        elif report is not None:
            lines.append(f"good: every difference is within the limits for {about.dtype}")
        if not self.wrong and self.format == "html":
            lines.append(f"next: open {shlex.quote(str(self.file))} in a browser")
        elif not self.wrong and self.format == "triton":
            lines.append(f"next: tritonserver --model-repository={shlex.quote(str(self.file.resolve().parent))}")
        elif not self.wrong and report is not None:
            lines.append(f"next: fcos predict IMAGE --model {shlex.quote(str(self.file))}")
        return "\n".join(lines)


def _compared(report: check.Report, dtype: str) -> list[str]:
    """The comparison with torch in words."""
    least = "" if dtype == "fp32" else f" of score {check.SURE:g} or more"
    lost = f", {report.lost} lost" if report.lost else ""
    other = report.detections - report.matched
    lines = [
        f"beside torch on {plural(report.images, 'image')}: {report.judged - report.lost} of "
        f"{plural(report.judged, 'detection')}{least} found again{lost}",
        f"{report.matched} of all {plural(report.detections, 'detection')}{' of any score' if least else ''} come from "
        f"the same location: scores differ by {report.score:.2g} at most, boxes by {report.box:.2g} px"
        + (f"; the other {other:,} from elsewhere, or not at all" if other else ""),
    ]
    if report.ap and report.ap50:
        lines.append(
            f"AP {report.ap[0]:.4f} before, {report.ap[1]:.4f} after; "
            f"AP50 {report.ap50[0]:.4f} before, {report.ap50[1]:.4f} after"
        )
    return lines


def run(job: Job, say: Callable[[str], None] = lambda line: None) -> Result:
    """Write the file of `job`, or OUT.rejected with the reasons in `Result.wrong`.

    Raises FcosError for options that do not fit, a missing toolchain, or a model that cannot be read.
    """
    chosen = _choice(job)
    left_free(job, chosen)  # a wrong option is told before something is installed for it
    chosen.check_installed()
    job = replace(job, dtype=job.dtype or chosen.dtypes[0])
    reference, name = job.model()
    out = _target(job, chosen, name)
    check_kept(out)
    about = plan(job, chosen, reference)
    dataset = known = None
    if job.data is not None:
        dataset = as_seen(open_judged(job.data, job.split), reference.config.data, reference.classes.names[0])
        match_classes(reference.classes, dataset.classes)  # before minutes of writing
        known = Before(reference, dataset, about.size)
        if about.size is not None:
            say(f"AP on {plural(len(dataset.records), 'image')} in torch, as the model is and at the size of the file")
            about = replace(about, ap50=known.ap50)
    network: Any = reference.network
    started = time.perf_counter()
    with _beside(out) as folder:
        draft = Path(folder) / out.name
        say(f"{name}: writing {chosen.name}, {about.dtype}, to {out}")
        with _full_disk(Path(folder), out), ticking(lambda so_far: say(f"still writing, {so_far}")):
            write_export(network, about, chosen.name, draft, _calibration(job, reference, about))
        seconds = time.perf_counter() - started
        say(f"written in {clock(seconds)}; comparing what it detects with torch")
        report, wrong = judge(reference, draft / chosen.runs if chosen.runs else draft, known, say)
        if wrong and is_full(Path(folder)):  # some toolchains do not look whether all was written
            raise _no_room(out, _FULL)
        # the file itself first: what goes with it is then known for its own, whenever this ends
        files = sorted((p for p in Path(folder).iterdir() if p.name[0] != "."), key=lambda p: (p.name != out.name, p))
        size = sum(_size(p) for p in files)
        for file in files:
            target = out.with_name(file.name + (".rejected" if wrong else ""))
            _replace(file, target, merge=chosen.name == "triton")
    where = out.with_name(out.name + ".rejected") if wrong else out
    return Result(where, size, seconds, about, chosen.name, report, wrong, _room(reference, about, dataset))


def _room(model: Detector, about: About, dataset: Dataset | None) -> str:
    """What the fixed size of a file does to a usual image: one of the size that most of the data have, or of 4:3."""
    if about.size is None:
        return ""
    sizes = Counter(record.size for record in dataset.records) if dataset is not None else Counter()
    (height, width), _ = (sizes or Counter([(480, 640)])).most_common(1)[0]
    if isinstance(tile := about.config.data.tile, int) and tile:
        height, width = min(height, tile), min(width, tile)
    own, here = model.resized((height, width)), model.replace(size=about.size).resized((height, width))
    given, taken, wanted = (f"{h}x{w}" for h, w in (about.size, here, own))
    what = f"sizes as height x width: of {given}, an image of {height}x{width} takes {taken}"
    if own != here:
        keeps = "x".join(map(str, padded(own, about.config.data.divisor)))
        return f"{what}, and the model sees it at {wanted} otherwise; --size {keeps} keeps that"
    if 3 * here[0] * here[1] < about.size[0] * about.size[1]:
        return f"{what}, the rest is empty; for more pixels of the image: data.size={min(about.size)}"
    return ""


def _beside(out: Path) -> tempfile.TemporaryDirectory[str]:
    """A folder beside `out`, to write in; FcosError where there can be none."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.stem}-")
    except OSError as error:
        raise FcosError(f"cannot write into {out.parent}: {error.strerror or error}") from error


def _target(job: Job, chosen: Format, name: str) -> Path:
    """Where to write; ModelError for a name that is not of the format, or a folder that holds something else."""
    if chosen.suffix:
        out = (job.out or Path(name + chosen.suffix)).expanduser()
        if out.suffix.lower() != chosen.suffix:
            suffixes = ", ".join(f.suffix for f in FORMATS.values() if f.suffix)
            other = "" if job.format is not None else f"; other formats end in one of {suffixes}"
            raise ModelError(f"{out} must end in {chosen.suffix} for --format {chosen.name}{other}")
        _check_free(out, chosen)
        return out
    out = (job.out or Path("model_repository") / name).expanduser()
    if out.is_file() or format_of(out) is not None:
        raise ModelError(f"{out}: --format {chosen.name} writes a folder; name one that has no suffix")
    if out.is_dir() and not (out / chosen.mark).is_file():
        raise ModelError(f"{out} is a folder of something else; name the model's own: --out {out / Path(name).name}")
    return out


def _check_free(out: Path, chosen: Format) -> None:
    """ModelError where something else than an earlier export would be replaced."""
    for place in (out, out.with_name(f"{out.name}.rejected")):
        if place.is_dir() and not (chosen.mark and (place / chosen.mark).is_file()):
            raise ModelError(f"{place} is a folder of something else; give another --out")
    if chosen.beside:
        other = out.with_suffix(chosen.beside)
        check_kept(other)
        if other.exists() and not out.exists():
            raise ModelError(f"{other} is in the way of the one that goes with {out.name}; give another --out")


@contextmanager
def _full_disk(folder: Path, out: Path) -> Iterator[None]:
    """What a toolchain raises where the disk of `folder` refuses, as an FcosError; many do not say why they failed."""
    try:
        yield
    except FcosError as error:
        reason = disk_reason(error) if str(folder) in str(error) else None
        if reason is None:
            raise
        raise _no_room(out, reason) from error  # not the file beside it, which nobody asked for
    except Exception as error:
        reason = _FULL if is_full(folder) else disk_reason(error)
        if reason is None:
            raise
        raise _no_room(out, reason) from error


def _no_room(out: Path, reason: str) -> FcosError:
    return FcosError(f"cannot write {out}: {reason}; what was there before is untouched")


def plain(model: Detector) -> tuple[Detector, str]:
    """A detector in torch on the CPU, which can be exported, and what to call it."""
    model = model.in_torch()
    network = model.network
    if not isinstance(network, FCOS) or model.placement.dtype != "fp32":
        how = f"{model.placement.runtime}, {model.placement.dtype}"
        raise ModelError(f"this model runs in {how}; load it in torch and fp32 to export it")
    if model.device.type != "cpu":
        network = copy.deepcopy(network).to("cpu")
    return model.replace(network=network, placement=Placement()), model.config.name


def left_free(job: Job, chosen: Format) -> set[str]:
    """What of "batch" and "size" the graph leaves free; ConfigError where options contradict each other."""
    free = {"batch", "size"} if chosen.dynamic else set()
    if job.dynamic is not None:
        asked = set(job.dynamic.replace(" ", "").split(",")) - {"none", ""}
        if asked - {"batch", "size"}:
            raise ConfigError(f"--dynamic {job.dynamic}: write batch,size, batch, size or none")
        if asked - free:
            raise ConfigError(f"--dynamic {job.dynamic}: a {chosen.name} file has a fixed batch and size")
        free = asked
    if job.size is not None:
        if job.dynamic is not None and "size" in free:
            raise ConfigError("--size fixes the input, --dynamic size leaves it free; give one of them")
        free -= {"size"}
    return free


def plan(job: Job, chosen: Format, reference: Detector) -> About:
    """What the graph will take and give; ConfigError where options contradict each other."""
    from ..network.info import parse_size

    config = reference.config
    if config.decode.calibrated and (chosen.name == "html" or (chosen.name == "triton" and job.nms)):
        raise ConfigError(f"{chosen.name} shows plain scores, not calibrated ones; export with decode.calibrated=false")
    free = left_free(job, chosen)
    size = None if "size" in free else parse_size(job.size, config)
    batch = None if "batch" in free else 1
    return About(config, reference.classes, batch, size, job.nms, job.dtype)  # type: ignore[arg-type]


def _choice(job: Job) -> Format:
    by_suffix = format_of(job.out) if job.out is not None else None
    name = (job.format or (by_suffix.name if by_suffix is not None else "onnx")).lower()
    name = next((f.name for f in FORMATS.values() if f.suffix == f".{name}"), name)  # tflite is litert
    if name not in FORMATS:
        raise ConfigError(f"there is no format {name!r}; formats: {', '.join(FORMATS)}")
    chosen = FORMATS[name]
    if job.dtype not in (None, *DTYPES):
        raise ConfigError(f"there is no dtype {job.dtype!r}; choose from {', '.join(chosen.dtypes)}")
    if job.dtype not in (None, *chosen.dtypes):
        raise ConfigError(f"{chosen.name} files hold {', '.join(chosen.dtypes)}, not {job.dtype}")
    if job.nms and not chosen.nms:
        able = ", ".join(f.name for f in FORMATS.values() if f.nms)
        raise ConfigError(f"--nms is for {able}; with {chosen.name} decoding and NMS follow the graph")
    if job.dtype == "int8" and job.calibrate is None:
        raise ConfigError("int8 needs images to set its ranges: add --calibrate DATA, the training data")
    if job.dtype == "int8" and job.images < 1:
        raise ConfigError(f"int8 needs images to set its ranges; images={job.images} are none")
    if job.calibrate is not None and job.dtype != "int8":
        raise ConfigError("--calibrate is for --dtype int8; other numbers need no images")
    return chosen


def _calibration(job: Job, detector: Detector, about: About) -> Iterator[Tensor]:
    """Prepared images [1,3,H,W] spread over the data set, in the graph's type."""
    from .runtime import as_pixels

    if job.calibrate is None:
        return
    names = split_names(job.calibrate)
    dataset = open_dataset(job.calibrate, default_split(names, TAUGHT) or names[0])
    paths = [record.path for record in dataset.records if record.path is not None]
    fixed = detector.replace(size=about.size)
    for i in evenly(len(paths), job.images).tolist():
        try:
            image = read_image(paths[i])
        except ImageError:
            continue
        yield as_pixels(fixed.prepare(image)[0][None], about)


def _size(path: Path) -> int:
    return sum(p.stat().st_size for p in path.rglob("*")) if path.is_dir() else path.stat().st_size


def _replace(source: Path, target: Path, merge: bool = False) -> None:
    """Move a file or folder into place; `merge`: a folder's entries one by one, and others that stand there stay."""
    if merge and source.is_dir() and target.is_dir():
        for entry in sorted(source.iterdir()):
            _replace(entry, target / entry.name)
        return
    if target.is_dir():
        shutil.rmtree(target)
    source.replace(target)
