"""`fcos data`: look at a data set, write it in another format, part it, put two together."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..system.stderr import say
from . import complete
from .common import DEFAULT, WORDS, Format, ImagesIn, Labels, Settings, data_source, refuse, sort_words, tell_unused

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.tree import DataSource

app = typer.Typer(help="Look at a data set; convert it, split it, merge two.", no_args_is_help=True)

PathArgument = Annotated[Path, typer.Argument(help="Folder or file of a data set in any known format.")]
Strict = Annotated[bool, typer.Option("--strict", help="Stop at faulty boxes instead of skipping them.")]


@app.command()
def info(
    path: PathArgument,
    split: Annotated[str | None, typer.Option(autocompletion=complete.splits, help="Only this split.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")] = False,
    strict: Strict = False,
    format: Format = None,
    images_in: ImagesIn = None,
    labels: Labels = None,
) -> None:
    """Show format, splits, classes with counts, and what looks wrong."""
    import json

    from ..data.open import open_dataset, open_splits

    source = data_source(path, format, images_in, labels)
    if split:
        one = open_dataset(source, split, strict=strict)
        splits = {one.split: one}
    else:
        splits = open_splits(source, strict=strict)
    if as_json:
        typer.echo(json.dumps({name: _facts(dataset) for name, dataset in splits.items()}, indent=2))
    else:
        typer.echo("\n".join(dataset.summary() for dataset in splits.values()))


def _facts(dataset: Dataset) -> dict[str, object]:
    rows = zip(dataset.classes.names, dataset.classes.ids, dataset.counts().tolist(), strict=True)
    return {
        "source": str(dataset.root),
        "format": dataset.format,
        "images": len(dataset),
        "boxes": sum(len(r.boxes) for r in dataset.records),
        "ignored": sum(int(r.ignore.sum()) for r in dataset.records),
        "classes": [{"name": name, "id": id, "boxes": count} for name, id, count in rows],
        "notes": [asdict(note) | {"kind": note.kind.many, "do": note.kind.do} for note in dataset.notes],
    }


Destination = Annotated[Path, typer.Argument(help="New folder.")]
Link = Annotated[bool, typer.Option("--link", help="Link the images instead of copying them.")]
Rename = Annotated[
    list[str] | None,
    typer.Option(
        "--rename", metavar="OLD=NEW", help="OLD=NEW: rename a class, or join it to another. May be repeated."
    ),
]
Clean = Annotated[
    bool,
    typer.Option(
        "--clean", help="Leave out images that cannot be read, exact copies of images, and boxes marked twice."
    ),
]
To = Annotated[
    str | None,
    typer.Option("--to", autocompletion=complete.formats, help="Format to write. Default: that of the source."),
]


@app.command()
def convert(
    source: PathArgument,
    destination: Destination,
    to: Annotated[
        str,
        typer.Option(
            autocompletion=complete.formats, help="Format to write: coco, yolo, voc, ... (fcos help formats)."
        ),
    ],
    link: Link = False,
    clean: Clean = False,
    strict: Strict = False,
    rename: Rename = None,
    format: Format = None,
    images_in: ImagesIn = None,
    labels: Labels = None,
) -> None:
    """Write all splits in another format, and say what it cannot hold.

    \b
    fcos data convert my_data as_yolo --to yolo
    """
    splits = _read(data_source(source, format, images_in, labels), destination, strict)
    _write(_cleaned(_renamed(splits, rename), clean), destination, to, link)


@app.command()
def split(
    context: typer.Context,
    source: PathArgument,
    destination: Destination,
    holdout: Annotated[float, typer.Option("--holdout", help="Share of the images that goes to val.")] = 0.2,
    test: Annotated[
        float, typer.Option("--test", min=0.0, max=1.0, help="Share of the images that goes to test.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Another number gives another choice of images.")] = 0,
    to: To = None,
    link: Link = False,
    clean: Clean = False,
    strict: Strict = False,
    rename: Rename = None,
    format: Format = None,
    images_in: ImagesIn = None,
    labels: Labels = None,
) -> None:
    """Move a share of the training images to a new val split, and to a test split.

    Each class gives its share of the images that show it, and near-duplicates
    stay together unless they are a third of all. A val split that is there stays
    as it is with --test.

    \b
    fcos data split my_images parted --holdout 0.2
    fcos data split my_images parts --holdout 0.2 --test 0.1
    """
    from ..data.combine import part_dataset
    from ..data.splits import TAUGHT, default_split
    from ..errors import DataError

    if test and holdout + test >= 1:
        raise DataError(f"--holdout {holdout:g} and --test {test:g} leave no image to learn from; give smaller shares")
    splits = _renamed(_read(data_source(source, format, images_in, labels), destination, strict), rename)
    splits = _cleaned(splits, clean)
    name = default_split(list(splits), TAUGHT)
    if name is None:
        raise DataError(f"{source} has the splits {', '.join(splits)}, and none of them is train")
    if name == "test":
        say(f"note: {source} has no other split than test; its images become train and val")
    whole = splits.pop(name)
    shares = {"val": holdout} | ({"test": test} if test else {})
    if "test" in shares and "test" in splits:
        raise DataError(f"{source} has a test split already: {len(splits['test']):,} images; leave --test out")
    if "val" in splits:
        there = {record.path for record in whole.records if record.path is not None}
        same = sum(record.path in there for record in splits["val"].records)
        told = f"{source} has a val split already: {len(splits['val']):,} images"
        if same:
            raise DataError(f"{told}, {same:,} of which are in {name} too: --clean leaves these out first")
        if not test:
            way = "--test 0.1 draws a test split beside it; to draw val anew, give the training data alone"
            raise DataError(f"{told}; {way}")
        refuse(context, "a set with a val split, which stays as it is,", "holdout")
        del shares["val"]
    parts = part_dataset(whole, shares, seed)
    _write({**parts, **splits}, destination, to or whole.format, link)


@app.command()
def merge(
    first: PathArgument,
    second: PathArgument,
    destination: Destination,
    to: To = None,
    link: Link = False,
    clean: Clean = False,
    strict: Strict = False,
    rename: Rename = None,
) -> None:
    """Put two data sets together: classes with one name are one.

    \b
    fcos data merge mine theirs both --rename person=human
    """
    from collections import Counter

    from ..data.clean import copies
    from ..data.combine import merge_sets
    from ..system.terminal import plural

    sets = [_read(data_source(path, None, None, None), destination, strict) for path in (first, second)]
    renamed = [_renamed(part, rename, sets) for part in sets]
    both = _cleaned(merge_sets(renamed), clean)
    found = [] if clean else copies(both)
    leaks = Counter((copy.split, copy.of[0]) for copy in found if copy.split != copy.of[0])
    for (split, other), count in leaks.items():
        are, them = ("is", "it") if count == 1 else ("are", "them")
        say(f"{plural(count, 'image')} of {split} {are} in {other} too: --clean leaves {them} out")
    _write(both, destination, to or next(iter(sets[0].values())).format, link)


def _read(source: DataSource, destination: Path, strict: bool) -> dict[str, Dataset]:
    """The splits of a data set that will be written anew to `destination`."""
    from ..data.open import open_splits
    from ..data.write import check_outside

    check_outside(destination, source)
    return open_splits(source, strict=strict)


def _renamed(
    splits: dict[str, Dataset], rename: list[str] | None, among: list[dict[str, Dataset]] | None = None
) -> dict[str, Dataset]:
    """The splits under new class names; a name has to be in one of the sets `among`, which may be another."""
    from ..data.combine import rename_classes
    from ..errors import ConfigError, DataError

    names: dict[str, str] = {}
    for pair in rename or []:
        old, equals, new = pair.rpartition("=")
        if not equals or not old or not new:
            raise ConfigError(f"--rename {pair!r}: write OLD=NEW")
        names[old] = new
    known = {name for part in among or [splits] for dataset in part.values() for name in dataset.classes.names}
    unknown = sorted(set(names) - known)
    if unknown:
        raise DataError(f"--rename: there is no class {unknown[0]!r}; there are: {', '.join(sorted(known)[:20])}")
    return {
        key: rename_classes(dataset, {old: new for old, new in names.items() if old in dataset.classes.names})
        for key, dataset in splits.items()
    }


def _cleaned(splits: dict[str, Dataset], wanted: bool) -> dict[str, Dataset]:
    """The splits with --clean, where it is `wanted`; a line for each kind of thing that is left out."""
    from ..data.clean import clean

    if not wanted:
        return splits
    splits, lines = clean(splits)
    typer.echo("\n".join(lines or ["--clean: there is nothing to leave out"]))
    return splits


def _write(splits: dict[str, Dataset], destination: Path, to: str, link: bool) -> None:
    from ..data.registry import format_named
    from ..data.write import convert as write
    from ..errors import FcosError
    from ..system.terminal import plural

    to = format_named(to).name
    if link and to in ("parquet", "webdataset"):
        raise FcosError(f"--link: {to} holds the images themselves; leave it out")
    lost = write(splits, destination, to, link=link)
    for name, dataset in splits.items():
        for note in dataset.notes:
            typer.echo(f"{name}: {note}")
    for line in lost:
        typer.echo(line)
    counts = ", ".join(f"{name} {len(dataset):,}" for name, dataset in splits.items())
    total = sum(len(dataset) for dataset in splits.values())
    typer.echo(f"wrote {plural(total, 'image')} ({counts}) to {destination}")


@app.command()
def results(
    folder: Annotated[Path, typer.Argument(help="Folder that fcos predict --engine wrote.")],
    file: Annotated[Path, typer.Argument(help="COCO results to write; the list of images goes beside it.")],
    data: Annotated[Path | None, typer.Option("--data", "-d", help="Data set whose ids to write.")] = None,
) -> None:
    """Write COCO results from the rows of a large prediction.

    See fcos help scale.

    \b
    fcos data results rows results.json
    """
    from ..data.ids import images_file
    from ..data.open import numbers_of
    from ..scale.results import write_coco
    from ..system.files import check_suffix
    from ..system.terminal import plural

    check_suffix(file, (".json",), "COCO results are JSON", "the file")
    written = write_coco(folder, file, numbers_of(data) if data is not None else None)
    left = f"; {plural(written.failed, 'image')} that could not be read left out" if written.failed else ""
    if written.foreign:
        say(f"{file} leaves out {plural(written.foreign, 'detection')} of classes that {data} does not have")
    if written.limited:
        say("the rows hold what reached the lowest score shown; to judge the model by them predict with --score 0")
    boxes, images = plural(written.detections, "detection"), plural(written.images, "image")
    typer.echo(f"{boxes} in {images}: {file}, ids in {images_file(file)}{left}")


@app.command()
def show(
    context: typer.Context,
    path: PathArgument,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar=WORDS, autocompletion=complete.settings, help="Settings for --augment: data.mosaic=0.5"),
    ] = None,
    settings: Settings = None,
    split: Annotated[
        str | None, typer.Option(autocompletion=complete.splits, help="Which split. Default: train, else the first.")
    ] = None,
    count: Annotated[int, typer.Option(min=1, max=400, help="Images on the sheet.")] = 16,
    augment: Annotated[bool, typer.Option("--augment", help="Show them as training sees them.")] = False,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", autocompletion=complete.models, help="Model whose training settings --augment uses."
        ),
    ] = DEFAULT,
    seed: Annotated[int, typer.Option(min=0, help="Another number shows other images.")] = 0,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Image file to write. Default: SPLIT-sheet.jpg in this folder.")
    ] = None,
    format: Format = None,
    images_in: ImagesIn = None,
    labels: Labels = None,
) -> None:
    """Draw a sheet of images with their boxes."""
    from PIL import Image

    from ..data.open import open_dataset, open_splits
    from ..data.splits import TAUGHT, default_split
    from ..detections import DRAWN
    from ..errors import ConfigError, DataError, first_line
    from ..show.draw import sheet
    from ..show.samples import augmented, plain
    from ..system.files import check_suffix, write_whole
    from ..system.terminal import plural
    from ..zoo.describe import settings_of

    if out is not None:
        check_suffix(out, DRAWN, "the sheet is one image")
    things, overrides = sort_words(words, settings)
    if things:
        raise ConfigError(f"{things[0]!r} is no setting; write KEY=VALUE")
    if overrides and not augment:
        raise ConfigError("settings change nothing here without --augment")
    if not augment:
        tell_unused(context, "a sheet without --augment", "model")
    source = data_source(path, format, images_in, labels)
    if split:
        dataset = open_dataset(source, split)
    else:
        splits = open_splits(source)
        dataset = splits[default_split(list(splits), TAUGHT) or next(iter(splits))]
    if all(record.path is None for record in dataset.records):
        raise DataError(f"{dataset.root} has annotations but no images to show")
    if augment:
        cells = augmented(dataset, settings_of(model, [f"train.seed={seed}", *overrides]), count)
    else:
        cells = plain(dataset, count, seed)
    file = out or Path(f"{dataset.split}-{'augmented' if augment else 'sheet'}.jpg")
    try:
        drawn = Image.fromarray(sheet([image for image, _ in cells], titles=[title for _, title in cells]))
        write_whole(file, lambda p: drawn.save(p, quality=90))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot write {file}: {first_line(error)}") from None
    typer.echo(f"{plural(len(cells), 'image')} of {dataset.root} ({dataset.split}): {file}")
