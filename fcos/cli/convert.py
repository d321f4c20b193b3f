"""`fcos convert`: checkpoints of other code bases, there and back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from ..system.stderr import say
from . import complete
from .common import WORDS, Settings, sort_words, tell_unused

SourceName = Literal["auto", "torchvision", "detectron2", "adelaidet", "original", "mmdet"]
TargetName = Literal["torchvision", "detectron2", "adelaidet", "original", "mmdet"]


def command(
    context: typer.Context,
    checkpoint: Annotated[str, typer.Argument(help="Checkpoint of another code base; with --to, a model of fcos.")],
    out: Annotated[Path, typer.Argument(help="File to write: .safetensors; with --to: .pth or .pkl.")],
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar=WORDS, autocompletion=complete.settings, help="Settings to store in the converted file."
        ),
    ] = None,
    settings: Settings = None,
    source: Annotated[
        SourceName, typer.Option("--from", help="Code base that the checkpoint is from, if it is not recognised.")
    ] = "auto",
    target: Annotated[TargetName | None, typer.Option("--to", help="Write the file for this code base.")] = None,
    dialect: Annotated[
        str | None,
        typer.Option(
            "--dialect",
            autocompletion=complete.dialects,
            help="Dialect of the checkpoint, if its tensors do not show it: original-2019, adelaidet-iou, ...",
        ),
    ] = None,
    names: Annotated[Path | None, typer.Option("--names", help="Text file with one class name on each line.")] = None,
    fold: Annotated[
        bool, typer.Option("--fold", help="Move channel order and pixel deviation into the first convolution.")
    ] = False,
) -> None:
    """Convert FCOS checkpoints from and to five other projects.

    \b
    fcos convert fcos_resnet50_fpn_coco.pth tv.safetensors
    fcos convert tv.safetensors back.pth --to torchvision
    """
    import shlex

    from ..convert.translate import Hints, convert, export
    from ..errors import ConfigError, ModelError
    from ..system.readers import read_lines
    from ..system.terminal import plural
    from ..zoo.find import find_weights

    things, overrides = sort_words(words, settings, context)
    if things:
        raise ConfigError(f"{things[0]!r} is no setting; write KEY=VALUE")
    if target is not None:
        tell_unused(context, "--to", "source", "dialect", "names")
        if overrides:
            say(f"note: --to takes no settings, which a file of fcos stores; {overrides[0]} changes nothing")
        if out.suffix not in (".pth", ".pt", ".pkl"):
            raise ModelError(f"{out} must end in .pth or .pkl with --to {target}")
        count, needs = export(find_weights(checkpoint), out, target, fold=fold)
        typer.echo(f"{out}: {plural(count, 'tensor')} under the names of {target}")
        for line in needs:
            typer.echo(f"  set in its config: {line}")
        return
    if out.suffix != ".safetensors":
        raise ModelError(f"{out} must end in .safetensors; to write for another code base add --to")
    listed: list[str] = []
    if names is not None:
        listed = [line.strip() for line in read_lines(names, kind=ConfigError) if line.strip()]
    hints = Hints(source, dialect, listed, overrides)
    converted = convert(checkpoint, out, hints, fold=fold)
    typer.echo(f"{checkpoint} is {converted.family}'s")
    for reason in converted.reasons:
        typer.echo(f"  {reason}")
    for name in converted.spare:
        typer.echo(f"  left out: {name}")
    typer.echo(
        f"{out}: {plural(len(converted.state), 'tensor')}, dialect {converted.config.dialect}, "
        f"{plural(len(converted.classes), 'class')}"
    )
    typer.echo(f"next: fcos predict IMAGE --model {shlex.quote(str(out))}")
