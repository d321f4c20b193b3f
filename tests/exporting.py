"""The smallest networks to export, which fire everywhere, and what each format needs."""

import importlib.util

import numpy as np
import pytest
import torch
from tiny import tiny_config

from fcos.network import weights
from fcos.presets import with_dialect

NEEDS = {
    "onnx": ("onnxscript", "onnxruntime"),
    "openvino": ("openvino",),
    "executorch": ("executorch",),
    "litert": ("litert_torch",),
    "torchscript": (),
}
needs_onnx = pytest.mark.skipif(
    not all(importlib.util.find_spec(name) for name in NEEDS["onnx"]), reason="pip install 'fcos-detector[onnx]'"
)
# the smallest body, since tracing costs by the operation: it has no bottlenecks
PLAIN = {"backbone": "plain", "stride_in_1x1": False, "backbone_norm_eps": None}


def noise(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


def network_of(config):
    """Random weights that fire everywhere, with probabilities well apart."""
    torch.manual_seed(0)
    network = weights.build(config, 2).eval()
    with torch.no_grad():
        for conv in (network.head.class_logits, network.head.centerness):
            conv.weight.normal_(std=0.3)
            conv.bias.zero_()
        network.head.box_distances.weight.normal_(std=0.02)
    return network


def config_of(dialect="fcos", **sections):
    """The last level's cells do not divide an image of 96 pixels."""
    decode = {"topk": 60, "max_detections": 30, **sections.pop("decode", {})}
    small = {
        **PLAIN,
        "head_channels": 24,  # groups of 3: torch refuses GroupNorm of a single number, at a level of one cell
        **sections.pop("model", {}),
    }
    levels = {"model": {"strides": (16, 32, 64)}, "assign": {"ranges": (32.0, 64.0)}}
    return with_dialect(tiny_config(), dialect).override(levels, {"decode": decode, "model": small, **sections})
