"""`fcos explain`: where each detection came from, and why an object was missed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..system.stderr import say
from . import complete
from .common import (
    DEFAULT,
    OF_DATA,
    Device,
    Format,
    ImagesIn,
    Json,
    Labels,
    Model,
    Overlap,
    Settings,
    Split,
    Tile,
    Trust,
    data_source,
    open_own,
    open_to_judge,
    sort_words,
    tell_overlap,
    tell_tiles,
    tell_unused,
    the_one,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np

    from ..data.dataset import Dataset
    from ..data.tree import DataSource
    from ..inference.detector import Detector
    from ..inference.tiles import Tiling


def command(
    context: typer.Context,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGE_OR_DATA|KEY=VALUE",
            autocompletion=complete.path_or_setting,
            help="An image: explain its detections. A data set or run folder: explain missed objects. Then settings.",
        ),
    ] = None,
    settings: Settings = None,
    model: Model = DEFAULT,
    data: Annotated[Path | None, typer.Option("--data", "-d", help="Data set, to explain its missed objects.")] = None,
    image: Annotated[
        str | None, typer.Option("--image", metavar="NAME|ID", help="Only this image of the data.")
    ] = None,
    split: Split = None,
    score: Annotated[
        float | None,
        typer.Option("--score", min=0.0, max=1.0, help="Lowest score that counts. Default: that of fcos predict."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=0, help="Only this many images; 0: all.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for the drawings and numbers.")] = None,
    as_json: Json = False,
    device: Device = "auto",
    trust: Trust = False,
    tile: Tile = None,
    overlap: Overlap = 0.2,
    format: Format = None,
    images_in: ImagesIn = None,
    labels: Labels = None,
) -> None:
    """Why a box is there, or why an object was missed.

    \b
    fcos explain photo.jpg --out story               # where each box came from
    fcos explain runs/mine                          # why objects were missed
    fcos explain runs/mine --image cat.jpg          # objects of one image
    fcos explain my_data --model runs/mine          # in other data
    fcos explain big.jpg --tile 640 --out story     # which tile saw what
    """
    from ..errors import FcosError
    from ..inference.load import load

    things, overrides = sort_words(words, settings, context)
    asked = what_to_explain(the_one(things, data, "--data"), data is not None, model)
    if asked.file is not None and image is not None:
        raise FcosError("--image chooses an image of a data set; to explain one file leave it out")
    if image is not None:
        tell_unused(context, "--image", "limit")
    detector = load(asked.model, runtime="own", device=device, trust=trust, overrides=overrides)
    if detector.config.decode.calibrated:
        say("scores are explained as the network gives them, before they are calibrated")
    if asked.file is not None:
        tell_unused(context, "the explanation of one image", "split", "limit", *OF_DATA)
    tell_overlap(context, tile, detector.config.data.tile)
    if asked.file is not None:
        told = _of_image(detector, asked.file, score, tiling_of(asked, detector, tile, overlap))
    else:
        source = None
        if asked.data is None:
            tell_unused(context, "a run without a data set", *OF_DATA)
        else:
            source = data_source(asked.data, format, images_in, labels)
        dataset = data_to_explain(asked.model, detector, source, split, limit)
        number = None if image is None else _image_id(dataset, image)
        told = _of_data(detector, dataset, score, number, tiling_of(asked, detector, tile, overlap))
    names = [] if out is None else told.write(out)
    typer.echo(json.dumps(told.report) if as_json else told.text)
    if out is not None and not as_json:
        typer.echo(f"written to {out}: {', '.join(names)}", err=True)


class Asked(NamedTuple):
    """What to explain: the detections of a model in one image, `file`, or the objects that it misses in the data set
    `data`; with neither, in the images that the run `model` was judged by."""

    model: str
    file: str | None = None
    data: Path | None = None


def what_to_explain(named: str | None, is_data: bool, model: str) -> Asked:
    """What a command line asks for. named: the word that stands alone, or, `is_data`, behind --data: a run folder
    alone stands for its model and the images that it was judged by. FcosError where there is nothing to explain."""
    from ..data.runs import missing, run_of
    from ..errors import FcosError

    if named is not None and model == DEFAULT and not is_data and _is_run(named):
        model, named = named, None
    if named is None and run_of(model) is None:
        raise FcosError(missing(model) or "give an image, a data set or a run folder: fcos explain IMAGE_OR_DATA")
    if named is None:
        return Asked(model)
    return Asked(model, data=Path(named)) if is_data or _is_data(named) else Asked(model, named)


def data_to_explain(
    model: str, detector: Detector, source: DataSource | None, split: str | None, limit: int
) -> Dataset:
    """The data set `source`, or without it that which the run `model` was judged by, as the detector sees it; its first
    `limit` images, 0: all."""
    from ..data.classes import as_seen

    opened = open_to_judge(source, split) if source is not None else open_own(model, split)[1]
    dataset = as_seen(opened, detector.config.data, detector.classes.names[0])
    return dataset.subset(range(min(limit, len(dataset)))) if limit else dataset


def tiling_of(asked: Asked, detector: Detector, tile: str | None, overlap: float) -> Tiling | None:
    """The tiles that are looked at: those of --tile, else those that the model learned from, but for an image that is
    no larger than one; None: whole images."""
    from ..inference.tiles import parse_tile

    own = detector.config.data.tile
    if tile is None and own and (asked.file is None or _longest(asked.file) > own):
        tell_tiles(asked.model, own)
        tile = str(own)
    return None if tile in (None, "0", "none") else parse_tile(tile, detector.config.data, overlap)


class _Told(NamedTuple):
    """What is printed, in words or as JSON, and how the images of the folder are drawn, by the names of their files."""

    text: str
    report: dict[str, Any]
    draw: Callable[[], dict[str, np.ndarray]]

    def write(self, folder: Path) -> list[str]:
        """Write explain.json and the images, all or none; the names of these files."""
        from PIL import Image

        from ..system.files import whole_set, write_whole

        drawn = self.draw()
        with whole_set():
            write_whole(folder / "explain.json", json.dumps(self.report, indent=1) + "\n")
            for name, pixels in drawn.items():
                drawing = Image.fromarray(pixels)
                write_whole(folder / name, lambda path, drawing=drawing: drawing.save(path, quality=92))  # type: ignore[misc]
        return ["explain.json", *drawn]


def _of_image(detector: Detector, source: str, score: float | None, tiling: Tiling | None) -> _Told:
    """The story of every box of one image."""
    if tiling is not None:
        from ..analysis.explain_tiles import explain_tiles

        tiles = explain_tiles(detector, source, tiling, score)
        return _Told(tiles.text(), tiles.to_dict(), lambda: {"boxes.jpg": tiles.draw()})
    from ..analysis.explain import explain

    story = explain(detector, source, score)
    return _Told(story.text(), story.to_dict(), lambda: {"boxes.jpg": story.draw(), "maps.jpg": story.draw_maps()})


def _of_data(
    detector: Detector, dataset: Dataset, score: float | None, number: int | None, tiling: Tiling | None
) -> _Told:
    """Why objects of a data set are missed, or those of the image `number` alone."""
    from ..analysis.misses import gallery, miss_study

    study = miss_study(detector, dataset, score, number, tiling)
    if number is None:
        return _Told(study.text(), study.to_dict(), lambda: {"worst.jpg": gallery(study, dataset)})
    shown = dataset.subset([i for i, r in enumerate(dataset.records) if r.id == number])
    text = "\n".join([study.text(), "", *_lines(study)])
    return _Told(text, study.to_dict(), lambda: {"worst.jpg": gallery(study, shown)})


def _longest(source: str) -> int:
    from ..inference.sources import load_source

    return int(max(load_source(source).shape[:2]))


def _is_data(path: str) -> bool:
    """Whether this is a data set, not an image."""
    from ..data.tree import ANNOTATIONS

    return Path(path).is_dir() or path.lower().endswith(ANNOTATIONS)


def _is_run(path: str) -> bool:
    """Whether this is a run folder or its weights, not an image that lies in one."""
    from ..data.runs import run_of

    return (Path(path).is_dir() or path.lower().endswith((".safetensors", ".pt"))) and run_of(path) is not None


def _image_id(dataset: Dataset, image: str) -> int:
    """The id of the image that is called so, with or without its folders and suffix, or has this id."""
    from ..errors import DataError

    texts = dataset.text_ids
    named = {r.id for r in dataset.records if image in (r.file_name, Path(r.file_name).name)}
    named = named or {r.id for r in dataset.records if image == texts.get(r.id)}
    named = named or {r.id for r in dataset.records if image == str(r.id)}
    named = named or {r.id for r in dataset.records if image == Path(r.file_name).stem}
    if len(named) != 1:
        which = f"{len(named)} images" if named else "no image"
        fix = "give its folder too" if named else "give a file name or an id"
        raise DataError(f"{dataset.root} has {which} {image} in the split {dataset.split}; {fix}")
    return named.pop()


def _lines(study: object) -> list[str]:
    """One line for each missed object of an image."""
    from ..analysis.misses import MissStudy

    assert isinstance(study, MissStudy)
    return [
        f"{m.label} at ({', '.join(f'{v:.0f}' for v in m.box)}): {m.stage}; best IoU {m.best_iou:.2f} (boxes of score "
        f"{study.score:.2g} or more), best score {m.best_score:.2f} (boxes of IoU 0.5 or more)"
        for m in study.misses
    ]
