"""Converted models against what the other implementations computed with the same weights."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
from golden import CASES, canonical, checkpoint, keys, load, model, needs_golden, scene
from matching import assert_same_detections

from fcos.decode import decode
from fcos.inference.detector import Detector
from fcos.losses import Assignment, count, fcos_loss, gather_positives, moving_average, normalizers
from fcos.training.step import backward_parts
from fcos.types import Batch, Predictions

pytestmark = needs_golden
GOLDEN = [d for d, (_, file, _) in CASES.items() if file]
# ../shared/design/dialects.md: class, box, centre-ness loss and positives on inputs.pt
LOSSES = {
    "original": (1.35680, 0.49705, 0.67538, 90),
    "original-2019": (1.27858, 1.95703, 0.79996, 470),
    "adelaidet": (1.35722, 0.49679, 0.67507, 90),
    "detectron2": (0.43264, 0.15676, 0.21589, 89),
    "mmdet": (1.35722, 0.50509, 0.67507, 90),
    "mmdet-2019": (1.26837, 1.94567, 0.79486, 470),
    "torchvision": (1.33643, 0.50119, 0.65506, 91),
}


def rows(maps):
    """[N,C,H,W] a level -> [N,P,C]"""
    return torch.cat([m.permute(0, 2, 3, 1).flatten(1, 2) for m in maps], dim=1)


def head(dialect, golden):
    """(logits [N,P,C], distances in pixels [N,P,4], centerness [N,P]) of a golden file."""
    strides = [8, 16, 32, 64, 128]
    logits = rows(golden["logits"])
    centerness = rows(golden["ctrness" if "ctrness" in golden else "centerness"]).squeeze(-1)
    if "reg_eval_pixels" in golden:
        return logits, rows(golden["reg_eval_pixels"]), centerness
    raw = golden["reg_stride_units"] if dialect == "adelaidet" else [r.relu() for r in golden["reg_raw_before_relu"]]
    return logits, rows([r * s for r, s in zip(raw, strides, strict=True)]), centerness


def targets(dialect, golden, grids):
    """(labels [N,P], -1 where there is none, distances in pixels [N,P,4]) of a golden file."""
    cells = [g.height * g.width for g in grids]

    def by_image(levels):  # level first, images one after the other -> [N,P,...]
        return torch.cat([v.view(2, n, *v.shape[1:]) for v, n in zip(levels, cells, strict=True)], dim=1)

    unit = torch.cat([torch.full((n,), float(g.stride)) for n, g in zip(cells, grids, strict=True)])[None, :, None]
    if dialect == "original":
        labels, ltrb = (
            by_image(golden["target_labels1based_level_first"]) - 1,
            by_image(golden["target_ltrb_level_first"]),
        )
    elif dialect == "detectron2":
        labels = torch.stack([torch.cat(image) for image in golden["target_labels0based_bg80"]])
        ltrb = torch.stack([torch.cat(image) for image in golden["target_ltrb_norm"]])
    else:
        name = "target_ltrb_norm_level_first" if dialect == "adelaidet" else "target_ltrb_level_first"
        labels, ltrb = by_image(golden["target_labels0based_bg80_level_first"]), by_image(golden[name])
    return torch.where(labels == 80, -1, labels), ltrb * unit


def test_the_canonical_weights_are_those_of_the_files():
    digest = canonical()[1]
    assert all(load(CASES[d][1])["weights_sha256"] == digest for d in GOLDEN)


@pytest.mark.parametrize("dialect", CASES)
def test_names_shapes_and_types_are_the_familys(dialect):
    listed = keys(CASES[dialect][2])
    state = checkpoint(dialect)
    assert {k: (tuple(v.shape), str(v.dtype).removeprefix("torch.")) for k, v in state.items()} == listed


@pytest.mark.parametrize("dialect", GOLDEN)
def test_head_outputs(dialect):
    golden = load(CASES[dialect][1])
    for mine, other in zip(scene(dialect).pred, head(dialect, golden), strict=True):
        assert (mine - other).abs().max() <= 1e-4 * other.abs().max()
    for mine, other in zip(scene(dialect).features, golden.get("features", ()), strict="features" in golden):
        assert (mine - other).abs().max() <= 1e-4 * other.abs().max()


@pytest.mark.parametrize("dialect", GOLDEN)
def test_targets(dialect):
    s = scene(dialect)
    labels, distances = targets(dialect, load(CASES[dialect][1]), s.points.grids)
    mine = torch.full_like(s.index, -1)
    positives = gather_positives(s.points, s.targets, s.index)
    mine[positives.image, positives.point] = positives.label
    assert torch.equal(mine, labels)
    torch.testing.assert_close(positives.distances, distances[positives.image, positives.point], atol=1e-4, rtol=0)


@pytest.mark.parametrize("dialect", LOSSES)
def test_losses_of_the_first_step(dialect):
    s = scene(dialect)
    losses = fcos_loss(s.pred, Assignment.of(s.points, s.targets, s.index), s.config.loss, s.config.model)
    *table, positives = LOSSES[dialect]
    assert int((s.index >= 0).sum()) == positives
    if dialect != "torchvision":
        torch.testing.assert_close(torch.stack(losses), torch.tensor(table), atol=1e-4, rtol=0)
    if CASES[dialect][1]:
        golden = load(CASES[dialect][1])["losses"]
        torch.testing.assert_close(torch.stack(losses), torch.tensor(list(golden.values())), atol=1e-4, rtol=1e-4)


def found(dialect, golden):
    """The golden detections, best first, labels from 0."""
    shift = 1 if dialect == "original" else 0
    label = "labels1based" if shift else "labels0based"
    return [{"labels": d[label] - shift, "scores": d["scores"], "boxes": d["boxes"]} for d in golden["detections"]]


@pytest.mark.parametrize("dialect", ["original", "detectron2"])
def test_a_training_step_pads_as_prediction_does(dialect):
    """The golden losses out of `step.backward_parts`, from uint8 images that the loader pads with whole greys."""
    s, golden, (network, config, _) = scene(dialect), load(CASES[dialect][1]), model(dialect)
    canvas = torch.tensor(config.model.mean).round().to(torch.uint8).view(1, 3, 1, 1).repeat(2, 1, 256, 320)
    for place, image in zip(canvas, load("inputs")["images_rgb_uint8"], strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    batch = Batch(canvas, s.sizes, s.targets)
    assert batch.images.dtype == torch.uint8
    assigned = Assignment.of(s.points, s.targets, s.index)
    counted = count(assigned.positives, config.loss)
    moving = config.loss.normalizer == "moving-average"
    average = moving_average(None, float(counted[0]), config.loss) if moving else None
    norm = normalizers(counted, config.loss, average=average)
    fabric = SimpleNamespace(no_backward_sync=lambda *_, **__: nullcontext(), backward=lambda loss: None)
    seen = []
    watch = network.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with watch, torch.inference_mode():
        ((losses, _, _),) = backward_parts(fabric, network, [(batch, assigned)], norm, config)
    padding = torch.tensor(config.model.mean)
    assert torch.equal(seen[0][0, :, -1, -1], padding)
    assert s.sizes[0] == (250, 300)
    assert torch.equal(seen[0][0, :, 0, 300], padding)
    torch.testing.assert_close(torch.stack(losses), torch.tensor(list(golden["losses"].values())), atol=1e-4, rtol=1e-4)


def best_first(scores):
    return bool((scores[:-1] >= scores[1:]).all())


@pytest.mark.parametrize("dialect", GOLDEN)
def test_decoding_their_head_outputs_gives_their_detections(dialect):
    s, golden = scene(dialect), load(CASES[dialect][1])
    pred = Predictions(*head(dialect, golden))
    for mine, theirs in zip(decode(pred, s.points, s.sizes, s.config.decode), found(dialect, golden), strict=True):
        assert_same_detections(mine, theirs, box=1e-4, score=1e-6)
        assert best_first(mine.scores)


@pytest.mark.parametrize("dialect", GOLDEN)
def test_final_detections(dialect):
    """Two scores of the second image are 2e-7 apart, nearer than convolutions of two machines agree (2e-6)."""
    s, golden = scene(dialect), load(CASES[dialect][1])
    for mine, theirs in zip(decode(s.pred, s.points, s.sizes, s.config.decode), found(dialect, golden), strict=True):
        assert_same_detections(mine, theirs, box=1e-2, score=1e-5)
        assert best_first(mine.scores)


@pytest.mark.parametrize("dialect", GOLDEN)
def test_from_the_image_to_the_detections(dialect):
    """The first image as uint8, through the Detector: not resized, padded from 250x300 to 256x320. The original's boxes
    end with their last pixel; written as x, y, width, height they are one wider, as a Detector gives them."""
    network, config, classes = model(dialect)
    detector = Detector(network, config.override({"data": {"size": 250}}), classes)
    mine = detector(load("inputs")["images_rgb_uint8"][0], score=0)
    theirs = found(dialect, load(CASES[dialect][1]))[0]
    if dialect == "original":
        theirs["boxes"] = theirs["boxes"] + torch.tensor([0, 0, 1, 1])
    assert_same_detections(mine, theirs, box=1e-2, score=1e-4)
    assert best_first(mine.scores)
