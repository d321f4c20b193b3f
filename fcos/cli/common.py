"""What the verbs share: their options, and the words behind them: the thing acted on, and settings."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import FcosError
from ..system.stderr import say
from . import complete

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..data.tree import DataSource
    from ..inference.video import Reader
    from ..system.stop import StopSignals

_LEARNING = (  # settings of the data that only training and judging use
    *("classes", "single_class", "flip", "vertical_flip", "crop", "crop_scale", "color", "mosaic", "mixup"),
    *("paste", "plain_epochs", "workers", "cache", "train_sizes", "first_sizes", "first_share"),
)
WORDS = "KEY=VALUE"
OF_DATA = ("format", "images_in", "labels")  # how to read a data set: parameters of the verbs that take one
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        autocompletion=complete.settings,
        help="Change a setting, such as data.size=416. May be repeated; --set may be left out.",
    ),
]
MODEL = "Name, run folder or file of a model."
DEFAULT = "fcos-lite0"  # presets.DEFAULT, whose import takes half as long as all that a TAB waits for
Model = Annotated[str, typer.Option("--model", "-m", autocompletion=complete.models, help=MODEL)]
MaybeModel = Annotated[str | None, typer.Option("--model", "-m", autocompletion=complete.models, help=MODEL)]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model", "-m", autocompletion=complete.models, help=f"{MODEL[:-1]}; give it several times to combine models."
    ),
]
Tile = Annotated[
    str | None,
    typer.Option(
        "--tile", help="Look in tiles of so many pixels, or auto; none: whole images. Default: as the model learned."
    ),
]
Overlap = Annotated[float, typer.Option("--overlap", help="How much tiles overlap: a share of their side, 0 to 0.9.")]
Views = Annotated[
    str,
    typer.Option("--tta", help="Look at mirrored or resized copies too, and combine: flip,0.8,1.2 or some of these."),
]
DATA = "Data set, a folder or a file; the format is recognised (fcos help data)."
Format = Annotated[
    str | None,
    typer.Option("--format", autocompletion=complete.formats, help="Format of the data, if it is not recognised."),
]
ImagesIn = Annotated[
    Path | None, typer.Option("--images", help="Folder of the images, if they are not beside the labels.")
]
Labels = Annotated[
    Path | None, typer.Option("--labels", help="Folder or file of the labels, if they are not beside the images.")
]
MaybeData = Annotated[Path | None, typer.Option("--data", "-d", help=DATA)]
Split = Annotated[
    str | None,
    typer.Option(
        "--split", autocompletion=complete.splits, help="Which split. Default: test, else val, else the only one."
    ),
]
Trust = Annotated[
    bool, typer.Option("--trust", help="Allow a .torchscript file. It is code and can do anything: trust its source.")
]
Classes = Annotated[
    str | None,
    typer.Option("--classes", metavar="NAME,NAME", help="Only these of the model's classes, such as dog,cat."),
]
Calibrated = Annotated[
    bool,
    typer.Option("--calibrated", help="Scores as probabilities, of a calibrated model: 0.7 means that 70% are right."),
]
Device = Annotated[
    str,
    typer.Option("--device", autocompletion=complete.devices, help="Where to compute: auto, cpu, cuda, cuda:1, mps."),
]
Threads = Annotated[int, typer.Option("--threads", min=0, help="CPU threads; 0: all cores.")]
Lanes = Annotated[int, typer.Option("--lanes", min=0, help="Images computed side by side on a CPU; 0: chosen for you.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
_SETTING = re.compile(r"[A-Za-z_][\w.]*=")

ALONE = ""
# What other programs call an option, and what it is here: options, of which a verb has the one or the other, a setting
# with or without a value, or ALONE: what the verb acts on, without any.
PEERS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("conf", "confidence", "threshold", "conf-thres", "score-thr"), ("--score", "decode.shown")),
    **dict.fromkeys(("name", "project", "output-dir", "save-dir", "work-dir", "show", "visualize"), ("--out",)),
    **dict.fromkeys(("iou", "iou-thres"), ("decode.nms_iou",)),
    **dict.fromkeys(("source", "data"), (ALONE,)),
    "weights": ("--init", "--model"),
    "model": ("--model",),
    "max-det": ("decode.max_detections",),
    "time": ("--minutes",),
    "save-txt": ("--yolo",),
    **dict.fromkeys(("num-gpus", "gpus"), ("--devices",)),
    "device": ("--device",),
    "half": ("--dtype",),
    "augment": ("--tta",),
    "filter": ("--classes",),
    "agnostic-nms": ("decode.nms=agnostic",),
    "vid-stride": ("--every",),
    "resume": ("--resume",),
}
_OTHER_VALUES = (
    "show",
    "visualize",
    "save_txt",
    "time",
    "half",
    "augment",
    "resume",
)  # yes or no, hours


def data_words(help: str = "Data set; then settings.") -> Any:
    """Make the argument of a verb that acts on a data set: its path, and KEY=VALUE."""
    return typer.Argument(metavar="DATA|KEY=VALUE", autocompletion=complete.path_or_setting, help=help)


def model_words(help: str = f"{MODEL} Then settings.") -> Any:
    """Make the argument of a verb that acts on a model: its name or path, and KEY=VALUE."""
    return typer.Argument(metavar="MODEL|KEY=VALUE", autocompletion=complete.model_or_setting, help=help)


def runtime_option(rest: str) -> Any:
    """Make the option --runtime; `rest` stands in its help behind the names of the runtimes."""
    names = ", ".join(name for name in complete.RUNTIMES if name != "auto")
    return typer.Option("--runtime", autocompletion=complete.runtimes, help=names + rest)


def preset_option(default: str) -> Any:
    """Make the option --model of a verb that trains; `default` says what it takes without."""
    return typer.Option("--model", "-m", autocompletion=complete.presets, help=f"Preset to train. Default: {default}.")


def dtype_option(help: str) -> Any:
    """Make the option --dtype; the help says which of the types a verb takes."""
    return typer.Option("--dtype", autocompletion=complete.dtypes, help=help)


def sort_words(
    words: Sequence[str] | None, settings: Sequence[str] | None, context: typer.Context | None = None
) -> tuple[list[str], list[str]]:
    """(what is no setting, all settings): a word is one when it reads KEY=VALUE and no file has that name. FcosError
    for an option of the verb at work, given its `context`, as other programs write it, such as conf=0.3."""
    things: list[str] = []
    found: list[str] = []
    for word in words or ():
        key, _, value = word.partition("=")
        as_option = context and value and key != "name" and not value.startswith("{")  # name is a setting too
        if context and as_option and not Path(word).exists():
            meant = called_here(key.replace("_", "-"), context.command)
            if meant is not None:
                raise FcosError(f"{word} is no setting; {_written(meant, key, value)}")
        (found if _SETTING.match(word) and not Path(word).exists() else things).append(word)
    return things, [*(settings or ()), *found]


def called_here(word: str, command: Any) -> str | None:
    """The first of what an option of other programs is called here that a verb has; None for other words."""
    there = {option for param in command.params for option in param.opts if option.startswith("--")}
    if any(param.param_type_name == "argument" for param in command.params):
        there.add(ALONE)
    settings = "--set" in there
    for meant in PEERS.get(word, ()):
        if meant in there or (settings and meant != ALONE and not meant.startswith("--")):
            return meant
    return None


def _written(meant: str, key: str, value: str) -> str:
    """How to write what somebody wrote as KEY=VALUE."""
    if meant == ALONE:
        return f"name {value} alone"
    if "=" in meant:
        return f"write {meant}"
    if key.replace("-", "_") in _OTHER_VALUES:
        return f"see {meant}"
    return f"write {meant}{' ' if meant.startswith('--') else '='}{value}"


def the_one(things: Sequence[str], given: str | Path | None, option: str) -> str | None:
    """The thing acted on, which stands alone or behind its option; FcosError where there are two."""
    named = [*things, *([str(given)] if given is not None else [])]
    if len(named) > 1:
        raise FcosError(f"{named[0]!r} and {named[1]!r}: give one, alone or with {option}; settings are KEY=VALUE")
    return named[0] if named else None


def refuse(context: typer.Context, what: str, *names: str) -> None:
    """FcosError for options that were given where nothing could do what they ask; names as the command's parameters
    have them. Of an option that fcos 1.0.0 took there, `tell_unused` tells instead."""
    if given := _given(context, names):
        raise FcosError(f"{what} takes no {' and no '.join(given)}; leave {'it' if len(given) == 1 else 'them'} out")


def tell_unused(context: typer.Context, what: str, *names: str) -> None:
    """A line where options were given that change nothing there. Command lines that worked in an earlier 1.x go on."""
    if given := _given(context, names):
        change = "it changes" if len(given) == 1 else "they change"
        say(f"note: {what} takes no {' and no '.join(given)}; {change} nothing")


def _given(context: typer.Context, names: Sequence[str]) -> list[str]:
    """Those of the parameters that stand on the command line, as its options are written."""
    options = {param.name: param.opts[0] for param in context.command.params}
    return [options[n] for n in names if getattr(context.get_parameter_source(n), "name", "") == "COMMANDLINE"]


def tell_overlap(context: typer.Context, tile: str | None, own: int | None) -> None:
    """A line for --overlap where a model looks at whole images. `tile` is the option, `own` what the model learned
    from and looks at where the option is left out."""
    if tile in ("none", "0"):
        tell_unused(context, f"--tile {tile}", "overlap")
    if tile is None and not own:
        tell_unused(context, "a model of whole images without --tile", "overlap")


def data_source(path: str | Path, format: str | None, images_in: Path | None, labels: Path | None) -> DataSource:
    """The data set that a command line names, with what it says about how to read it."""
    from dataclasses import replace

    from ..data.tree import DataSource

    return replace(DataSource.of(path), format=format, images=images_in, labels=labels)


def open_to_judge(path: str | Path | DataSource, split: str | None, *, pixels: bool = True) -> Dataset:
    """The split asked for, else the one to judge in; what was noticed while reading goes to stderr. `pixels`: whether
    its images are looked at."""
    from ..data.open import open_judged

    dataset = open_judged(path, split, pixels=pixels)
    for note in dataset.notes:
        say(f"note: {note}")
    return dataset


def open_own(model: str, split: str | None = None) -> tuple[Path, Dataset]:
    """The folder of a run, and what it was judged by, or that split of its data; DataError where the model is no
    run."""
    from ..data.runs import judged_by
    from ..evaluation.program import run_to_judge

    run = run_to_judge(model)
    return run, judged_by(run, split)


def for_learning(key: str) -> bool:
    """Whether a setting, such as train.lr, is one that detecting does not use."""
    section, _, name = key.partition(".")
    return section in ("train", "loss") or (section == "data" and name in _LEARNING)


def _tell_learning(overrides: Sequence[str]) -> None:
    """A line for each setting that detecting does not use."""
    for setting in overrides:
        key, _, value = setting.partition("=")
        name = key.strip().rpartition(".")[2]
        if for_learning(key.strip()):
            only = f"; for some classes only: --classes {value}" if name == "classes" else ""
            say(f"note: {setting} is for training, and detecting does not use it{only}")


def detecting_words(
    words: Sequence[str] | None, settings: Sequence[str] | None, context: typer.Context, calibrated: bool = False
) -> tuple[list[str], list[str]]:
    """`sort_words` of a verb that detects, with what --calibrated means among the settings."""
    things, overrides = sort_words(words, settings, context)
    _tell_learning(overrides)
    return things, [*overrides, *(["decode.calibrated=true"] if calibrated else [])]


@contextmanager
def ended_by_signals(reader: Reader) -> Iterator[StopSignals]:
    """Within it Ctrl-C and the like are the end of a live source, which has no other: what came before is written. A
    second one stops at once. `number` of what is given is the signal, 0 for none."""
    from ..system.stop import StopSignals

    signals = StopSignals(reader.end)
    with signals if reader.info.live else nullcontext():
        yield signals


def tell_looks(context: typer.Context, tile: str | None, model: str, own: int | None) -> None:
    """`tell_overlap`, and `tell_tiles` where nobody asked for tiles or for whole images."""
    tell_overlap(context, tile, own)
    if tile is None:
        tell_tiles(model, own)


def tell_tiles(model: str, tile: int | str | None) -> None:
    """A line where a detector looks in tiles because its model learned from such, and nobody asked."""
    if tile:
        say(f"{model} learned from tiles of {tile} pixels and looks at tiles here too; --tile none: whole images")
