"""Models by name: preset, bundled or downloaded weights, a repository of the Hub, a run folder or a file; saved as
safetensors with the config inside."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..config import Config, from_dict
from ..errors import ModelError
from ..files import write_whole
from ..network.model import FCOS
from ..presets import PRESETS, preset, with_dialect
from ..types import Classes
from .download import Remote, cache_folder, fetch

ASSETS = Path(__file__).parents[1] / "assets"
_FORMAT = "1"
_CHECKPOINTS = (".pth", ".pt", ".pkl", ".bin", ".ckpt")
_HALF_MAX = torch.finfo(torch.float16).max


@dataclasses.dataclass(frozen=True)
class Entry:
    """A model of the zoo: what it is, where its weights are, what they reach.

    parameters: of the network with `classes` outputs. ap: COCO AP, 0..1, as published on `ap_on`, None where
    nothing is published. A bundled file says all of this itself (see `header`), and then that holds.
    """

    name: str
    about: str
    config: Config
    parameters: int
    classes: int = 80
    remote: Remote | None = None
    licence: str = ""
    ap: float | None = None
    ap_on: str = ""

    def bundled(self) -> Path | None:
        """The weights file in the package, or None."""
        path = ASSETS / f"{self.name}.safetensors"
        return path if path.is_file() else None

    def downloaded(self) -> Path | None:
        """The weights file in the cache, or None."""
        path = cache_folder() / f"{self.name}.safetensors"
        return path if self.remote is not None and path.is_file() else None

    def path(self) -> Path | None:
        """The weights file where it is on this machine already, or None."""
        return self.bundled() or self.downloaded()


# network parameters of the presets with 80 classes
_PARAMETERS = {
    "fcos-lite0": 3_535_034,
    "fcos-lite1": 4_299_706,
    "fcos-lite2": 4_938_746,
    "fcos-r50": 32_297_370,
    "fcos-r50-2019": 32_297_370,
    "fcos-r101": 51_289_498,
    "fcos-x101-32x8d": 95_531_674,
    "fcos-x101-64x4d": 90_195_610,
    "fcos-hrnet-w32": 39_212_442,
}

# published weights, downloaded on first use
_DOWNLOADS = (
    Entry(
        "torchvision/fcos-r50-coco",
        "torchvision's FCOS_ResNet50_FPN_Weights.COCO_V1, under the torchvision dialect.",
        with_dialect(preset("fcos-r50"), "torchvision"),
        32_297_365,
        # the file's name holds the first digits of its hash
        remote=Remote(
            "https://download.pytorch.org/models/fcos_resnet50_fpn_coco-99b0c9b7.pth", "99b0c9b7", 129_612_000
        ),
        licence="BSD-3-Clause",
        ap=0.392,
        ap_on="COCO val2017, by torchvision",
    ),
)


def models() -> dict[str, Entry]:
    """Every name that `--model` takes."""
    presets = [
        Entry(name, (build.__doc__ or "").strip().splitlines()[0], build(), _PARAMETERS[name])
        for name, build in PRESETS.items()
    ]
    return {entry.name: entry for entry in (*presets, *_DOWNLOADS)}


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
    """Write weights, config, class names and ids to one .safetensors file.

    `half` stores tensors of two and more dimensions (all but norms and biases, so nearly everything) as float16
    where their values fit; `load` and `load_state` give float32 again.
    """
    from safetensors.torch import save_file

    tensors = {k: (_halved(v) if half else v).detach().cpu().contiguous().clone() for k, v in state.items()}
    metadata = {
        "format": _FORMAT,
        "config": config.model_dump_json(),
        "classes": json.dumps({"names": classes.names, "ids": classes.ids}),
        "about": json.dumps(dict(about or {})),
    }
    return write_whole(path, lambda p: save_file(tensors, p, metadata={"fcos": json.dumps(metadata)}))


def _halved(tensor: Tensor) -> Tensor:
    if not tensor.is_floating_point() or tensor.ndim < 2 or not bool((tensor.abs() <= _HALF_MAX).all()):
        return tensor
    return tensor.half()


def read(path: str | Path) -> tuple[dict[str, Tensor], Config, Classes, dict[str, Any]]:
    """(weights, config, classes, about) of a file written by `save`; ModelError for anything else."""
    state: dict[str, Tensor] = {}
    config, classes, about = _read(Path(path), state)
    return state, config, classes, about


def header(path: str | Path) -> tuple[Config, Classes, dict[str, Any]]:
    """(config, classes, about) of a file written by `save`, without its weights."""
    return _read(Path(path), None)


def _read(path: Path, state: dict[str, Tensor] | None) -> tuple[Config, Classes, dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ModelError(f"there is no model file {path}")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get("fcos")
            if state is not None:
                state.update({key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        hint = f"; for a checkpoint: fcos convert {path} OUT.safetensors" if path.suffix in _CHECKPOINTS else ""
        raise ModelError(f"{path} is not a whole safetensors file: {str(error).splitlines()[0]}{hint}") from error
    if metadata is None:
        raise ModelError(f"{path} holds weights but no fcos config; `fcos convert` reads other detectors' files")
    try:
        stored = json.loads(metadata)
        config = from_dict(json.loads(stored["config"]), str(path))
        classes = json.loads(stored["classes"])
        about = json.loads(stored.get("about", "{}"))
        return config, Classes(tuple(classes["names"]), tuple(classes["ids"])), about
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path}: its fcos metadata cannot be read ({error})") from error


def find(name: str | Path) -> Path:
    """The weights file behind a model name, an hf:// repository, a run folder or a path, downloaded where that is
    needed; ModelError that says what to do."""
    if str(name).startswith("hf:/"):
        from .hub import download

        return download(str(name))
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
    known = models()
    entry = known.get(str(name))
    if entry is None:
        near = difflib.get_close_matches(str(name), known, 1)
        hint = f"did you mean {near[0]}?" if near else f"`fcos models` lists them: {', '.join(known)}"
        raise ModelError(f"there is no model called {str(name)!r}; {hint}")
    if (bundled := entry.bundled()) is not None:
        return bundled
    if entry.remote is not None:
        return _downloaded(entry, entry.remote)
    raise ModelError(
        f"{name} comes without weights; train it first: fcos train --data DATA --model {name}, "
        "then use --model runs/NAME"
    )


def _downloaded(entry: Entry, remote: Remote) -> Path:
    """The weights of `entry` in this package's form, in the cache; made again by a newer version of the package."""
    from .. import __version__

    path = cache_folder() / f"{entry.name}.safetensors"
    try:
        if header(path)[2].get("fcos") == __version__:
            return path
    except ModelError:
        pass  # not there, or not whole
    source = fetch(remote)
    from ..convert.names import COCO_80, COCO_91
    from ..convert.translate import from_state, read_checkpoint

    found = from_state(*read_checkpoint(source))
    state, classes = found.state, found.classes
    if classes == COCO_91:  # one output for every COCO id; 11 of them name no class and were never learned
        state = {k: v[list(COCO_80.ids)] if k.startswith("head.class_logits.") else v for k, v in state.items()}
        classes = COCO_80
    about = {
        "fcos": __version__,
        "parameters": entry.parameters,
        "licence": entry.licence,
        "AP": entry.ap,
        "judged_on": entry.ap_on,
        "converted_from": found.family,
        "source": remote.url,
    }
    return save(path, state, found.config, classes, about=about)


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
    """Fill what fits of another detector's weights, layer by layer (a bias alone means nothing); (kept, fresh) names
    of tensors."""
    wanted = network.state_dict()
    unfit = {k.rpartition(".")[0] for k in wanted if k not in state or state[k].shape != wanted[k].shape}
    kept = [k for k in wanted if k.rpartition(".")[0] not in unfit]
    network.load_state_dict({k: state[k].to(wanted[k].dtype) for k in kept}, strict=False)
    return kept, [k for k in wanted if k not in kept]
