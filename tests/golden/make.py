"""Make the small golden files of this folder; README.md says what is in them.

python tests/golden/make.py torchvision          # runs the torchvision that is installed
python tests/golden/make.py distil SHARED/golden # takes parts of what four other implementations computed
"""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import torch

HERE = Path(__file__).resolve().parent
STRIDES = (8, 16, 32, 64, 128)
CLASSES = 6  # kept of 80: those with most detections in the first image
FILES = {"original": "original_imprv", "adelaidet": "adelaidet", "detectron2": "detectron2", "mmdet": "mmdet_imprv"}
SIZE = (96, 128)  # of torchvision's image


def canonical(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights for names and shapes, the same on every machine: the seed of a tensor is the checksum of its name."""
    state = {}
    for name, shape in shapes.items():
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("running_var"):
            value = rng.uniform(0.8, 1.2, shape)
        elif len(shape) == 1:
            grows = name.endswith("weight")  # of a norm
            value = rng.uniform(0.8, 1.2, shape) if grows else rng.uniform(-0.1, 0.1, shape)
        else:
            value = rng.normal(0, (2 / np.prod(shape[1:])) ** 0.5, shape)
        state[name] = torch.from_numpy(np.asarray(value, np.float32))
    for name, value in state.items():  # heads that fire, with boxes of some pixels
        if name.endswith(("cls_logits.weight", "bbox_reg.weight", "bbox_ctrness.weight")):
            value *= 0.5
        if name.endswith("cls_logits.bias"):
            value -= 1.5
        if name.endswith("bbox_reg.bias"):
            value += 2.0
    return state


def image(seed: int = 0) -> np.ndarray:
    """[H,W,3] uint8 in cells of eight pixels."""
    cells = np.random.default_rng(seed).integers(0, 256, (SIZE[0] // 8, SIZE[1] // 8, 3), dtype=np.uint8)
    return np.ascontiguousarray(cells.repeat(8, 0).repeat(8, 1))


BOXES = torch.tensor([[10.0, 12, 60, 70], [40, 30, 120, 90], [44, 30, 50, 38], [2, 60, 30, 95], [2, 60, 30, 95]])
LABELS = torch.tensor([1, 2, 1, 3, 2])


def tiny():  # type: ignore[no-untyped-def]
    """torchvision's FCOS on a ResNet-18, four classes, with canonical weights."""
    from torchvision.models.detection import FCOS
    from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
    from torchvision.ops.feature_pyramid_network import LastLevelP6P7

    backbone = resnet_fpn_backbone(
        backbone_name="resnet18", weights=None, trainable_layers=5, returned_layers=[2, 3, 4],
        extra_blocks=LastLevelP6P7(256, 256),
    )  # fmt: skip
    model = FCOS(backbone, 4, min_size=SIZE[0], max_size=SIZE[1])
    state = canonical({k: tuple(v.shape) for k, v in model.state_dict().items() if v.is_floating_point()})
    model.load_state_dict(state, strict=False)
    return model.eval()


def torchvision() -> None:
    from importlib.metadata import version

    model, pixels = tiny(), torch.from_numpy(image()).permute(2, 0, 1) / 255
    with torch.inference_mode():
        batch, _ = model.transform([pixels])
        features = list(model.backbone(batch.tensors).values())
        head = model.head(features)
        (found,) = model([pixels])
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()
    losses = model([pixels], [{"boxes": BOXES, "labels": LABELS}])
    np.savez_compressed(
        HERE / "torchvision.npz",
        versions=f"torchvision {version('torchvision')}, torch {version('torch')}",
        logits=head["cls_logits"][0], distances=head["bbox_regression"][0], centerness=head["bbox_ctrness"][0, :, 0],
        boxes=found["boxes"], scores=found["scores"], labels=found["labels"],
        losses=np.array([float(losses[k].detach()) for k in ("classification", "bbox_regression", "bbox_ctrness")]),
    )  # fmt: skip


def distil(folder: Path) -> None:
    inputs = torch.load(folder / "inputs.pt", weights_only=True)
    kept: dict[str, np.ndarray] = {}
    for name, values in (("boxes", inputs["boxes"]), ("labels", inputs["labels0based"])):
        for i, value in enumerate(values):
            kept[f"{name}{i}"] = value.numpy()
    kept["sizes"] = np.array(inputs["sizes_hw"])
    for dialect, file in FILES.items():
        golden = torch.load(folder / f"{file}.pt", weights_only=True)
        kept |= {f"{dialect}.{k}": v.numpy() for k, v in _parts(dialect, golden).items()}
    np.savez_compressed(HERE / "four.npz", **kept)
    keys = {}
    for path in sorted(folder.glob("keys_*.txt")):
        rows = [line.split("\t") for line in path.read_text().splitlines()]
        keys[path.stem.removeprefix("keys_")] = rows
    # no time of writing in the file, so that it is the same each time
    (HERE / "keys.json.gz").write_bytes(gzip.compress(json.dumps(keys).encode(), mtime=0))


def _rows(maps: list[torch.Tensor]) -> torch.Tensor:
    """[N,C,H,W] a level -> [N,P,C]"""
    return torch.cat([m.permute(0, 2, 3, 1).flatten(1, 2) for m in maps], dim=1)


def _parts(dialect: str, golden: dict) -> dict[str, torch.Tensor]:  # type: ignore[type-arg]
    """Head outputs and detections of the first image in the classes with most detections; targets and what the
    head says at the positives of both images; the losses."""
    logits = _rows(golden["logits"])
    centerness = _rows(golden["ctrness" if "ctrness" in golden else "centerness"]).squeeze(-1)
    if "reg_eval_pixels" in golden:
        distances = _rows(golden["reg_eval_pixels"])
    else:
        raw = (
            golden["reg_stride_units"] if dialect == "adelaidet" else [r.relu() for r in golden["reg_raw_before_relu"]]
        )
        distances = _rows([r * s for r, s in zip(raw, STRIDES, strict=True)])
    found = golden["detections"][0]
    labels = found["labels1based"] - 1 if "labels1based" in found else found["labels0based"]
    classes = labels.bincount(minlength=80).topk(CLASSES).indices.sort().values
    of = torch.isin(labels, classes)

    cells = [m.shape[-2] * m.shape[-1] for m in golden["logits"]]

    def by_image(levels: list[torch.Tensor]) -> torch.Tensor:  # level first, images one after the other -> [N,P,...]
        return torch.cat([v.view(2, n, *v.shape[1:]) for v, n in zip(levels, cells, strict=True)], dim=1)

    unit = torch.cat([torch.full((n,), float(s)) for n, s in zip(cells, STRIDES, strict=True)])[None, :, None]
    if dialect == "original":
        learnt, sides = (
            by_image(golden["target_labels1based_level_first"]) - 1,
            by_image(golden["target_ltrb_level_first"]),
        )
    elif dialect == "detectron2":
        learnt = torch.stack([torch.cat(image) for image in golden["target_labels0based_bg80"]])
        sides = torch.stack([torch.cat(image) for image in golden["target_ltrb_norm"]])
    else:
        learnt = by_image(golden["target_labels0based_bg80_level_first"])
        name = "target_ltrb_norm_level_first" if dialect == "adelaidet" else "target_ltrb_level_first"
        sides = by_image(golden[name])
    learnt = torch.where(learnt == 80, -1, learnt)
    spots = (learnt >= 0).nonzero()
    at = spots[:, 0], spots[:, 1]
    return {
        "classes": classes,
        "logits": logits[0][:, classes],
        "distances": distances[0],
        "centerness": centerness[0],
        "boxes": found["boxes"][of],
        "scores": found["scores"][of],
        "labels": torch.searchsorted(classes, labels[of]),
        "spots": spots,
        "spot_labels": learnt[at],
        "spot_sides": (sides * unit)[at],
        "spot_distances": distances[at],
        "spot_centerness": centerness[at],
        "losses": torch.tensor(list(golden["losses"].values())),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["torchvision"]:
        torchvision()
    elif sys.argv[1:2] == ["distil"] and len(sys.argv) == 3:
        distil(Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
