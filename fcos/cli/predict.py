"""fcos predict"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer


def command(
    sources: Annotated[list[str], typer.Argument(help="Pictures, folders, globs, or - for paths on standard input.")],
    settings: Annotated[
        list[str] | None, typer.Option("--set", help="Setting, such as decode.nms_iou=0.5; may be repeated.")
    ] = None,
    model: Annotated[str, typer.Option("--model", help="Name, run folder or file.")] = "fcos-lite0",
    out: Annotated[Path | None, typer.Option("--out", help="Folder for annotated pictures.")] = None,
    score: Annotated[
        str | None,
        typer.Option(
            "--score",
            help="Lowest score shown (0.5; 0.25 where scores are products); by class: person=0.4,dog=0.5 or FILE.json.",
        ),
    ] = None,
    proposals: Annotated[
        bool, typer.Option("--proposals", help="The 1000 best boxes of any class, by score and centerness.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines on stdout, one per picture.")] = False,
    coco: Annotated[Path | None, typer.Option("--coco", help="Write COCO results to this file.")] = None,
    yolo: Annotated[Path | None, typer.Option("--yolo", help="Write YOLO txt files to this folder.")] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, mps.")] = "auto",
    runtime: Annotated[
        str | None, typer.Option("--runtime", help="torch, compile, onnx, openvino, tensorrt or auto, the fastest.")
    ] = None,
    dtype: Annotated[str | None, typer.Option("--dtype", help="fp32, bf16 or fp16.")] = None,
    batch: Annotated[int, typer.Option("--batch", min=1, help="Pictures of one size that share a pass.")] = 1,
    threads: Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0: all cores.")] = 0,
    lanes: Annotated[
        int,
        typer.Option("--lanes", min=0, help="Pictures in work at once on a CPU, sharing its threads; 0: best."),
    ] = 0,
) -> None:
    """Detect objects in pictures.

    Example: fcos predict photos/ --model runs/mine --out found
    A picture that cannot be read is reported and the rest go on; the exit code is then 1.
    """
    import json
    import time

    from ..errors import FcosError
    from ..files import check_folder
    from ..inference.load import load
    from ..inference.proposals import proposer
    from ..inference.scores import parse_scores
    from ..inference.sources import find_images
    from ..inference.stream import pick_lanes, run
    from ..inference.writers import Outcome, Writer, unique_names

    check_folder(out)
    check_folder(yolo, "--yolo")
    paths = find_images(sources, out=out)
    lanes = lanes or pick_lanes(len(paths), batch, threads)
    detector = load(
        model, runtime=runtime, dtype=dtype, threads=threads, lanes=lanes, device=device,
        overrides=settings or [],
    )  # fmt: skip
    if proposals:
        if not (out or as_json or coco or yolo):
            raise FcosError("--proposals are many: name a file with --coco, or give --json, --yolo or --out")
        detector = proposer(detector)
    scores = parse_scores(score or str(detector.shown), detector.classes, detector.shown)
    if out is None and not (as_json or coco or yolo):
        out = Path("predictions")
    writer = Writer(out, yolo, coco, detector.classes.ids)
    outcome = Outcome()
    wide = min(48, max((len(str(p)) for p in paths), default=0))
    names = unique_names(paths)
    began = time.perf_counter()
    for name, (path, image, found) in zip(names, run(detector, paths, scores, batch), strict=True):
        if isinstance(found, FcosError):
            outcome.broken.append(str(found))
            typer.echo(f"fcos: {found}", err=True)
            continue
        writer.add(name, path, image, found)
        outcome.images += 1
        outcome.detections += len(found)
        line = json.dumps(found.to_dict(), ensure_ascii=False) if as_json else f"{path!s:<{wide}}  {found.summary()}"
        typer.echo(line)
    writer.close()
    rate = outcome.images / max(time.perf_counter() - began, 1e-9)
    if not as_json:
        where = f", drawn in {out}" if out is not None and outcome.images else ""
        boxes = f"{outcome.detections} detection{'s' if outcome.detections != 1 else ''}"
        images = f"{outcome.images} picture{'s' if outcome.images != 1 else ''}"
        typer.echo(f"{boxes} in {images}{where}; {rate:.1f} pictures a second", err=True)
    if outcome.broken:
        sys.exit(1)
