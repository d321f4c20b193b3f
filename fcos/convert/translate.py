"""FCOS checkpoints of five other code bases, read and written.

`convert` turns a checkpoint into a .safetensors file of this package, with the config of its dialect inside,
so that every program here gives the numbers of the code that trained it. `export_state` goes the other way.
The tables of names stand in one file a family; `recognise` tells them apart.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import Config, ModelConfig
from ..errors import ModelError, first_line
from ..network import weights
from ..network.checkpoints import read_checkpoint
from ..presets import PRESETS, preset, with_dialect
from ..system.files import write_whole
from ..types import Classes
from .family import Family, Reading, fit, side
from .names import COCO_80, class_names
from .pixels import fold_pixels
from .recognise import FAMILIES, recognise
from .rules import to_theirs
from .shapes import WITHOUT_BOTTLENECKS, model_settings

__all__ = [
    "FAMILIES",
    "Hints",
    "Converted",
    "convert",
    "export",
    "export_state",
    "from_state",
    "read_checkpoint",
    "recognise",
]


@dataclass(frozen=True)
class Converted:
    """A foreign checkpoint as a model of this package: weights, config, classes, and what was done."""

    state: dict[str, Tensor]
    config: Config
    classes: Classes
    family: str
    reasons: list[str]
    spare: list[str]  # tensors of the file that have no place here, with the reason


@dataclass(frozen=True)
class Hints:
    """What is said about a checkpoint where its tensors cannot tell.

    `family` names the code base, or 'auto'. `dialect` chooses among a family's dialects where names and shapes
    cannot (original / original-2019, adelaidet / adelaidet-iou, mmdet / mmdet-2019). `names` are the classes.
    `overrides` are settings such as "model.stride_in_1x1=false", applied last.
    """

    family: str = "auto"
    dialect: str | None = None
    names: Sequence[str] = ()
    overrides: Sequence[str] = ()


def from_state(
    state: Mapping[str, Tensor], info: Mapping[str, Any] | None = None, hints: Hints | None = None
) -> Converted:
    """A checkpoint's tensors (see `read_checkpoint`) as a model here.

    Raises ModelError, which lists both sides, where the tensors and the model do not match.
    """
    info, hints = dict(info or {}), hints or Hints()
    for key in ("pixel_mean", "pixel_std"):
        if key in state:
            info[key] = state[key].flatten().tolist()
    family, reasons = _family(state, hints.family)
    translated, unknown, spare = family.translate(state)
    try:
        model, assign, count, why = model_settings(translated)
    except ModelError as error:
        left = [side(unknown, "of the file fit nothing")] if unknown else []
        raise ModelError("; ".join([str(error), *left])) from None
    reading = Reading(translated, info, model["backbone"], len(model["strides"]))
    chosen, settings, more = family.settings(reading)
    if hints.dialect is not None:
        if hints.dialect not in family.dialects:
            raise ModelError(
                f"dialect {hints.dialect!r} does not belong to {family.about}, which has {', '.join(family.dialects)}"
            )
        chosen = hints.dialect
        more = [*more, f"dialect {chosen}, as asked"]
    config = with_dialect(_preset(model["backbone"]), chosen)
    config = config.override({"model": model, "assign": assign}, settings, source=f"{family.name} checkpoint")
    if model["backbone"] in WITHOUT_BOTTLENECKS:
        config = config.override({"model": {"stride_in_1x1": False}})
    config = config.override(*hints.overrides)
    return Converted(
        fit(translated, config, count, unknown, f"the {family.about} checkpoint"),
        config,
        class_names(count, family.name, tuple(hints.names) or _stored_names(info, count)),
        family.name,
        [*reasons, *why, *more],
        spare,
    )


def convert(path: str | Path, out: str | Path, hints: Hints | None = None, *, fold: bool = False) -> Converted:
    """Read the checkpoint `path` of another code base and write it to `out` (.safetensors) for this one.

    `fold` puts the pixels' order and deviation into the first convolution: RGB, only the mean taken off.
    """
    state, info = read_checkpoint(path)
    try:
        converted = from_state(state, info, hints)
    except ModelError as error:
        raise ModelError(f"cannot convert {path}: {error}") from None
    except (KeyError, IndexError, ValueError, RuntimeError) as error:  # a tensor that has not the shape of its name
        raise ModelError(f"cannot convert {path}: it is not built as its names say ({first_line(error)})") from error
    if fold:
        folded, config = fold_pixels(converted.state, converted.config)
        reason = "channel order and deviation folded into the first convolution: RGB, 0..255, minus the mean"
        converted = replace(converted, state=folded, config=config, reasons=[*converted.reasons, reason])
    about = {"converted_from": converted.family, "file": Path(path).name, "reasons": converted.reasons}
    weights.save(out, converted.state, converted.config, converted.classes, about=about)
    return converted


def export_state(state: Mapping[str, Tensor], config: Config, to: str) -> dict[str, Tensor]:
    """Weights of this package under the names and in the shapes of the family `to`; bit-exact."""
    _check_family(to)
    if config.model.regression == "bins":
        raise ModelError(f"model.regression=bins: {to} has no distances of this kind")
    return FAMILIES[to].spell(state, config)


def _check_family(to: str) -> None:
    if to not in FAMILIES:
        raise ModelError(f"cannot convert to {to!r}; families: {', '.join(FAMILIES)}")


def export(model: str | Path, out: str | Path, to: str, *, fold: bool = False) -> tuple[int, list[str]]:
    """Write a model of this package as a checkpoint of the family `to`.

    Returns (number of tensors, what the other side's config must say). `out` may end in .pth or .pkl. `fold` puts
    the difference between the pixels of this model and the family's usual ones into the first convolution.
    """
    _check_family(to)
    state, config, _, _ = weights.read(model)
    state = {k: v.float() if v.dtype == torch.float16 else v for k, v in state.items()}
    if fold:
        usual = with_dialect(preset("fcos-r50"), FAMILIES[to].dialects[0]).model
        state, config = fold_pixels(state, config, bgr=usual.bgr, std=usual.std)
    theirs = export_state(state, config, to)
    entry = FAMILIES[to].entry
    if Path(out).suffix == ".pkl":
        import pickle

        content = {
            "model": {k: v.numpy() for k, v in theirs.items()},
            "__author__": "fcos",
            "matching_heuristics": False,
        }
        write_whole(out, pickle.dumps(content))
    else:
        whole: Any = {entry: theirs} if entry else theirs
        write_whole(out, lambda path: torch.save(whole, path))
    return len(theirs), needs(config, to)


def needs(config: Config, to: str) -> list[str]:
    """What the family's config must say so that the exported weights give the same numbers there."""
    model = config.model
    order = "BGR" if model.bgr else "RGB"
    step = -1 if model.bgr else 1
    lines = [
        f"pixels in {order} order, 0..255, mean {list(model.mean[::step])}, deviation {list(model.std[::step])}",
    ]
    if "res" in model.backbone:
        lines.append(f"ResNet stride in the {'1x1' if model.stride_in_1x1 else '3x3'} convolution")
    if not model.scale and to_theirs("head.scales.0", FAMILIES[to].rules):
        lines.append("the scales of its head stay 1, as they begin: the weights have none")
    lines += [words(model) for fields, words in _CHOICES if _must_be_said(model, fields, FAMILIES[to])]
    if config.dialect not in FAMILIES[to].dialects:
        lines.append(
            f"the weights were trained under the dialect {config.dialect}; points, thresholds and scores differ"
        )
    return lines


def _must_be_said(model: ModelConfig, fields: tuple[str, ...], family: Family) -> bool:
    """Whether a configuration of the family has other values of these settings than the model."""
    ours = [getattr(model, name) for name in fields]
    theirs = (with_dialect(preset("fcos-r50"), dialect).model for dialect in family.dialects)
    return any([getattr(other, name) for name in fields] != ours for other in theirs)


# what names and shapes of tensors do not show: the settings, and how they are said
_CHOICES: tuple[tuple[tuple[str, ...], Callable[[ModelConfig], str]], ...] = (
    (
        ("regression", "normalize"),
        lambda m: f"box distances are {m.regression}(output), in {'strides' if m.normalize else 'pixels'}",
    ),
    (("centerness_on",), lambda m: f"centerness is computed on the {m.centerness_on} tower"),
    (
        ("backbone_norm_eps",),
        lambda m: (
            f"BatchNorm of the backbone with epsilon {1e-5 if m.backbone_norm_eps is None else m.backbone_norm_eps:g}"
        ),
    ),
    (
        ("head_bias",),
        lambda m: (
            "tower convolutions have a bias"
            if m.head_bias
            else f"tower convolutions have no bias ({2 * m.head_convs} tensors that a file with biases has are not "
            "written): switch theirs off, or leave them 0"
        ),
    ),
)


def _family(state: Mapping[str, Tensor], source: str) -> tuple[Family, list[str]]:
    if source == "auto":
        return recognise(state)
    if source not in FAMILIES:
        raise ModelError(f"cannot convert from {source!r}; families: auto, {', '.join(FAMILIES)}")
    family = FAMILIES[source]
    if not family.claims(state):
        wanted = to_theirs("head.class_logits.weight", family.rules)
        others = [f for f in FAMILIES.values() if f.claims(state)]
        hint = (
            f"its tensors are {others[0].about}'s, so --from {others[0].name}"
            if others
            else "no family's head is in it"
        )
        raise ModelError(f"{family.about} has {wanted} and the file does not; {hint}")
    return family, [f"{family.about}, as asked"]


def _stored_names(info: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """The class names that mmdetection writes beside the weights; none for COCO's 80 in its order, whose ids are
    known here."""
    meta = info.get("meta", {})
    for words in (meta, meta.get("dataset_meta")):
        for key in ("classes", "CLASSES"):
            names = words.get(key) if isinstance(words, Mapping) else None
            if isinstance(names, tuple | list) and len(names) == count and all(isinstance(n, str) for n in names):
                plain = tuple(n.replace("_", " ") for n in names)
                if set(plain) != set(COCO_80.names):
                    return tuple(names)
                return () if plain == COCO_80.names else plain
    return ()


def _preset(backbone: str) -> Config:
    for name in PRESETS:
        if name != "fcos-r50-2019" and preset(name).model.backbone == backbone:
            return preset(name)
    return preset("fcos-r50").override({"name": f"fcos-{backbone}", "model": {"backbone": backbone}})
