"""`fcos models`: the models that --model takes, and what is done with their files."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import DataError, first_line
from ..system.stderr import say
from ..system.terminal import plural, table
from . import complete
from .common import Split, open_to_judge, refuse, tell_unused

if TYPE_CHECKING:
    from ..data.dataset import Dataset

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)

Metrics = Annotated[
    Path | None, typer.Option("--metrics", help="Result of fcos eval --json, or metrics.json of fcos eval --out.")
]


@app.callback()
def models(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="One JSON list on stdout.")] = False
) -> None:
    """List the models; download, pack, describe or publish one."""
    import json

    if context.invoked_subcommand is not None:
        return
    from ..zoo.models import known_models

    rows = [entry.facts() for entry in known_models().values()]
    if as_json:
        typer.echo(json.dumps(rows))
        return
    cells = [
        (
            r["name"],
            f"{r['parameters'] / 1e6:.1f} M",
            r["size"],
            r["classes"] or "-",
            "-" if r["AP"] is None else f"{r['AP']:.3f}",
        )
        for r in rows
    ]
    lines = table(("name", "params", "input", "classes", "AP"), cells).split("\n")
    for line, weights in zip(lines, ("weights", *(r["weights"] for r in rows)), strict=True):
        typer.echo(f"{line}  {weights}")
    typer.echo("")
    for r in rows:
        of = f" ({r['licence']})" if r["licence"] else ""
        typer.echo(textwrap.fill(f"{r['name']}: {r['about']}{of}", 79, subsequent_indent="  "))
    judged = [(r["name"], r["judged_on"]) for r in rows if r["judged_on"]]
    if judged:
        text = "AP: " + "; ".join(f"{name} on {where}" for name, where in judged)
        typer.echo("\n" + textwrap.fill(text, 79, subsequent_indent="  "))


@app.command("download")
def download(
    name: Annotated[
        str, typer.Argument(autocompletion=complete.models, help="Name from `fcos models`, or hf://owner/name.")
    ],
) -> None:
    """Fetch a model's weights now, and print where they are."""

    from ..zoo.find import find_weights

    typer.echo(find_weights(name))


@app.command("prepare")
def prepare(
    model: Annotated[str, typer.Argument(autocompletion=complete.models, help="Name, run folder or file.")],
    image: Annotated[
        list[Path] | None, typer.Option("--image", help="Image for the check, with objects in it. May be repeated.")
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", autocompletion=complete.settings, help="Change a setting. May be repeated."
        ),
    ] = None,
    background: Annotated[bool, typer.Option("--background", help="At low priority, with one thread.")] = False,
) -> None:
    """Make the fast form of a model for this machine, and check it.

    The fast form (graph) needs OpenVINO or ONNX Runtime. It is kept in the
    cache folder.
    Without this, predict begins with torch and makes it in the background.
    """
    if background and hasattr(os, "nice"):
        os.nice(10)  # before the imports, which are half of the work
    import torch

    from ..errors import MissingExtra, install_line
    from ..inference import fast, graphs
    from ..zoo.find import find_weights

    if background:
        torch.set_num_threads(1)
    if not graphs.runtimes():
        raise MissingExtra(f"no other runtime than torch is installed: {install_line('openvino')}")
    origin = graphs.Origin(find_weights(model), tuple(settings or ()))

    def tell(graph: graphs.Graph) -> None:
        if graph.failed:
            typer.echo(f"{graph.runtime}: cannot be made: {graph.failed}")
            return
        size = sum(p.stat().st_size for p in graph.folder.iterdir())
        typer.echo(f"{graph.runtime}: {graph.folder}, {size / 1e6:.1f} MB")
        for dtype, check in graph.checks.items():
            typer.echo(f"  {dtype}: {'; '.join(check.doubts) or 'good'}\n    {check.told}")

    fast.prepare(origin, image or (), tell, again=not background)
    choice = fast.choose(origin, None)
    used = f"{choice.graph.runtime} {choice.dtype}" if choice.graph is not None else "torch fp32"
    typer.echo(f"predict computes in {used}")


