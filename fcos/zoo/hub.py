"""Models on the Hugging Face Hub: `hf://owner/name`, loaded and pushed through huggingface_hub.

A repository holds model.safetensors (weights with config and class names inside, all that loading needs),
config.json (the same settings for people and programs that do not read safetensors) and README.md, the card.
"""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from ..errors import ModelError, first_line, require
from ..network import weights
from ..system.remote import hub_in_a_line
from ..system.terminal import plural
from ..version import __version__

WEIGHTS = "model.safetensors"


def parse(name: str) -> tuple[str, str | None]:
    """("owner/name", revision or None) of "hf://owner/name" or "hf://owner/name@revision"."""
    match = re.fullmatch(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?", name)
    if not match:
        raise ModelError(f"{name!r} names no repository; write hf://owner/name or hf://owner/name@revision")
    return match[1], match[2]


def download(name: str) -> Path:
    """The weights file of a repository, from the Hub's own cache where it is there."""
    hub = require("huggingface_hub", "hub")
    repo, revision = parse(name)
    try:
        with hub_in_a_line():
            path = hub.hf_hub_download(repo, WEIGHTS, revision=revision, library_name="fcos")
    except Exception as error:  # whatever its client raises: the name, the network or the token
        raise ModelError(_explain(error, name)) from error
    return Path(path)


def push(model: str | Path, name: str, card: str, *, half: bool = False, private: bool = False) -> str:
    """Write weights, config.json and the card to the repository, in one commit; returns its address.

    The repository is made where there is none. `half` stores convolutions in float16.
    """
    hub = require("huggingface_hub", "hub")
    repo, revision = parse(name)
    state, config, classes, about = weights.read(model)
    described = {
        "library": "fcos",
        "fcos": __version__,
        "classes": {"names": classes.names, "ids": classes.ids},
        "config": config.model_dump(mode="json"),
        "about": about,
    }
    with tempfile.TemporaryDirectory() as folder:
        kept = weights.halved(state) if half else state
        weights.save(Path(folder) / WEIGHTS, kept, config, classes, about)
        (Path(folder) / "config.json").write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        try:
            api = hub.HfApi(library_name="fcos", library_version=__version__)
            address = api.create_repo(repo, private=private or None, exist_ok=True)
            api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                revision=revision,
                commit_message=f"{config.name}, {plural(len(classes), 'class')}",
            )
        except Exception as error:
            raise ModelError(_explain(error, name)) from error
    return str(address)


def _explain(error: Exception, name: str) -> str:
    from huggingface_hub import errors

    login = "log in with `hf auth login`, or set HF_TOKEN"
    status = getattr(getattr(error, "response", None), "status_code", None)
    known: list[tuple[Any, str]] = [
        (errors.GatedRepoError, f"{name} asks for an agreement first; accept it on its page, then {login}"),
        (errors.RepositoryNotFoundError, f"there is no {name}, or it is private: {login}"),
        (errors.RevisionNotFoundError, f"{name} has no such revision"),
        (
            errors.LocalEntryNotFoundError,
            f"{name} cannot be reached and is not in the local cache; try again with a network, or give its "
            f"{WEIGHTS} as a file",
        ),
        (errors.EntryNotFoundError, f"{name} holds no {WEIGHTS}"),
        (errors.LocalTokenNotFoundError, f"writing to {name} needs a token: {login}"),
    ]
    for kind, text in known:
        if isinstance(error, kind):
            return text
    if status in (401, 403):
        return f"no permission for {name} (HTTP {status}): {login}"
    reason = first_line(error)
    return f"{name}: {reason}"
