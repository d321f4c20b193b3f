"""fcos bench"""

from __future__ import annotations

from typing import Annotated

import typer

_MANY = "may be repeated or joined by commas"


def command(
    model: Annotated[list[str] | None, typer.Option("--model", help=f"Name, run folder or file; {_MANY}.")] = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option("--runtime", help=f"torch, compile, onnx, openvino, tensorrt; {_MANY}. Otherwise the file's own."),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option("--dtype", help=f"fp32, bf16, fp16, int8; {_MANY}. Otherwise the file's own."),
    ] = None,
    size: Annotated[list[str] | None, typer.Option("--size", help=f"Picture as HxW or one number; {_MANY}.")] = None,
    batch: Annotated[list[str] | None, typer.Option("--batch", help=f"Pictures at a time; {_MANY}.")] = None,
    lanes: Annotated[
        list[str] | None, typer.Option("--lanes", help=f"Pictures in work at once, sharing the threads; {_MANY}.")
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=0, help="Threads; 0: the runtime's own choice.")] = 0,
    rounds: Annotated[int, typer.Option("--rounds", min=1, help="Alternating rounds whose medians count.")] = 5,
    against: Annotated[
        str | None, typer.Option("--against", help="torchvision: its fcos_resnet50_fpn with the same weights.")
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, mps.")] = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")] = False,
) -> None:
    """Latency and throughput from a JPEG file to boxes, with the share of the machine's peak.

    Example: fcos bench --against torchvision --runtime torch,openvino --size 640 --threads 2
    """
    import json

    from ..bench.rows import bench

    batches = _counts("--batch", batch)
    report = bench(
        _split(model, ""),
        _split(runtime, ""),
        _split(dtype, ""),
        _split(size, ""),
        batches,
        _counts("--lanes", lanes),
        threads=threads,
        rounds=rounds,
        against=against,
        device=device,
        say=lambda line: typer.echo(line, err=True),
    )
    typer.echo(json.dumps(report.to_dict()) if as_json else report.text())


def _counts(option: str, values: list[str] | None) -> list[int]:
    from ..errors import FcosError

    try:
        counts = [int(value) for value in _split(values, "1")]
    except ValueError:
        raise FcosError(f"{option} {','.join(values or ())}: write whole numbers, such as 1,8") from None
    if min(counts) < 1:
        raise FcosError(f"{option} {min(counts)}: at least 1 picture")
    return counts


def _split(values: list[str] | None, default: str) -> list[str]:
    return [part.strip() for value in values or [default] for part in value.split(",") if part.strip()]
