"""A model as one small file, recipe and numbers inside."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config import Config
from ..evaluation.calibration import fit
from ..evaluation.program import detect
from ..inference.composite import OWN, Looks
from ..inference.load import load_together
from ..network import weights
from ..types import Classes
from . import card
from .find import find_weights, load_network

if TYPE_CHECKING:
    from ..data.dataset import Dataset


def pack(
    model: str, out: Path, about: Mapping[str, Any], full: bool = False, unlearned: Dataset | None = None
) -> tuple[Config, Classes]:
    """Write a model to `out`, and return what it says of itself.

    `about` goes into its header; `full` keeps float32, else the file holds float16. `unlearned`, images that it did not
    learn, teach it to turn its scores into probabilities.
    """
    path = find_weights(model)
    network, config, classes = load_network(path)
    told: dict[str, Any] = {**weights.header(path)[2], **card.recipe(path.parent)}
    told["parameters"] = sum(p.numel() for p in network.parameters())
    told |= about
    if unlearned is not None:
        detector = load_together([model], Looks(OWN), runtime="torch", overrides=["decode.calibrated=false"])
        detections, dataset = detect(detector, unlearned)
        lines = [list(line) for line in fit(detections, dataset, classes.names)]
        config = config.override({"decode": {"calibration": lines}})
    state = network.state_dict()
    weights.save(out, state if full else weights.halved(state), config, classes, told)
    return config, classes
