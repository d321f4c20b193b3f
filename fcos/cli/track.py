"""`fcos track`: follow objects through a video and count them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from ..system.stderr import say
from . import complete
from .common import (
    DEFAULT,
    Calibrated,
    Classes,
    Device,
    Model,
    Overlap,
    Settings,
    Tile,
    Trust,
    check_detecting,
    check_overlap,
    ended_by_signals,
    refuse,
    runtime_option,
    sort_words,
    tell_tiles,
)


def command(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="VIDEO|FOLDER|KEY=VALUE",
            autocompletion=complete.path_or_setting,
            help="Video file, folder or pattern of images, camera number, or address of a stream; then settings.",
        ),
    ] = None,
    settings: Settings = None,
    model: Model = DEFAULT,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the video, the JSON lines and the MOTChallenge file.")
    ] = Path("tracks"),
    tracker: Annotated[
        str,
        typer.Option(
            "--tracker",
            autocompletion=complete.among("bytetrack", "ocsort"),
            help="How boxes are joined to tracks: bytetrack or ocsort.",
        ),
    ] = "bytetrack",
    every: Annotated[int, typer.Option("--every", min=1, max=10**9, help="Look at every Nth frame only.")] = 1,
    rate: Annotated[
        float | None, typer.Option("--rate", help="Frames a second, where the source is images. Default: 25.")
    ] = None,
    score: Annotated[
        float | None,
        typer.Option("--score", min=0, max=1, help="Score from which a track begins. Default: the model's own."),
    ] = None,
    classes: Classes = None,
    patience: Annotated[
        float,
        typer.Option(
            "--patience", min=0, max=3600, help="Seconds that an object may be out of sight before its track ends."
        ),
    ] = 1.0,
    count_line: Annotated[
        list[str] | None,
        typer.Option("--count-line", help="x1,y1,x2,y2: count the objects that cross this line. May be repeated."),
    ] = None,
    zone: Annotated[
        list[str] | None,
        typer.Option(
            "--zone", help="x1,y1,x2,y2,x3,y3,...: count the objects that enter and leave this area. May be repeated."
        ),
    ] = None,
    margin: Annotated[
        float,
        typer.Option(
            "--margin", min=0, max=1, help="How far beyond a line or edge counts as over it, in heights of the box."
        ),
    ] = 0.05,
    device: Device = "auto",
    calibrated: Calibrated = False,
    trust: Trust = False,
    runtime: Annotated[str | None, runtime_option(" or auto, the fastest.")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, max=10**6, help="Frames in one forward pass.")] = 1,
    tile: Tile = None,
    overlap: Overlap = 0.2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, one line for each frame.")] = False,
    draw: Annotated[bool, typer.Option("--video/--no-video", help="Write a video with the tracks drawn.")] = True,
) -> None:
    """Follow objects through a video: ids, trails, counts.

    \b
    fcos track street.mp4 --model runs/mine
    fcos track street.mp4 --count-line 0,300,640,300
    fcos track street.mp4 --no-video --json
    fcos track MOT17-02/img1 --rate 30
    """
    import torch

    from ..errors import FcosError
    from ..inference.composite import Looks, tile_of
    from ..inference.load import load_together
    from ..inference.scores import of_classes, only
    from ..inference.video import Frame, Reader, called, frame_line
    from ..inference.video_stream import stream
    from ..show.frames import Painter, VideoFiles, write_frames
    from ..system.files import check_folder
    from ..system.progress import Bar
    from ..system.terminal import plural
    from ..tracking.counting import parse_line, parse_zone
    from ..tracking.follow import follow, make_tracker
    from ..tracking.tracks import TrackConfig

    things, overrides = sort_words(words, settings, context)
    check_detecting(overrides)
    overrides += ["decode.calibrated=true"] if calibrated else []
    if len(things) != 1:
        raise FcosError("give one video, or the folder of its images: fcos track VIDEO")
    (source,) = things
    check_folder(out)
    if not count_line and not zone:
        refuse(context, "a video without --count-line and --zone", "margin")
    lines = [parse_line(text, margin) for text in count_line or []]
    zones = [parse_zone(text, margin) for text in zone or []]
    painter = Painter(lines, zones)
    make_tracker(tracker)  # an unknown name is told before a model is loaded
    looks = Looks(tile_of(tile), overlap)
    detector = load_together([model], looks, runtime=runtime, device=device, trust=trust, overrides=overrides)
    check_overlap(context, tile, detector.config.data.tile)
    if tile is None:
        tell_tiles(model, detector.config.data.tile)
    config = TrackConfig.from_score(detector.shown if score is None else score, patience)
    chosen = make_tracker(tracker, config)
    least = torch.full((len(detector.classes),), config.low)
    if classes is not None:
        least = only(least, classes, detector.classes)
    name = called(source)
    with Reader(source, rate) as reader:
        files = VideoFiles(
            out / f"{name}.mp4" if draw else None, out / f"{name}.jsonl", out / f"{name}.txt",
            Path(source) if draw and os.path.isfile(source) else None,
            out / f"{name}.counts.json" if lines or zones else None,
        )  # fmt: skip
        seen = stream(detector, reader, every=every, batch=batch, score=config.low)
        frames = follow(of_classes(seen, least), chosen)
        with Bar("tracking", reader.info.frames or None, "frames") as bar:

            def each(frame: Frame) -> None:
                bar.advance()
                if as_json and frame.detections is not None:
                    typer.echo(frame_line(frame))

            with ended_by_signals(reader):
                outcome = write_frames(frames, reader.info, files, painter, each)
    objects, frames_read = plural(len(outcome.objects), "object"), plural(outcome.frames, "frame")
    classes_seen = f" ({outcome.classes()})" if outcome.objects else ""
    typer.echo(f"{objects}{classes_seen} in {frames_read}, detected in {outcome.detected}", err=as_json)
    for text, line in zip(count_line or [], lines, strict=True):
        typer.echo(_counted(f"line {text}", line.entered, line.left), err=as_json)
    for text, area in zip(zone or [], zones, strict=True):
        typer.echo(_counted(f"zone {text}", area.entered, area.left), err=as_json)
    drawn = None if outcome.undrawn else files.drawn
    written = [p for p in (drawn, files.lines, files.mot, files.counts) if p is not None]
    typer.echo(f"written: {', '.join(str(p) for p in written)}", err=as_json)
    if reader.broken:
        say(reader.broken)
    if reader.broken or outcome.undrawn:
        sys.exit(1)


def _counted(title: str, entered: dict[str, int], left: dict[str, int]) -> str:
    from ..system.terminal import table

    names = sorted({*entered, *left})
    rows = [(name, entered.get(name, 0), left.get(name, 0)) for name in names]
    total = ("all", sum(entered.values()), sum(left.values()))
    return f"\n{title}\n" + table(("class", "in", "out"), [*rows, total])
