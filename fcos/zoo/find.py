"""Models by name: preset, bundled or downloaded weights, a repository of the Hub, a run folder or a file; saved as
safetensors with the config inside."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ..config import Config
from ..errors import ModelError, nearest, or_near
from ..export.registry import format_of
from ..network import weights
from ..network.model import FCOS
from ..system import remote
from ..system.environment import WEIGHTS
from ..system.machine import cache_folder
from ..system.threads import usual_torch
from ..types import Classes
from .download import Remote, fetch
from .models import Entry, known_models


def find_weights(name: str | Path) -> Path:
    """The weights file behind a model name, an hf:// repository, a run folder or a path, downloaded where that is
    needed; ModelError that says what to do."""
    if not isinstance(name, str | os.PathLike):
        raise ModelError(f"a model is a name, a run folder or a file, not {type(name).__name__}")
    if isinstance(name, str) and not name.strip():
        raise ModelError("an empty name was given for a model")
    if str(name).startswith("hf:/"):
        from .hub import download

        return download(re.sub("^hf:/+", "hf://", str(name)))  # a Path has one slash less
    if remote.is_remote(name):
        return _from_far(remote.url_of(name))
    path = Path(name).expanduser()
    known = known_models()
    # a folder that happens to be called like a model hides it only if it is one
    hidden = str(name) in known and not any((path / file).is_file() for file in WEIGHTS)
    if path.is_dir() and not hidden:
        for candidate in WEIGHTS:
            if (path / candidate).is_file():
                return path / candidate
        if format_of(path) is not None:  # .mlpackage
            return path
        inside = sorted({p.parent for p in path.glob("*/*.safetensors") if p.name in WEIGHTS})
        hint = f"; did you mean {inside[0]}?" if inside else ""
        if served := next(path.glob("*/model.onnx"), None):
            hint = f"; it is a folder for Triton, and {served} is the model"
        raise ModelError(f"{path} holds neither {' nor '.join(WEIGHTS)}{hint}")
    if path.is_file():
        return path
    if path.suffix:
        raise ModelError(f"there is no model file {path}{or_near(path, _is_model)}")
    entry = known.get(str(name))
    if entry is None:
        near = nearest(name, known)
        hint = f"; did you mean {near[0]}?" if near else or_near(path, _is_model)
        if path.parent != Path():  # more likely a run than a name
            raise ModelError(
                f"there is no folder or file {path}, and no model of that name{hint or '; `fcos models` lists them'}"
            )
        listed = f"; `fcos models` lists them: {', '.join(known)}"
        raise ModelError(f"there is no model called {str(name)!r}{hint or listed}")
    if (bundled := entry.bundled()) is not None:
        return bundled
    if entry.remote is not None:
        return _downloaded(entry, entry.remote)
    raise ModelError(
        f"{name} comes without weights; train it first: fcos train --data DATA --model {name}, "
        "then use --model runs/NAME"
    )


def _is_model(path: Path) -> bool:
    """Whether a path looks like what --model takes: a run folder, or a file with the suffix of a model."""
    if path.suffix.lower() in (".safetensors", ".pt", ".pth") or format_of(path) is not None:
        return True
    return any((path / file).is_file() for file in WEIGHTS)


def _from_far(url: str) -> Path:
    """A copy of the weights at a URL, of a file or a run folder."""
    if not remote.is_file(url):
        for candidate in WEIGHTS:
            if remote.is_file(f"{url.rstrip('/')}/{candidate}"):
                return remote.local(f"{url.rstrip('/')}/{candidate}", ModelError)
        raise ModelError(f"there is no model file {url}, nor a {' or '.join(WEIGHTS)} below it")
    return remote.local(url, ModelError)


def _downloaded(entry: Entry, there: Remote) -> Path:
    """The weights of `entry` in this package's form, in the cache; made again by a newer version of the package."""
    from ..version import __version__

    path = cache_folder() / f"{entry.name}.safetensors"
    try:
        if weights.header(path)[2].get("fcos") == __version__:
            return path
    except ModelError:
        pass  # not there, or not whole
    source = fetch(there)
    from ..convert.names import COCO_80, COCO_91
    from ..convert.translate import from_state, read_checkpoint

    converted = from_state(*read_checkpoint(source))
    state, classes = converted.state, converted.classes
    if classes == COCO_91:  # one output for every COCO id; 11 of them name no class and were never learned
        state = {k: v[list(COCO_80.ids)] if k.startswith("head.class_logits.") else v for k, v in state.items()}
        classes = COCO_80
    about = {
        "fcos": __version__,
        "parameters": entry.parameters,
        "licence": entry.licence,
        "AP": entry.ap,
        "judged_on": entry.ap_on,
        "converted_from": converted.family,
        "source": there.url,
    }
    return weights.save(path, state, converted.config, classes, about=about)


@usual_torch()
def load_network(name: str | Path, overrides: Sequence[str] = ()) -> tuple[FCOS, Config, Classes]:
    """(network in eval mode, config, classes) of a model name, run folder or .safetensors file."""
    path = find_weights(name)
    state, config, classes, _ = weights.read(path)
    stored_model = config.model
    config = config.override(*overrides)
    changed = config.model != stored_model
    weights.check_fit(config, len(classes), state, str(path), changed)
    network = FCOS(config.model, len(classes))
    weights.load_state(network, state, str(path), changed)
    return network.eval(), config, classes
