"""`fcos predict`: detect in images, folders and videos."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

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
    detecting_words,
    dtype_option,
    refuse,
    runtime_option,
    tell_looks,
    tell_unused,
)


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
    fcos predict many --engine local --out rows

    \b
    An image that cannot be read is reported, and the others go on. The exit
    code is then 1.
    """
    from ..inference.composite import OWN, Looks, tile_of
    from ..inference.load import Placing, load_together
    from ..inference.sources import find_images
    from ..inference.stream import pick_lanes
    from ..inference.video import videos_apart
    from ..inference.views import parse_views
    from ..inference.writers import Outputs
    from .predict_plan import Asked, folders, pick_runtime, proposing, shown_scores, tell_left_out
    from .predict_run import Detecting, Listener, images, in_parts, videos

    things, overrides = detecting_words(words, settings, context, calibrated)
    if not things:
        raise FcosError("give the images or a folder to detect in: fcos predict IMAGE")
    if data is not None and coco is None:
        raise FcosError("--data gives the ids that --coco writes; add --coco FILE")
    if engine is not None:
        from ..scale.detector import Work
        from ..scale.engine import Engine

        refuse(context, "--engine", "classes", "proposals", "as_json", "coco", "csv", "yolo", "data")
        tell_unused(context, "--engine", "every", "lanes")
        work = Work(
            tuple(model or [DEFAULT]), tuple(overrides), score or "", device, runtime, dtype, threads, 1,
            batch, trust, tile, overlap, tta,
        )  # fmt: skip
        in_parts(things, out, parts, resume, work, Engine(engine, address, gpus, cpus, threads))
        return
    refuse(context, "a run without --engine", "resume", "address", "gpus", "cpus")
    tell_unused(context, "a run without --engine", "parts")
    moving, still = videos_apart(things)
    if not moving:
        tell_unused(context, "a run without a video", "every")
    if moving and (proposals or coco or yolo or csv):
        raise FcosError("--proposals, --coco, --yolo and --csv are for images; a video gives a video and JSON lines")
    asked = Asked(out, as_json, Outputs(yolo=yolo, coco=coco, csv=csv, below=folders(still)))
    paths = find_images(still, out=asked.drawn_in) if still else []
    if not paths and not moving:
        say("there are no images to detect in, and nothing is written")
        return
    tell_left_out(still)
    outputs = asked.outputs(len(paths), moving=bool(moving))
    lanes = lanes or pick_lanes(len(paths), batch, threads)
    runtime = runtime if moving else pick_runtime(runtime, len(paths))
    placing = Placing(runtime=runtime, dtype=dtype, threads=threads, lanes=lanes, device=device, trust=trust)
    looks = Looks(OWN if tile is None and not proposals else tile_of(tile or "none"), overlap, parse_views(tta))
    names = model or [DEFAULT]
    detector = load_together(names, looks, overrides=overrides, **placing)
    tell_looks(context, tile, names[0], None if proposals else detector.config.data.tile)
    if proposals:
        refuse(context, "--proposals", "calibrated")
        if asked.nothing:
            raise FcosError("--proposals are many: name a file with --coco, or give --json, --csv, --yolo or --out")
        detector = proposing(detector)
    scores, least = shown_scores(detector, score, classes)
    how = Detecting(detector, scores, least, batch, as_json, classes is not None, Listener())
    broken = bool(moving) and videos(how, moving, every, outputs.folder, more=bool(paths))
    if paths:
        broken |= images(how, paths, outputs, data)
    how.listener.check()
    if broken:
        sys.exit(1)
