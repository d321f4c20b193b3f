"""What `fcos predict` settles before it detects: what is written, what computes, and which scores are shown."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from ..errors import FcosError
from ..inference.composite import Composite
from ..inference.detector import Detector
from ..inference.proposals import proposer
from ..inference.runtime_switch import PAYS
from ..inference.scores import only, parse_scores
from ..inference.video import is_video, videos_in
from ..inference.writers import SUFFIXES, Outputs
from ..system.files import check_folder, check_suffix
from ..system.stderr import say
from ..system.terminal import plural


@dataclass(frozen=True)
class Asked:
    """What is asked to be written: --out, JSON lines, and `others` behind options of their own."""

    out: Path | None
    as_json: bool
    others: Outputs

    @property
    def nothing(self) -> bool:
        """Whether nothing is asked for, so that the images are drawn in a folder."""
        return self.out is None and not self.as_json and self.others.nothing

    @property
    def drawn_in(self) -> Path | None:
        """The folder or file of --out, or the one that is written to where nothing is asked for."""
        return Path("predictions") if self.nothing else self.out

    def outputs(self, count: int, *, moving: bool) -> Outputs:
        """What to write of `count` images, and of videos if `moving`; FcosError where a folder is a file, or one file
        is to hold several things."""
        out, others = self.drawn_in, self.others
        check_folder(others.yolo, "--yolo")
        if others.coco is not None:
            check_suffix(others.coco, (".json",), "COCO results are JSON", "--coco")
        if others.csv is not None:
            check_suffix(others.csv, (".csv",), "a table is CSV", "--csv")
        if out is None or out.is_dir() or out.suffix.lower() not in SUFFIXES:
            check_folder(out)
            settled = replace(others, folder=out)
        elif count > 1:
            also = "; a table of all: --csv FILE" if out.suffix.lower() == ".csv" else ""
            raise FcosError(f"--out {out} is one file, but there are {count} images; name a folder{also}")
        else:
            settled = replace(others, file=out)
        if moving and (settled.file or (out is not None and out.suffix and is_video(out) and not out.is_dir())):
            raise FcosError(f"--out {out}: of a video several files are written; name a folder")
        return settled


def folders(sources: Sequence[str]) -> tuple[Path, ...]:
    """The sources as paths, for `Outputs.below`."""
    return tuple(Path(os.path.expanduser(source)) for source in sources)


def tell_left_out(sources: Sequence[str]) -> None:
    """A line for each folder whose images are taken, and that has videos too."""
    for folder in sources:
        if count := videos_in(folder):
            say(f"{folder} has {plural(count, 'video')}, which {'is' if count == 1 else 'are'} left out; name each")


def pick_runtime(asked: str | None, count: int) -> str | None:
    """The runtime for `count` images: that of --runtime, but the model's own for few images where it is left out or
    auto and FCOS_RUNTIME is not set."""
    if asked not in (None, "auto") or count >= PAYS or os.environ.get("FCOS_RUNTIME"):
        return asked
    if asked == "auto":
        say(f"fewer than {PAYS} images: torch computes, since a graph takes longer to start than it saves")
    return "own"


def proposing(detector: Detector | Composite) -> Detector:
    """A detector that gives the best boxes of any class; FcosError where several models or looks are combined."""
    if not isinstance(detector, Detector):
        raise FcosError("--proposals are of one model that looks once: no --tile, no --tta, no second --model")
    return proposer(detector)


def shown_scores(detector: Detector | Composite, score: str | None, classes: str | None) -> tuple[Tensor, Tensor]:
    """(the score of each class [C] from which a detection is shown, the least [C] that is looked at): of --score, else
    the model's own, and none of the classes that --classes leaves out."""
    scores = parse_scores(score or str(detector.shown), detector.classes, detector.shown)
    least = torch.zeros_like(scores)
    if classes is None:
        return scores, least
    return only(scores, classes, detector.classes), only(least, classes, detector.classes)
