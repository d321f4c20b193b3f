"""`fcos bench`: how fast models and ways of running them are on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from . import complete
from .common import MODEL, Device, Json, Settings, Trust, dtype_option, model_words, runtime_option, sort_words

_MANY = "several with commas between"


def command(
    context: typer.Context,
    words: Annotated[list[str] | None, model_words()] = None,
    settings: Settings = None,
    model: Annotated[
        list[str] | None, typer.Option("--model", "-m", autocompletion=complete.models, help=f"{MODEL[:-1]}; {_MANY}.")
    ] = None,
    runtime: Annotated[list[str] | None, runtime_option(f"; {_MANY}. Otherwise the file's own.")] = None,
    dtype: Annotated[
        list[str] | None, dtype_option(f"fp32, bf16, fp16, int8; {_MANY}. Otherwise the file's own.")
    ] = None,
    size: Annotated[list[str] | None, typer.Option("--size", help=f"Image size, HxW or one number; {_MANY}.")] = None,
    batch: Annotated[list[str] | None, typer.Option("--batch", help=f"Images at a time; {_MANY}.")] = None,
    lanes: Annotated[
        list[str] | None, typer.Option("--lanes", help=f"Images computed side by side on the same threads; {_MANY}.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0: the runtime chooses.")] = 0,
    rounds: Annotated[
        int,
        typer.Option("--rounds", min=1, max=1_000_000, help="How often each is measured, in turns; the median counts."),
    ] = 5,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            autocompletion=complete.among("torchvision"),
            help="torchvision: compare with its fcos_resnet50_fpn, the same weights.",
        ),
    ] = None,
    device: Device = "auto",
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Measure how fast a model is, from a JPEG file to boxes.

    \b
    fcos bench fcos-lite0 runs/mine --runtime torch,openvino
    fcos bench --against torchvision --size 640 --threads 2
    """
    import json

    from ..bench.rows import Ways, bench
    from ..bench.ways import Conditions

    batches = _counts("--batch", batch)
    things, overrides = sort_words(words, settings, context)
    ways = Ways(
        models=[*things, *_split(model, "")],
        runtimes=_split(runtime, ""),
        dtypes=_split(dtype, ""),
        sizes=_split(size, ""),
        batches=batches,
        lanes=_counts("--lanes", lanes),
    )
    report = bench(
        ways,
        Conditions(threads=threads, rounds=rounds, device=device, settings=overrides, trust=trust),
        against=against,
        say=lambda line: typer.echo(line, err=True),
    )
    typer.echo(json.dumps(report.to_dict()) if as_json else report.text())


def _counts(option: str, values: list[str] | None) -> list[int]:
    from ..errors import FcosError

    try:
        counts = [int(value) for value in _split(values, "1")]
        if not counts:
            raise ValueError
    except ValueError:
        raise FcosError(f"{option} {','.join(values or ())}: write whole numbers, such as 1,8") from None
    if min(counts) < 1:
        raise FcosError(f"{option} {min(counts)}: at least 1 image")
    return counts


def _split(values: list[str] | None, default: str) -> list[str]:
    return [part.strip() for value in values or [default] for part in value.split(",") if part.strip()]
