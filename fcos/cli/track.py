"""`fcos track`: follow objects through a video and count them."""

from __future__ import annotations

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
    detecting_words,
    runtime_option,
    tell_looks,
    tell_unused,
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
    from ..errors import FcosError
    from ..inference.composite import Looks, tile_of
    from ..inference.load import load_together
    from ..inference.scores import of_classes
    from ..inference.video import Reader
    from ..inference.video_stream import stream
    from ..system.files import check_folder
    from ..tracking.follow import follow, make_tracker
    from ..tracking.tracks import TrackConfig
    from .track_run import files_in, looked_at, parse_counters, tell, write

    things, overrides = detecting_words(words, settings, context, calibrated)
    if len(things) != 1:
        raise FcosError("give one video, or the folder of its images: fcos track VIDEO")
    (source,) = things
    check_folder(out)
    if not count_line and not zone:
        tell_unused(context, "a video without --count-line and --zone", "margin")
    counters = parse_counters(count_line or (), zone or (), margin)
    make_tracker(tracker)  # an unknown name is told before a model is loaded
    looks = Looks(tile_of(tile), overlap)
    detector = load_together([model], looks, runtime=runtime, device=device, trust=trust, overrides=overrides)
    tell_looks(context, tile, model, detector.config.data.tile)
    config = TrackConfig.from_score(detector.shown if score is None else score, patience)
    chosen = make_tracker(tracker, config)
    least = looked_at(detector, config.low, classes)
    with Reader(source, rate) as reader:
        files = files_in(out, source, draw=draw, counts=counters.any)
        seen = stream(detector, reader, every=every, batch=batch, score=config.low)
        outcome = write(follow(of_classes(seen, least), chosen), reader, files, counters, as_json)
    tell(outcome, files, counters, as_json)
    if reader.broken:
        say(reader.broken)
    if reader.broken or outcome.undrawn:
        sys.exit(1)
