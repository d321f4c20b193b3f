"""The golden tensors of four other implementations (../shared/golden), and models with the weights they had."""

import gzip
import importlib.util
import json
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SHARED

from fcos.assign import assign_batch
from fcos.convert.family import fit
from fcos.convert.shapes import model_settings
from fcos.convert.translate import FAMILIES, Hints, export_state, from_state
from fcos.network import weights
from fcos.points import make_points
from fcos.presets import preset
from fcos.types import Target

FOLDER = SHARED / "golden"
SMALL = Path(__file__).parent / "golden"
needs_golden = pytest.mark.skipif(not FOLDER.is_dir(), reason="../shared/golden is not here")
# dialect -> (family, file of golden tensors, list of keys)
CASES = {
    "original": ("original", "original_imprv", "original"),
    "original-2019": ("original", None, "original"),
    "adelaidet": ("adelaidet", "adelaidet", "adelaidet"),
    "detectron2": ("detectron2", "detectron2", "detectron2"),
    "mmdet": ("mmdet", "mmdet_imprv", "mmdet_imprv"),
    "mmdet-2019": ("mmdet", None, "mmdet_base"),
    "torchvision": ("torchvision", None, "torchvision_frozenbn"),
}


@cache
def canonical():
    spec = importlib.util.spec_from_file_location("canonical_weights", FOLDER / "canonical_weights.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    state = module.canonical_weights()
    return state, module.digest(state)


def load(name):
    return torch.load(FOLDER / f"{name}.pt", weights_only=True)


def keys(name):
    """name -> (shape, dtype) of one of the lists of tests/golden."""
    rows = json.loads(gzip.decompress((SMALL / "keys.json.gz").read_bytes()))[name]
    return {k: (tuple(int(n) for n in shape.strip("()").split(",") if n.strip()), dtype) for k, shape, dtype in rows}


def checkpoint(dialect):
    """The canonical weights as the family of a dialect stores them."""
    family, _, listed = CASES[dialect]
    translated, _, _ = FAMILIES["original"].translate(canonical()[0])
    listed = keys(listed)
    if not any("scales" in k for k in listed):
        del translated["head.scales"]
    if not any("tower" in k or "subnet" in k or "cls_convs.0.conv.bias" in k or ".conv.0.bias" in k for k in listed):
        translated = {k: v for k, v in translated.items() if not ("layers" in k and k.endswith("conv.bias"))}
    if family == "torchvision":  # 91 outputs, COCO's ids: here the first 80 after the background
        for key in ("head.class_logits.weight", "head.class_logits.bias"):
            value = translated[key]
            translated[key] = torch.cat((value[:1] * 0 - 9, value, value[:10] * 0 - 9))
    model, assign, count, _ = model_settings(translated)
    config = preset("fcos-r50").override({"model": model, "assign": assign})
    return export_state(fit(translated, config, count, [], "canonical"), config, family)


@cache
def model(dialect):
    """(network in eval mode, config, classes) out of `checkpoint(dialect)`."""
    found = from_state(checkpoint(dialect), hints=Hints(family=CASES[dialect][0], dialect=dialect))
    network = weights.build(found.config, len(found.classes))
    weights.load_state(network, found.state, dialect)
    return network.eval(), found.config, found.classes


@cache
def scene(dialect):
    """The golden images and boxes through the model: predictions, points, targets, sizes, index."""
    network, config, _ = model(dialect)
    inputs = load("inputs")
    images = torch.tensor(config.model.mean).view(1, 3, 1, 1).repeat(2, 1, 256, 320)
    for image, pixels in zip(images, inputs["images_rgb_uint8"], strict=True):
        image[:, : pixels.shape[1], : pixels.shape[2]] = pixels
    targets = [
        Target(boxes, labels + (dialect == "torchvision"), torch.zeros(len(labels), dtype=torch.bool))
        for boxes, labels in zip(inputs["boxes"], inputs["labels0based"], strict=True)
    ]
    points = make_points((256, 320), config.model, config.assign)
    with torch.inference_mode():
        features = network.features(images)
        predictions = network.head(features)
    sizes = [tuple(s) for s in inputs["sizes_hw"]]
    index = assign_batch(points, targets, config.assign)
    return SimpleNamespace(
        config=config, features=features, pred=predictions, points=points, targets=targets, sizes=sizes, index=index
    )
