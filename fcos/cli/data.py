"""`fcos data`: look at a data set and write it in another format."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .common import WORDS, Settings, settings_of, sort_words

if TYPE_CHECKING:
    import numpy as np

    from ..data.dataset import Dataset

app = typer.Typer(help="Look at a data set, and convert it between COCO, YOLO and VOC.", no_args_is_help=True)

PathArgument = Annotated[Path, typer.Argument(help="COCO JSON, YOLO data.yaml, or the folder of a data set.")]
Strict = Annotated[bool, typer.Option("--strict", help="Refuse what would be skipped with a note.")]


@app.command()
def info(
    path: PathArgument,
    split: Annotated[str | None, typer.Option(help="Only this split.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    strict: Strict = False,
) -> None:
    """Format, splits, classes with ids and counts, and what was noticed while reading."""
    import json

    from ..data.open import open_dataset, open_splits

    if split:
        one = open_dataset(path, split, strict=strict)
        splits = {one.split: one}
    else:
        splits = open_splits(path, strict=strict)
    if as_json:
        typer.echo(json.dumps({name: _facts(dataset) for name, dataset in splits.items()}, indent=2))
    else:
        typer.echo("\n".join(dataset.summary() for dataset in splits.values()))


def _facts(dataset: Dataset) -> dict[str, object]:
    rows = zip(dataset.classes.names, dataset.classes.ids, dataset.counts().tolist(), strict=True)
    return {
        "source": str(dataset.root),
        "format": dataset.format,
        "pictures": len(dataset),
        "boxes": sum(len(r.boxes) for r in dataset.records),
        "ignored": sum(int(r.ignore.sum()) for r in dataset.records),
        "classes": [{"name": name, "id": id, "boxes": count} for name, id, count in rows],
        "notes": [asdict(note) for note in dataset.notes],
    }


@app.command()
def convert(
    source: PathArgument,
    destination: Annotated[Path, typer.Argument(help="New folder.")],
    to: Annotated[str, typer.Option(help="coco, yolo or voc.")],
    link: Annotated[bool, typer.Option("--link", help="Link the pictures instead of copying them.")] = False,
    strict: Strict = False,
) -> None:
    """Write all splits in another format, and say what it cannot hold."""
    from ..data.open import open_splits
    from ..data.write import convert as write

    splits = open_splits(source, strict=strict)
    lost = write(splits, destination, to, link=link)
    for name, dataset in splits.items():
        for note in dataset.notes:
            typer.echo(f"{name}: {note}")
    for line in lost:
        typer.echo(line)
    total = sum(len(dataset) for dataset in splits.values())
    typer.echo(f"wrote {total:,} pictures ({', '.join(splits)}) to {destination}")


@app.command()
def show(
    path: PathArgument,
    words: Annotated[
        list[str] | None, typer.Argument(metavar=WORDS, help="Settings for --augment: data.mosaic=0.5")
    ] = None,
    settings: Settings = None,
    split: Annotated[str | None, typer.Option(help="Which split; default: train, else the first.")] = None,
    count: Annotated[int, typer.Option(min=1, max=400, help="Pictures on the sheet.")] = 16,
    augment: Annotated[bool, typer.Option("--augment", help="As training sees them.")] = False,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Model whose training settings --augment uses.")
    ] = "fcos-lite0",
    seed: Annotated[int, typer.Option(min=0, help="Which pictures are drawn.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Picture file to write; default: SPLIT.jpg here.")
    ] = None,
) -> None:
    """A sheet of pictures with their boxes."""
    from PIL import Image

    from ..data.open import open_dataset, open_splits
    from ..errors import ConfigError, DataError
    from ..show.draw import sheet

    things, overrides = sort_words(words, settings)
    if things:
        raise ConfigError(f"{things[0]!r} is no setting; write KEY=VALUE")
    if overrides and not augment:
        raise ConfigError("settings change nothing here without --augment")
    if split:
        dataset = open_dataset(path, split)
    else:
        splits = open_splits(path)
        dataset = splits.get("train") or next(iter(splits.values()))
    if all(record.path is None for record in dataset.records):
        raise DataError(f"{dataset.root} has annotations but no pictures to show")
    images = _augmented(dataset, count, model, overrides, seed) if augment else _plain(dataset, count, seed)
    file = out or Path(f"{dataset.split}{'-augmented' if augment else ''}.jpg")
    try:
        Image.fromarray(sheet(images)).save(file, quality=90)
    except (OSError, ValueError) as error:
        raise DataError(f"cannot write {file}: {str(error).splitlines()[0]}") from None
    typer.echo(f"{len(images)} pictures of {dataset.root} ({dataset.split}): {file}")


def _plain(dataset: Dataset, count: int, seed: int) -> list[np.ndarray]:
    import numpy as np

    from ..data.cache import Reader
    from ..data.loader import load_sample
    from ..errors import ImageError
    from ..show.draw import draw_boxes

    reader = Reader(dataset)
    images: list[np.ndarray] = []
    for index in np.random.default_rng(seed).permutation(len(dataset)):
        if len(images) == count:
            break
        try:
            s = load_sample(dataset, reader, int(index))
        except ImageError as error:
            typer.echo(f"skipped: {error}", err=True)
            continue
        images.append(draw_boxes(s.image, s.boxes, s.labels, dataset.classes.names, ignore=s.ignore))
    if not images:
        raise ImageError(f"no picture of {dataset.root} can be read")
    return images


def _augmented(dataset: Dataset, count: int, model: str, overrides: list[str], seed: int) -> list[np.ndarray]:
    from ..data.cache import Reader
    from ..data.classes import as_seen
    from ..data.loader import fill_color, train_sample
    from ..data.sampler import Sampler
    from ..show.draw import draw_boxes

    config = settings_of(model, [*overrides, f"train.seed={seed}"])
    dataset = as_seen(dataset, config.data)
    sampler, reader = Sampler(dataset, config.data, config.train), Reader(dataset)
    images: list[np.ndarray] = []
    for step in range(-(-count // config.train.batch)):
        plan = sampler.plan(step)
        for slot in range(min(config.train.batch, count - len(images))):
            s = train_sample(dataset, reader, config.data, plan, slot, seed, fill_color(config))
            images.append(draw_boxes(s.image, s.boxes, s.labels, dataset.classes.names, ignore=s.ignore))
    return images
