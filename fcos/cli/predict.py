"""`fcos predict`: detect in images, folders and videos."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import FcosError
from ..system.stderr import say
from . import complete
from .common import (
    DEFAULT,
    Calibrated,
    Classes,
    Device,
    Lanes,
    Models,
    Overlap,
    Settings,
    Threads,
    Tile,
    Trust,
    Views,
    check_detecting,
    check_overlap,
    dtype_option,
    refuse,
    runtime_option,
    sort_words,
    tell_tiles,
)

if TYPE_CHECKING:
    from ..inference.composite import Composite
    from ..inference.detector import Detector
    from ..inference.writers import Outputs


def command(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE|KEY=VALUE",
            autocompletion=complete.path_or_setting,
            help="Images, folders, patterns, videos, or - to read paths from standard input; then settings.",
        ),
    ] = None,
    settings: Settings = None,
    model: Models = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder for the drawn images; for one image also a file. Default: predictions."
        ),
    ] = None,
    score: Annotated[
        str | None,
        typer.Option(
            "--score",
            help="Lowest score to show. Default: the model's own. By class: person=0.4,dog=0.5 or FILE.json.",
        ),
    ] = None,
    classes: Classes = None,
    calibrated: Calibrated = False,
    proposals: Annotated[
        bool, typer.Option("--proposals", help="Give the 1000 best boxes of any class instead.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one line for each image.")] = False,
    coco: Annotated[
        Path | None, typer.Option("--coco", help="Write COCO results to this file, and the list of images beside it.")
    ] = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help="Write a table to this file, a row for each detection.")
    ] = None,
    yolo: Annotated[Path | None, typer.Option("--yolo", help="Write YOLO files with scores to this folder.")] = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", "-d", help="Data set of the images; --coco then writes its ids."),
    ] = None,
    device: Device = "auto",
    runtime: Annotated[str | None, runtime_option("; auto: make the fastest first. Default: what is ready.")] = None,
    dtype: Annotated[
        str | None, dtype_option("fp32, bf16 or fp16. Default: the fastest that passed its check.")
    ] = None,
    batch: Annotated[
        int, typer.Option("--batch", min=1, max=10**6, help="Images of one size in one forward pass.")
    ] = 1,
    threads: Threads = 0,
    lanes: Lanes = 0,
    trust: Trust = False,
    tile: Tile = None,
    overlap: Overlap = 0.2,
    tta: Views = "",
    every: Annotated[
        int, typer.Option("--every", min=1, max=10**9, help="In a video, look at every Nth frame only.")
    ] = 1,
    engine: Annotated[
        str | None,
        typer.Option(
            "--engine",
            autocompletion=complete.engines,
            help="For very many images: local or ray. Writes rows to the folder --out (fcos help scale).",
        ),
    ] = None,
    parts: Annotated[str, typer.Option("--parts", help="With --engine, files to write: parquet or jsonl.")] = "parquet",
    resume: Annotated[bool, typer.Option("--resume", help="With --engine, continue the job in --out.")] = False,
    address: Annotated[
        str | None, typer.Option("--address", help="With --engine ray, address of a running Ray, or auto.")
    ] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", help="With --engine, GPUs to use, one worker on each.")] = None,
    cpus: Annotated[
        int | None, typer.Option("--cpus", help="With --engine, CPU cores to use; each worker takes --threads of them.")
    ] = None,
) -> None:
    """Detect objects in images and videos.

    \b
    fcos predict photo.jpg --out found.jpg
    fcos predict photos --model runs/mine --out found
    fcos predict photos --coco results.json --score 0
    fcos predict big.tif --tile auto --out found
    fcos predict clip.mp4 --out found
    fcos predict many --engine ray --out rows

    \b
    An image that cannot be read is reported, and the others go on. The exit
    code is then 1.
    """
    import torch

    from ..inference.composite import OWN, Looks, tile_of
    from ..inference.load import load_together
    from ..inference.scores import only, parse_scores
    from ..inference.sources import find_images
    from ..inference.stream import pick_lanes
    from ..inference.video import is_video, videos_apart, videos_in
    from ..inference.views import parse_views
    from ..inference.writers import Outputs
    from ..system.terminal import plural
    from .predict_run import Detecting, Listener, images, in_parts, videos

    things, overrides = sort_words(words, settings, context)
    check_detecting(overrides)
    overrides += ["decode.calibrated=true"] if calibrated else []
    if not things:
        raise FcosError("give the images or a folder to detect in: fcos predict IMAGE")
    if data is not None and coco is None:
        raise FcosError("--data gives the ids that --coco writes; add --coco FILE")
    if engine is not None:
        from ..scale.detector import Work
        from ..scale.engine import Engine

        refuse(context, "--engine", "classes", "proposals", "as_json", "coco", "csv", "yolo", "data", "every", "lanes")
        work = Work(
            tuple(model or [DEFAULT]), tuple(overrides), score or "", device, runtime, dtype, threads, 1,
            batch, trust, tile, overlap, tta,
        )  # fmt: skip
        in_parts(things, out, parts, resume, work, Engine(engine, address, gpus, cpus, threads))
        return
    refuse(context, "a run without --engine", "parts", "resume", "address", "gpus", "cpus")
    moving, still = videos_apart(things)
    if not moving:
        refuse(context, "a run without a video", "every")
    if moving and (proposals or coco or yolo or csv):
        raise FcosError("--proposals, --coco, --yolo and --csv are for images; a video gives a video and JSON lines")
    below = tuple(Path(os.path.expanduser(source)) for source in still)
    others = Outputs(None, None, yolo, coco, csv=csv, below=below)
    paths = find_images(still, out=_drawn_in(out, others, as_json)) if still else []
    if not paths and not moving:
        say("there are no images to detect in, and nothing is written")
        return
    for folder in still:
        if count := videos_in(folder):
            say(f"{folder} has {plural(count, 'video')}, which {'is' if count == 1 else 'are'} left out; name each")
    outputs = _outputs(out, others, as_json, len(paths))
    if moving and (outputs.file or (out is not None and out.suffix and is_video(out) and not out.is_dir())):
        raise FcosError(f"--out {out}: of a video several files are written; name a folder")
    lanes = lanes or pick_lanes(len(paths), batch, threads)
    if not moving:
        runtime = _runtime(runtime, len(paths))
    own = tile is None and not proposals
    detector = load_together(
        model or [DEFAULT],
        Looks(OWN if own else tile_of(tile or "none"), overlap, parse_views(tta)),
        runtime=runtime,
        dtype=dtype,
        threads=threads,
        lanes=lanes,
        device=device,
        trust=trust,
        overrides=overrides,
    )
    check_overlap(context, tile, None if proposals else detector.config.data.tile)
    if own:
        tell_tiles((model or [""])[0], detector.config.data.tile)
    if proposals:
        refuse(context, "--proposals", "calibrated")
        if not (out or as_json or coco or yolo or csv):
            raise FcosError("--proposals are many: name a file with --coco, or give --json, --csv, --yolo or --out")
        detector = _proposer(detector)
    scores = parse_scores(score or str(detector.shown), detector.classes, detector.shown)
    least = torch.zeros_like(scores)
    if classes is not None:
        scores, least = (only(each, classes, detector.classes) for each in (scores, least))
    how = Detecting(detector, scores, least, batch, as_json, classes is not None, Listener())
    broken = bool(moving) and videos(how, moving, every, outputs.folder, more=bool(paths))
    if paths:
        broken |= images(how, paths, outputs, data)
    how.listener.check()
    if broken:
        sys.exit(1)


def _runtime(asked: str | None, count: int) -> str | None:
    """The runtime for `count` images: that of --runtime, but the model's own for few images where it is left out or
    auto and FCOS_RUNTIME is not set."""
    from ..inference.runtime_switch import PAYS

    if asked not in (None, "auto") or count >= PAYS or os.environ.get("FCOS_RUNTIME"):
        return asked
    if asked == "auto":
        say(f"fewer than {PAYS} images: torch computes, since a graph takes longer to start than it saves")
    return "own"


def _proposer(detector: Detector | Composite) -> Detector:
    """A detector that gives the best boxes of any class; FcosError where several models or looks are combined."""
    from ..inference.detector import Detector
    from ..inference.proposals import proposer

    if not isinstance(detector, Detector):
        raise FcosError("--proposals are of one model that looks once: no --tile, no --tta, no second --model")
    return proposer(detector)


def _drawn_in(out: Path | None, others: Outputs, as_json: bool) -> Path | None:
    """The folder or file of --out, or the one that is written to where nothing is asked for."""
    return Path("predictions") if out is None and not as_json and others.nothing else out


def _outputs(out: Path | None, others: Outputs, as_json: bool, count: int) -> Outputs:
    """What to write, of `others` and `out`; FcosError where a folder is a file, or one file is to hold several
    images."""
    from dataclasses import replace

    from ..inference.writers import SUFFIXES
    from ..system.files import check_folder, check_suffix

    out = _drawn_in(out, others, as_json)
    check_folder(others.yolo, "--yolo")
    if others.coco is not None:
        check_suffix(others.coco, (".json",), "COCO results are JSON", "--coco")
    if others.csv is not None:
        check_suffix(others.csv, (".csv",), "a table is CSV", "--csv")
    if out is None or out.is_dir() or out.suffix.lower() not in SUFFIXES:
        check_folder(out)
        return replace(others, folder=out)
    if count > 1:
        also = "; a table of all: --csv FILE" if out.suffix.lower() == ".csv" else ""
        raise FcosError(f"--out {out} is one file, but there are {count} images; name a folder{also}")
    return replace(others, file=out)