@app.command("pack")
def pack(
    context: typer.Context,
    model: Annotated[str, typer.Argument(autocompletion=complete.models, help="Run folder, file or name.")],
    out: Annotated[Path, typer.Argument(help="File to write: .safetensors.")],
    metrics: Metrics = None,
    licence: Annotated[str, typer.Option("--licence", help="Licence of the weights, such as Apache-2.0.")] = "",
    full: Annotated[bool, typer.Option("--full", help="Keep float32. Default: float16, half the size.")] = False,
    calibrate: Annotated[
        Path | None, typer.Option("--calibrate", help="Images that were not learned: scores become probabilities.")
    ] = None,
    split: Split = None,
) -> None:
    """Write a model as one small file, recipe and numbers inside.

    With --calibrate the file can also turn its scores into probabilities, where decode.calibrated=true asks for it.
    """
    from ..errors import ModelError
    from ..zoo import card
    from ..zoo.pack import pack as write

    if calibrate is None:
        tell_unused(context, "pack without --calibrate", "split")
    if out.suffix != ".safetensors":
        raise ModelError(f"{out} must end in .safetensors")
    if len(licence) > 1000:
        raise ModelError(f"--licence has {len(licence):,} characters, and a file holds 1,000; give its name")
    about: dict[str, Any] = {"licence": licence} if licence else {}
    if metrics is not None:
        about |= card.judged(card.read_metrics(metrics))
    unlearned = None
    if calibrate is not None:
        unlearned = open_to_judge(calibrate, split)
        about["calibrated_on"] = f"{plural(len(unlearned), 'image')} of {calibrate.resolve().name}, {unlearned.split}"
    config, classes = write(model, out, about, full, unlearned)
    typer.echo(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {plural(len(classes), 'class')}, {config.data.size} px")


@app.command("card")
def write_card(
    context: typer.Context,
    model: Annotated[str, typer.Argument(autocompletion=complete.models, help="Name, run folder or file.")],
    out: Annotated[Path, typer.Argument(help="Markdown file to write; its images go beside it.")],
    metrics: Metrics = None,
    run: Annotated[Path | None, typer.Option("--run", help="Run folder, for the recipe.")] = None,
    facts: Annotated[
        Path | None, typer.Option("--facts", help="YAML: summary, data, data_licence, licence, targets, beside, notes.")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(
            "--images",
            help="Data set whose images to draw. Default: those that a run was judged by, else the package's.",
        ),
    ] = None,
    split: Split = None,
) -> None:
    """Write the model card: recipe, numbers, weaknesses, images.

    Of a run folder the card has the recipe, the numbers and the images that
    the run was judged by.
    """
    from ..data.runs import run_of
    from ..show.sheets import draw_sheets
    from ..system import remote
    from ..system.files import check_suffix, write_whole
    from ..zoo import card
    from ..zoo.find import find_weights
    from ..zoo.models import known_models

    check_suffix(out, (".md",), "the card is Markdown", "the file")
    told = card.read_facts(facts) if facts is not None else None
    measured = card.read_metrics(metrics) if metrics is not None else None
    path = find_weights(model)
    own = run_of(path)
    if images is None and own is None:
        refuse(context, "a card without --images", "split")
    dataset = open_to_judge(images, split) if images is not None else None
    if dataset is None and own is not None:
        dataset = _judged_by(own, split)
    if measured is None and own is not None:
        measured = _measured(path, own, dataset if images is None and split is None else None)
    drawn = draw_sheets(path, dataset or open_to_judge(card.photographs(), None), out)
    # as it is loaded; a path as it was given, but for the folders above this one
    known = model in known_models() or remote.is_remote(model)
    title = model if known else Path(os.path.abspath(Path(model).expanduser())).name
    name = model if known else _from_here(model)
    write_whole(out, card.card(name, path, card.Evidence(measured, run or own, told, drawn, title)))
    typer.echo(f"{out}{''.join(f', {file}' for file, _ in drawn)}")


def _from_here(model: str) -> str:
    """The path of a model as a card shows it: as given, without folders that are on this machine alone."""
    path = Path(model).expanduser()
    if not path.is_absolute():
        return model
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else path.name


def _judged_by(run: Path, split: str | None) -> Dataset | None:
    """The images that a run was judged by, or that split of its data; None, with a line that says why, where they
    cannot be had and no split was asked for."""
    from ..data.runs import judged_by

    try:
        return judged_by(run, split)
    except DataError as error:
        if split is not None:
            raise
        say(f"note: the card shows the package's photographs: {first_line(error)}")
        return None


def _measured(path: Path, run: Path, dataset: Dataset | None) -> dict[str, Any] | None:
    """What metrics.json of a run says of its weights; None where it is not there, or of other weights."""
    from ..data.runs import stored_sources
    from ..network import weights
    from ..system.environment import METRICS_FILE
    from ..zoo import card

    file = run / METRICS_FILE
    if not file.is_file():
        return None
    try:
        told = stored_sources(run)
    except DataError:
        told = {}
    data = told.get("val") or told.get("data") or told.get("root") or "its data"
    measured = card.read_metrics(file, {"data": data, "split": dataset.split if dataset is not None else "val"})
    return measured if weights.header(path)[2].get("AP") == measured["AP"] else None


@app.command("push")
def push(
    context: typer.Context,
    model: Annotated[str, typer.Argument(autocompletion=complete.models, help="Run folder, file or name.")],
    repository: Annotated[str, typer.Argument(help="hf://owner/name")],
    metrics: Metrics = None,
    facts: Annotated[Path | None, typer.Option("--facts", help="YAML of facts for the card.")] = None,
    readme: Annotated[Path | None, typer.Option("--card", help="Markdown file to use as the card.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Store float16, half the size.")] = False,
    private: Annotated[bool, typer.Option("--private", help="A new repository is private.")] = False,
) -> None:
    """Put a model and its card on the Hugging Face Hub."""
    from ..system.readers import read_text
    from ..zoo import card, hub
    from ..zoo.find import find_weights

    path = find_weights(model)
    if readme is not None:
        tell_unused(context, "push with a card of your own", "metrics", "facts")
        text = read_text(readme)
    else:
        told = card.read_facts(facts) if facts is not None else None
        measured = card.read_metrics(metrics) if metrics is not None else None
        text = card.card(repository, path, card.Evidence(measured, path.parent, told), front=True)
    typer.echo(hub.push(path, repository, text, half=half, private=private))
