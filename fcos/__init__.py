"""FCOS: fully convolutional one-stage object detection (arXiv 1904.01355, 2006.09214), end to end.

import fcos
model = fcos.load("fcos-lite0")
detections = model("photo.jpg")
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import labels as labels
    from .analysis.doctor import doctor
    from .analysis.explain import explain
    from .config import Config
    from .data.dataset import Dataset
    from .data.open import open_dataset
    from .data.tree import DataSource
    from .data.write import save_dataset
    from .detections import Detections
    from .errors import FcosError
    from .evaluation.program import compare, evaluate
    from .inference.detector import Detector
    from .inference.load import load
    from .presets import preset
    from .training.program import train

from .version import __version__

# public name -> module; loaded on first use, so that `import fcos` and `fcos --help` stay fast
_WHERE = {
    "Config": "config",
    "preset": "presets",
    "DataSource": "data.tree",
    "Dataset": "data.dataset",
    "open_dataset": "data.open",
    "save_dataset": "data.write",
    "Detector": "inference.detector",
    "load": "inference.load",
    "FcosError": "errors",
    "compare": "evaluation.program",
    "evaluate": "evaluation.program",
    "doctor": "analysis.doctor",
    "explain": "analysis.explain",
    "train": "training.program",
    "Detections": "detections",
}

_ROOMS = ("labels",)  # whose functions are public: fcos.labels.check

__all__ = [
    "Config",
    "DataSource",
    "Dataset",
    "Detections",
    "Detector",
    "FcosError",
    "compare",
    "doctor",
    "evaluate",
    "explain",
    "load",
    "open_dataset",
    "preset",
    "save_dataset",
    "train",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return import_module(f".{name}", __name__)
    if name not in _WHERE:
        raise AttributeError(f"module 'fcos' has no attribute {name!r}")
    return getattr(import_module(f".{_WHERE[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted([*__all__, *_ROOMS])
