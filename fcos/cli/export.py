"""`fcos export`: a detector as a file for another runtime, checked against itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..system.stderr import say
from . import complete
from .common import (
    DEFAULT,
    MODEL,
    Json,
    MaybeModel,
    Settings,
    dtype_option,
    model_words,
    sort_words,
    tell_unused,
    the_one,
)


def command(
    context: typer.Context,
    words: Annotated[list[str] | None, model_words(f"{MODEL} Then settings to store.")] = None,
    settings: Settings = None,
    model: MaybeModel = None,
    format: Annotated[
        str | None,
        typer.Option(
            "--format",
            "-f",
            autocompletion=complete.exports,
            help="onnx, openvino, tensorrt, torchscript, executorch, coreml, litert, html, triton. Default: by --out.",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="File or folder to write. Default: named after the model.")
    ] = None,
    dynamic: Annotated[
        str | None,
        typer.Option(
            "--dynamic",
            help="What may change later: batch,size, batch, size or none. Default: as much as the format allows.",
        ),
    ] = None,
    size: Annotated[
        str | None, typer.Option("--size", help="Input HxW, if the size is fixed. Default: a square of data.size.")
    ] = None,
    nms: Annotated[
        bool, typer.Option("--nms", help="Put decoding and NMS into the file: it then gives boxes.")
    ] = False,
    dtype: Annotated[
        str | None,
        dtype_option("fp32, fp16 or int8. Default: fp32; html: fp16."),
    ] = None,
    calibrate: Annotated[
        Path | None, typer.Option("--calibrate", help="For int8: data set with images like those to come.")
    ] = None,
    images: Annotated[int, typer.Option("--images", min=1, help="For int8: how many of these images to use.")] = 200,
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="Data set for the check; AP is then compared too.")
    ] = None,
    split: Annotated[
        str | None,
        typer.Option(
            "--split",
            autocompletion=complete.splits,
            help="Split of --data. Default: test, else val, else the only one.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write a model for another runtime, and check what it detects.

    \b
    fcos export runs/mine --out mine.onnx
    fcos export runs/mine --format openvino --dtype int8 \\
        --calibrate my_data --data my_data

    \b
    The file gets its name only if it detects the same as torch, within
    limits. Else it is OUT.rejected, and the exit code is 1.
    """
    import json
    import sys

    from ..export.job import Job, run
    from ..export.named import named

    things, overrides = sort_words(words, settings, context)
    if calibrate is None:
        tell_unused(context, "an export without --calibrate", "images")
    if data is None:
        tell_unused(context, "an export without --data", "split")
    name = the_one(things, model, "--model") or DEFAULT
    result = run(
        Job(lambda: named(name, overrides), format, out, dynamic, size, nms, dtype, calibrate, images, data, split),
        say=say,
    )
    typer.echo(json.dumps(result.to_dict()) if as_json else result.text())
    if result.wrong:
        sys.exit(1)
