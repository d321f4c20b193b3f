"""What a result was made with: versions, commit, machine, data."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .terminal import plural

if TYPE_CHECKING:
    from ..data.dataset import Dataset

RUN_FILE = "environment.json"  # it lies in the folder of a training run, and in no other


def environment(data: Mapping[str, Dataset], **more: Any) -> dict[str, Any]:
    """Where a result comes from: command, versions, commit, machine, date, and a hash of the annotations."""
    import torch

    from ..version import __version__

    return {
        "command": shlex.join(["fcos", *sys.argv[1:]]),
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
