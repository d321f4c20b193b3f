"""What a result was made with: versions, commit, machine, data."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from .terminal import plural

if TYPE_CHECKING:
    from ..data.dataset import Dataset

# Files of the folder of a training run.
RUN_FILE = "environment.json"  # it lies in no other folder
CONFIG_FILE, METRICS_FILE, RESULT, COMMAND = "config.yaml", "metrics.json", "result.json", "command.txt"
WEIGHTS = BEST, LAST = "best.safetensors", "last.safetensors"  # the first that is there is the run's model
HASHES = "sha256"  # under which `data_hashes` are kept and compared
_SAID = 60  # characters of a value that an error repeats


def environment(data: Mapping[str, Dataset], **more: Any) -> dict[str, Any]:
    """Where a result comes from: command, versions, commit, machine, date, and a hash of the annotations."""
    import torch

    from ..version import __version__

    return {
        "command": _command(sys.argv),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "fcos": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: importlib.metadata.version(name) for name in ("torchvision", "timm")},
        "machine": f"{platform.machine()}, {processor()}, {plural(torch.get_num_threads(), 'thread')}",
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "data": data_facts(data),
        **more,
    }


def _command(words: Sequence[str]) -> str:
    """What was typed: the verb of this package, or the script that called it without its folder."""
    program = Path(words[0] if words else "")
    if program.stem == "fcos" or program.parts[-2:] == ("fcos", "__main__.py"):
        return shlex.join(["fcos", *words[1:]])
    if program.name == "__main__.py":
        return shlex.join(["python", "-m", program.parent.name, *words[1:]])
    if program.suffix == ".py" and "ipykernel" not in program.name:
        return shlex.join(["python", program.name, *words[1:]])
    return "a Python session"


def data_facts(data: Mapping[str, Dataset]) -> dict[str, dict[str, Any]]:
    """What `environment` keeps of each data set."""
    return {k: {"root": str(d.root), "images": len(d), "sha256": data_hash(d)} for k, d in data.items()}


def data_hash(dataset: Dataset) -> str:
    """SHA-256 over file names, boxes, labels and ignore flags."""
    digest = hashlib.sha256()
    for record in dataset.records:
        digest.update(record.file_name.encode())
        for array in (record.boxes, record.labels, record.ignore):
            digest.update(array.tobytes())
    return digest.hexdigest()


def data_hashes(data: Mapping[str, Dataset]) -> dict[str, str]:
    """`data_hash` of what is learned from and judged by: "train" and "val", as far as they are there."""
    return {name: data_hash(data[name]) for name in ("train", "val") if name in data}


def hashes_in(stored: object) -> dict[str, str]:
    """The `data_hashes` in the content of an environment.json, as far as it has them."""
    data = stored.get("data") if isinstance(stored, dict) else None
    facts = data if isinstance(data, dict) else {}
    told = {k: v.get("sha256") for k, v in facts.items() if k in ("train", "val") and isinstance(v, dict)}
    return {k: v for k, v in told.items() if isinstance(v, str)}


def check_same(place: Path, what: str, stored: object, asked: Mapping[str, Any]) -> None:
    """ConfigError where `place`, which holds `what` ("a run"), was not begun with what is `asked` for now: what is
    `stored` there differs in one of its keys, of which `HASHES` is that of the data."""
    known: Mapping[str, Any] = stored if isinstance(stored, dict) else {}
    compared = (key for key in asked if key != HASHES or key in known)  # version 1.0.0 kept no hash
    key = next((key for key in compared if known.get(key) != asked[key]), None)
    if key is None:
        return
    was, now = known.get(key), asked[key]
    if key == HASHES:
        before = was if isinstance(was, dict) else {}
        parts = " and ".join(name for name in ("train", "val") if before.get(name) != now.get(name))
        changed = f"images or labels of {parts} changed"
        raise ConfigError(f"{place} holds {what} of other data: {changed}; give another --out")
    told = f" ({was}, not {now})" if len(f"{was}{now}") <= _SAID and not isinstance(now, Mapping) else ""
    raise ConfigError(f"{place} holds {what} with other {key}{told}; give another --out, or the same {key}")


def _commit() -> str | None:
    def git(*words: str) -> str:
        command = ["git", "--no-optional-locks", *words]
        return subprocess.run(
            command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != Path(__file__).resolve().parents[2]:
            return None  # installed somewhere inside another project
        # not describe --dirty: it writes the index, and leaves a lock behind where it is killed
        name = git("describe", "--always")
        changed = bool(name) and git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{name}-dirty" if changed else name or None


def processor() -> str:
    """What the CPU calls itself."""
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"
