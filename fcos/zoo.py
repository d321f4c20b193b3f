"""Models by name: preset, bundled weights or a file; saved as safetensors with the config inside."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from .config import Config, from_dict
from .errors import ConfigError, ModelError
from .files import write_whole
from .model import FCOS
from .presets import PRESETS, preset
from .types import Classes

_FORMAT = "1"


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model of the zoo: what it is, where its weights are, what they reach."""

    name: str
    about: str
    config: Config
    file: str | None = None  # bundled with the package, in fcos/assets

    def path(self) -> Path | None:
        """The bundled weights file, or None when this name is an architecture only."""
        if self.file is None:
            return None
        path = Path(str(resources.files("fcos") / "assets" / self.file))
        return path if path.is_file() else None


def models() -> dict[str, Entry]:
    """Every name that `--model` takes."""
    return {
        name: Entry(name, (build.__doc__ or "").strip().splitlines()[0], build(), f"{name}.safetensors")
        for name, build in PRESETS.items()
    }


def build(config: Config, num_classes: int) -> FCOS:
    """A network with fresh weights."""
    return FCOS(config.model, num_classes)


def save(
    path: str | Path,
    state: Mapping[str, Tensor],
    config: Config,
    classes: Classes,
    *,
    half: bool = False,
    about: Mapping[str, Any] | None = None,
) -> Path:
    """Write weights, config, class names and ids to one .safetensors file. `half` stores float16."""
    from safetensors.torch import save_file

    tensors = {
        k: (v.half() if half and v.is_floating_point() else v).detach().cpu().contiguous().clone()
        for k, v in state.items()
    }
    metadata = {
        "format": _FORMAT,
        "config": config.model_dump_json(),
        "classes": json.dumps({"names": classes.names, "ids": classes.ids}),
        "about": json.dumps(dict(about or {})),
    }
    return write_whole(path, lambda p: save_file(tensors, p, metadata={"fcos": json.dumps(metadata)}))


def read(path: str | Path) -> tuple[dict[str, Tensor], Config, Classes, dict[str, Any]]:
    """(weights, config, classes, about) of a file written by `save`; ModelError for anything else."""
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no model file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get("fcos")
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelError(f"{path} is not a whole safetensors file: {str(error).splitlines()[0]}") from error
    if metadata is None:
        raise ModelError(f"{path} holds weights but no fcos config; `fcos convert` reads other detectors' files")
    try:
        stored = json.loads(metadata)
        config = from_dict(json.loads(stored["config"]), str(path))
        classes = json.loads(stored["classes"])
        about = json.loads(stored.get("about", "{}"))
        return state, config, Classes(tuple(classes["names"]), tuple(classes["ids"])), about
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: its fcos metadata cannot be read ({error})") from error


def find(name: str | Path) -> Path:
    """The weights file behind a model name, a run folder or a path; ModelError that says what to do."""
    path = Path(name).expanduser()
    if path.is_dir():
        for candidate in ("best.safetensors", "last.safetensors"):
            if (path / candidate).is_file():
                return path / candidate
        raise ModelError(f"{path} holds neither best.safetensors nor last.safetensors")
    if path.is_file():
        return path
    if path.suffix:
        raise ModelError(f"there is no model file {path}")
    try:
        preset(str(name))
    except ConfigError as error:
        raise ModelError(str(error)) from None
    bundled = models()[str(name)].path()
    if bundled is None:
        raise ModelError(
            f"{name} comes without weights; train it first: fcos train --data DATA --model {name}, "
            "then use --model runs/NAME"
        )
    return bundled


def load(name: str | Path, overrides: Sequence[str] = ()) -> tuple[FCOS, Config, Classes]:
    """(network in eval mode, config, classes) of a model name, run folder or .safetensors file."""
    path = find(name)
    state, config, classes, _ = read(path)
    stored_model = config.model
    config = config.override(*overrides, source="command line")
    network = FCOS(config.model, len(classes))
    load_state(network, state, str(path), changed=config.model != stored_model)
    return network.eval(), config, classes


def load_state(network: FCOS, state: Mapping[str, Tensor], source: str, changed: bool = False) -> None:
    """Fill the network; ModelError that lists both sides where the keys or shapes differ."""
    wanted = network.state_dict()
    missing = [k for k in wanted if k not in state or state[k].shape != wanted[k].shape]
    spare = [k for k in state if k not in wanted]
    if missing or spare:
        hint = "; the model.* settings given do not fit these weights" if changed else ""
        raise ModelError(
            f"{source} does not fit its config: missing or misshapen {missing[:3]}, left over {spare[:3]}{hint}"
        )
    network.load_state_dict({k: v.to(wanted[k].dtype) for k, v in state.items()})


def transfer(network: FCOS, state: Mapping[str, Tensor]) -> tuple[list[str], list[str]]:
    """Fill what fits of another detector's weights; (kept, fresh) names of tensors."""
    wanted = network.state_dict()
    kept = [k for k in wanted if k in state and state[k].shape == wanted[k].shape]
    network.load_state_dict({k: state[k].to(wanted[k].dtype) for k in kept}, strict=False)
    return kept, [k for k in wanted if k not in kept]
