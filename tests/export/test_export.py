"""Exported graphs give torch's detections under every dialect; a bad export is refused."""

import copy
import functools
import json
import pickle
import re
import shutil
import sys
import threading
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from exporting import NEEDS, config_of, needs_onnx, network_of, noise
from PIL import Image
from processes import small_disk
from tiny import NAMES, fcos, make_shapes, tiny_config

from fcos.decode import decode
from fcos.detections import Detections
from fcos.errors import ConfigError, DataError, FcosError, MissingExtra, ModelError
from fcos.export import check, graph, judging
from fcos.export.about import About
from fcos.export.job import Job, Result, _choice, run
from fcos.export.named import named
from fcos.export.open import read_about, write_export
from fcos.export.registry import FORMATS
from fcos.export.runtime import as_pixels, in_parts
from fcos.inference.detector import Detector
from fcos.inference.load import load
from fcos.inference.proposals import proposer
from fcos.network import weights
from fcos.network.model import FCOS
from fcos.points import make_points
from fcos.system.machine import Placement
from fcos.system.progress import ticking
from fcos.types import Classes, Predictions

DIALECTS = ("fcos", "original", "adelaidet", "detectron2", "mmdet", "torchvision")


IMAGES = [noise(70, 90, 3), noise(50, 61, 3, seed=1), noise(96, 33, 3, seed=2), noise(12, 96, 3, seed=3)]


def same(found: Detections, expected: Detections, least=1):
    """Equal detections, whatever the order of equal scores."""
    assert len(found) == len(expected) >= least
    assert (found.scores[:-1] >= found.scores[1:]).all()
    a, b = (d[torch.tensor(np.lexsort((d.labels, d.points)))] for d in (found, expected))
    assert torch.equal(a.points, b.points)
    assert torch.equal(a.labels, b.labels)
    torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=1e-5)
    torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=1e-3)


@functools.cache
def pair(folder, dialect, nms, kind="onnx", size=None, batch=None):
    """(torch's detector, the exported file's, its path)"""
    for needed in NEEDS[kind]:
        pytest.importorskip(needed)
    config = config_of(dialect)
    network = network_of(config)
    path = folder / f"{dialect}-{nms}-{size}{FORMATS[kind].suffix}"
    write_export(network, About(config, Classes(NAMES, (2, 7)), batch, size, nms), kind, path)
    return Detector(network, config, Classes(NAMES), size=size), load(path, device="cpu", trust=True), path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("exported")


@pytest.mark.parametrize("kind", ["torchscript", pytest.param("onnx", marks=pytest.mark.slow)])
def test_distances_of_bins_are_in_the_graph(tmp_path, kind):
    for needed in NEEDS[kind]:
        pytest.importorskip(needed)
    config = config_of(model={"regression": "bins"})
    network, classes = network_of(config), Classes(NAMES, (2, 7))
    path = tmp_path / f"bins{FORMATS[kind].suffix}"
    write_export(network, About(config, classes, 1, (64, 96)), kind, path)
    image = noise(64, 96, 3)
    found = load(path, device="cpu", trust=True)(image, score=0.0)
    same(found, Detector(network, config, classes, size=(64, 96))(image, score=0.0))


@pytest.mark.parametrize("kind", ["torchscript", "openvino"])
def test_a_detector_of_a_file_is_copied_and_pickled(tmp_path, monkeypatch, kind):
    """Another process, which may be in another folder, opens the same file, and no other that took its place."""
    for needed in NEEDS[kind]:
        pytest.importorskip(needed)
    config, classes, image = config_of(), Classes(NAMES, (2, 7)), noise(64, 96, 3)
    monkeypatch.chdir(tmp_path)
    path = Path(f"m{FORMATS[kind].suffix}")
    write_export(network_of(config), About(config, classes, 1, (64, 96)), kind, path)
    detector = load(path, device="cpu", trust=True, overrides=["decode.max_detections=7"])
    sent = pickle.dumps(detector)
    assert len(sent) < 10_000
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    for other in (copy.deepcopy(detector), pickle.loads(sent)):
        assert other(image, score=0) == detector(image, score=0)
        assert len(other(image, score=0)) == 7
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(5)
    write_export(weights.build(config, 2).eval(), About(config, classes, 1, (64, 96)), kind, path)
    with pytest.raises(ModelError, match="has changed since the model was loaded; load it again"):
        pickle.loads(sent)
    path.unlink()
    with pytest.raises(ModelError, match="is gone, so other processes cannot open it"):
        pickle.dumps(detector)


# tracing takes seconds, most with free sizes; the quick ones have every branch of decoding in the graph
QUICK = {("fcos", False, None), *((name, True, (96, 96)) for name in ("original", "torchvision"))}
EXPORTS = [
    pytest.param(d, n, s, id=f"{d}-{'nms' if n else 'predictions'}-{'fixed' if s else 'free'}",
                 marks=() if (d, n, s) in QUICK else pytest.mark.slow)
    for d in DIALECTS for n in (False, True) for s in ((96, 96), None)
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "nms", "size"), EXPORTS)
def test_onnx_gives_the_detections_of_torch(folder, dialect, nms, size):
    reference, exported, _ = pair(folder, dialect, nms, size=size, batch=size and 1)
    expected = reference(IMAGES, batch=1, score=0)
    for found, one in zip(exported(IMAGES, batch=3, score=0), expected, strict=True):
        same(found, one, least=5)
    assert exported.classes == Classes(NAMES, (2, 7))
    assert exported.config == reference.config
    assert exported([]) == []


# every rule of decoding, in torch: the module that is exported beside fcos.decode
RULES = [
    {"score": "product", "topk_by": "class", "threshold": 0.3},
    {"score": "class", "nms": "agnostic", "clip": "none"},
    {"score": "power", "power": 0.3, "threshold_on": "score", "threshold": 0.4},
    {"nms": "none", "max_detections": 70, "clip": "after"},
    {"drop_empty": True, "threshold": 0.01},
    {"nms_rule": "mmcv", "nms_iou": 0.4},
    {"nms_plus_one": True, "clip_margin": 1, "nms_iou": 0.3},
    {"topk": 1000, "max_detections": 1000, "threshold": 0.0},
    {"threshold": 0.999999},
]


@pytest.mark.slow
def test_deformable_towers(tmp_path):
    config = config_of(model={"head_deformable": True})
    network = network_of(config)
    with torch.no_grad():
        for tower in (network.head.classification, network.head.regression):
            tower.layers[-1].conv.offset.weight.normal_(std=0.05)
    write_export(network, About(config, Classes(NAMES), 1, (64, 96)), "onnx", tmp_path / "d.onnx")
    reference = Detector(network, config, Classes(NAMES), size=(64, 96))
    for found, one in zip(
        load(tmp_path / "d.onnx", device="cpu")(IMAGES, score=0), reference(IMAGES, score=0), strict=True
    ):
        same(found, one, least=5)


CASES = [*((dialect, rules) for dialect in ("fcos", "torchvision") for rules in RULES), *((d, {}) for d in DIALECTS)]


@pytest.mark.parametrize(("dialect", "rules"), CASES, ids=[f"{d}:{','.join(r)}" for d, r in CASES])
def test_every_rule_of_decoding_is_in_the_graph(dialect, rules):
    config = config_of(dialect, decode=rules)
    network = network_of(config)
    images = torch.from_numpy(np.stack([noise(3, 96, 64, seed=s) for s in range(3)]))
    sizes = [(96, 64), (81, 40), (70, 64)]
    with torch.inference_mode():
        expected = decode(network(images), make_points((96, 64), config.model, config.assign), sizes, config.decode)
        found = graph.EndToEnd(network, config)(images, torch.tensor(sizes))
    for i, one in enumerate(expected):
        count = int(found[4][i])
        boxes, scores, labels, points = (value[i, :count] for value in found[:4])
        same(Detections(boxes, scores, labels, points), one, least=0)
        assert (found[1][i, count:] == 0).all()
        assert (found[2][i, count:] == -1).all()
        assert (found[3][i, count:] == -1).all()
    assert (sum(map(len, expected)) == 0) == (rules == {"threshold": 0.999999})


def test_nms_in_onnx_decides_as_torchvision():
    """Boxes on a coarse grid: many overlaps of exactly 0.5 and 0.6, and of none."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from fcos.export.formats.onnx import _nms

    class Only(torch.nn.Module):
        def forward(self, boxes, scores, labels):
            return torch.ops.fcos.nms(boxes, scores, labels, 0.6, 3, 40)

    torch.manual_seed(0)
    corner, side = torch.randint(0, 8, (2, 40, 2)).float() * 2, torch.randint(1, 9, (2, 40, 2)).float()
    boxes = torch.cat((corner, corner + side), dim=-1)
    boxes[0, 0], boxes[0, 1] = torch.tensor([0.0, 0, 10, 10]), torch.tensor([0.0, 0, 10, 6])  # an IoU of 0.6
    scores = torch.rand(2, 40)
    scores[0, :2] = torch.tensor([0.99, 0.98])
    scores[1, 20:] = -1
    labels = torch.randint(0, 3, (2, 40))
    labels[0, :2] = 1
    program = torch.onnx.export(
        Only().eval(), (boxes, scores, labels), dynamo=True, verbose=False, input_names=["boxes", "scores", "labels"],
        custom_translation_table={torch.ops.fcos.nms.default: _nms},
    )  # fmt: skip
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    given = {"boxes": boxes.numpy(), "scores": scores.numpy(), "labels": labels.numpy()}
    (found,) = session.run(None, given)
    for i in range(2):
        real = scores[i] >= 0
        kept = torchvision.ops.batched_nms(boxes[i][real], scores[i][real], labels[i][real], 0.6)
        assert sorted(real.nonzero()[kept][:, 0].tolist()) == found[i].nonzero()[0].tolist()


@pytest.mark.parametrize(("groups", "channels"), [(32, 96), (32, 256), (1, 6), (5, 5)])
def test_a_norm_in_parts_is_the_norm(groups, channels):
    """Also where the mean is far from zero, and on a map of one location."""
    generator = torch.Generator().manual_seed(0)
    norm = torch.nn.GroupNorm(groups, channels)
    for parameter in norm.parameters():
        torch.nn.init.normal_(parameter, generator=generator)
    network = torch.nn.Sequential(torch.nn.Sequential(norm))
    maps = [torch.randn(2, channels, *size, generator=generator) * 0.1 + 3 for size in ((5, 7), (1, 1))]
    with torch.no_grad():
        before = [network(x) for x in maps]
        graph.split_norms(network)
        assert not any(type(m) is torch.nn.GroupNorm for m in network[0].children())
        for x, expected in zip(maps, before, strict=True):
            torch.testing.assert_close(network(x), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "nms"),
    [("openvino", False), pytest.param("openvino", True, marks=pytest.mark.slow), ("torchscript", False)],
)
def test_other_runtimes(folder, kind, nms):
    reference, exported, path = pair(folder, "detectron2", nms, kind)
    for found, one in zip(exported(IMAGES, batch=3, score=0), reference(IMAGES, score=0), strict=True):
        same(found, one, least=5)
    assert read_about(path).classes == Classes(NAMES, (2, 7))


@pytest.mark.parametrize("kind", ["executorch", "litert"])
def test_formats_for_devices(folder, kind):
    reference, exported, _ = pair(folder, "fcos", False, kind, (96, 96), 1)
    for found, one in zip(exported(IMAGES, batch=3, score=0), reference(IMAGES, score=0), strict=True):
        same(found, one, least=5)


def test_a_fixed_size_shrinks_images_to_fit(folder):
    reference, exported, _ = pair(folder, "fcos", False, "torchscript", (64, 96), 1)
    tall = noise(200, 50, 3)
    assert exported.prepare(tall)[0].shape == (3, 64, 96)
    assert exported.prepare(tall)[1] == (64, 16)
    assert exported.prepare(noise(64, 90, 3))[1] == (64, 90)
    for found, one in zip(
        exported([tall, *IMAGES], batch=4, score=0), reference([tall, *IMAGES], score=0), strict=True
    ):
        same(found, one)
    with pytest.raises(ModelError, match="takes images padded to"):
        exported.network(torch.zeros(1, 3, 96, 96, dtype=torch.uint8))


def test_proposals_of_a_fixed_size_are_those_of_torch(folder):
    """The proposer forgot the size, and the graph refused every image of another."""
    reference, exported, _ = pair(folder, "fcos", False, "torchscript", (64, 96), 1)
    same(proposer(exported)(noise(200, 50, 3)), proposer(reference)(noise(200, 50, 3)))


def test_settings_of_an_exported_file(folder):
    _, _, path = pair(folder, "fcos", False)
    assert len(load(path, device="cpu", trust=True, overrides=["decode.threshold=0.999999"])(IMAGES[0], score=0)) == 0
    _, _, inside = pair(folder, "torchvision", True, size=(96, 96), batch=1)
    whole, other = (path, "data.padding=exact"), (path, "data.divisor=16")
    for file, setting in ((inside, "decode.nms_iou=0.3"), (path, "model.scale=false"), whole, other):
        with pytest.raises(ModelError, match=re.escape(file.name)):
            load(file, device="cpu", overrides=[setting])
    with pytest.raises(ModelError, match="without --nms"):
        load(inside, device="cpu").network(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    with pytest.raises(ModelError, match="for the runtime onnx, not torch"):
        load(path, runtime="torch")
    with pytest.raises(ModelError, match="choose from"):
        load(path, runtime="tensorflow")


@needs_onnx
def test_a_damaged_or_foreign_file_is_one_line(folder, tmp_path):
    import onnx

    _, _, path = pair(folder, "fcos", False)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ModelError, match=r"cut\.onnx"):
        load(cut)
    model = onnx.load(str(path))
    del model.metadata_props[:]
    onnx.save(model, str(tmp_path / "foreign.onnx"))
    with pytest.raises(ModelError, match=r"foreign\.onnx does not say"):
        load(tmp_path / "foreign.onnx")
    for name in ("a.pte", "a.engine", "a.tflite", "a.torchscript"):
        (tmp_path / name).write_bytes(b"nothing")
        with pytest.raises(ModelError, match=name):
            load(tmp_path / name)


# ------------------------------------------------------------------------- fcos export and its check


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A checkpoint, and a data set."""
    folder = tmp_path_factory.mktemp("a folder")
    config = config_of()
    weights.save(folder / "model.safetensors", network_of(config).state_dict(), config, Classes(NAMES, (2, 7)))
    make_shapes(folder / "shapes", {"train": 6, "test": 3})
    return folder


@needs_onnx
def test_export_predict_eval_info(work, capsys, tmp_path):
    import json

    out = tmp_path / "sub folder" / "model ü.onnx"
    code, text, err = fcos(
        capsys, "export", "--model", work / "model.safetensors", "--out", out, "--data", work / "shapes", "--json",
        "--size", "64x96",
    )  # fmt: skip
    assert code == 0, err
    result = json.loads(text)
    assert result["check"]["score"] < 1e-4
    assert result["check"]["detections"] > 20
    assert result["check"]["ap50"][0] == pytest.approx(result["check"]["ap50"][1], abs=1e-6)
    assert [p.name for p in out.parent.iterdir()] == [out.name]
    assert (result["batch"], result["size"], result["input"]) == (None, [64, 96], "uint8")

    Image.fromarray(IMAGES[0]).save(tmp_path / "a.png")
    lines = []
    for model in (out, work / "model.safetensors"):
        code, text, err = fcos(capsys, "predict", tmp_path / "a.png", "--model", model, "--json", "--score", "0")
        assert code == 0, err
        lines.append(json.loads(text)["detections"])
    assert [row["label"] for row in lines[0]] == [row["label"] for row in lines[1]]
    code, text, err = fcos(capsys, "eval", "--model", out, "--data", work / "shapes", "--json")
    assert code == 0, err
    assert json.loads(text)["images"] == 3
    code, text, _ = fcos(capsys, "info", out, "--json", "--size", "64")
    assert code == 0
    assert json.loads(text)["classes"] == 2


def test_the_export_of_a_single_class_model_is_judged_on_one_class(tmp_path, capsys):
    """The two classes of the data are one to the model, as `fcos eval` has it."""
    import json

    config = config_of().override({"data": {"single_class": True}})
    torch.manual_seed(0)
    network = weights.build(config, 1).eval()
    torch.nn.init.constant_(network.head.class_logits.bias, 0.0)
    weights.save(tmp_path / "one.safetensors", network.state_dict(), config, Classes(("object",)))
    make_shapes(tmp_path / "shapes", {"train": 2, "test": 2})
    code, text, err = fcos(
        capsys, "export", "--model", tmp_path / "one.safetensors", "--format", "torchscript", "--json",
        "--out", tmp_path / "one.torchscript", "--data", tmp_path / "shapes", "--size", "64x96",
    )  # fmt: skip
    assert code == 0, err
    before, after = json.loads(text)["check"]["ap50"]
    code, text, err = fcos(
        capsys, "eval", "--trust", "--model", tmp_path / "one.torchscript", "--data", tmp_path / "shapes", "--json"
    )
    assert code == 0, err
    assert json.loads(text)["AP50"] == pytest.approx(after) == pytest.approx(before)


def test_what_a_fixed_size_costs_is_told_and_no_fault_of_the_file(work, tmp_path, monkeypatch):
    detector = load(work / "model.safetensors", device="cpu").in_torch()
    small = 0.74

    def judged(one, dataset):
        ap50 = 0.84 if one.size is None else 0.7401 if isinstance(one.network, FCOS) else small
        return SimpleNamespace(ap50=ap50, ap=ap50 - 0.2, objects=9)

    monkeypatch.setattr(judging, "_judge", judged)
    result = detector.export(tmp_path / "m.torchscript", size="64x64", data=work / "shapes")
    assert (result.report.ap50, result.report.sized) == ((0.84, 0.74), 0.7401)
    told = "the fixed size costs 10.0 points of AP50: 0.8400 as the model is, 0.7401 at this size"
    assert told in result.text()
    assert "AP50 0.8400 before, 0.7400 after\n" in result.text()
    assert load(tmp_path / "m.torchscript", trust=True).network.about.ap50 == (0.84, 0.7401)
    small = 0.72
    with pytest.raises(ModelError, match=r"AP50 falls by 2\.01 points"):
        detector.export(tmp_path / "m.torchscript", size="64x64", data=work / "shapes")
    free = detector.export(tmp_path / "m.torchscript", data=work / "shapes")
    assert (free.report.sized, free.about.ap50) == (None, None)
    assert "fixed size" not in free.text()


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("64x64", "of 64x64, an image of 480x640 takes 48x64, and the model sees it at 64x85 otherwise; --size 64x96"),
        ("64x96", ""),
        ("512", "of 512x512, an image of 480x640 takes 64x85, the rest is empty; for more pixels of the image: "),
    ],
)
def test_what_a_fixed_size_does_to_a_photograph(work, tmp_path, size, words):
    detector = load(work / "model.safetensors", device="cpu")
    result = detector.export(tmp_path / "m.torchscript", size=size)
    assert words in result.room
    assert bool(words) == bool(result.room)
    assert result.room in result.text()


def test_a_fixed_size_keeps_the_tiles_of_a_model_that_learned_from_them(work, tmp_path):
    detector = load(work / "model.safetensors", overrides="data.tile=64", device="cpu")
    assert detector.export(tmp_path / "m.torchscript", size="64x64").room == ""


def test_a_split_without_objects_has_nothing_to_say_of_a_fixed_size(work, tmp_path):
    file = Path(shutil.copy(min((work / "shapes" / "images" / "test").iterdir()), tmp_path / "a.png"))
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 20, 20], "area": 400, "iscrowd": 1}
    images = [{"id": 1, "file_name": file.name, "width": 80, "height": 64}]
    classes = [{"id": k, "name": name} for k, name in enumerate(NAMES, 1)]
    bare = tmp_path / "crowds.json"
    bare.write_text(json.dumps({"images": images, "annotations": [box], "categories": classes}))
    detector = load(work / "model.safetensors", device="cpu")
    result = detector.export(tmp_path / "m.torchscript", size="64x64", data=bare)
    assert (result.report.sized, result.about.ap50, result.file.name) == (None, None, "m.torchscript")


def test_a_detector_exports_itself(work, tmp_path, monkeypatch):
    detector = load(work / "model.safetensors", device="cpu")
    result = detector.export(tmp_path / "m.torchscript", size="64x96", data=work / "shapes")
    assert result.file == tmp_path / "m.torchscript"
    assert result.report.ap50[0] == pytest.approx(result.report.ap50[1])
    exported = load(result.file, device="cpu", trust=True)
    for found, one in zip(exported(IMAGES, score=0), detector.replace(size=(64, 96))(IMAGES, score=0), strict=True):
        same(found, one)
    with pytest.raises(ModelError, match="load it in torch"):
        exported.export(tmp_path / "again.torchscript")
    with pytest.raises(FcosError, match=r"must end in \.onnx for format=onnx; other formats end in one of .*\.html"):
        detector.export(tmp_path / "m.txt")
    for options, line in (
        ({"sise": 64}, "Detector.export has no option 'sise'; did you mean size"),
        ({"size": 0}, "give .height, width. in pixels"),
        ({"size": (64,)}, "give .height, width. in pixels"),
        ({"size": 64.5}, "give .height, width. in pixels"),
    ):
        with pytest.raises(ConfigError, match=line):
            detector.export(tmp_path / "m.torchscript", **options)
    (tmp_path / "file").write_text("")
    with pytest.raises(FcosError, match=r"^cannot write into .*file: "):
        detector.export(tmp_path / "file" / "m.torchscript")
    for size, expected in (((64, 96), (64, 96)), (64, (64, 64))):
        assert (
            load(detector.export(tmp_path / "n.torchscript", size=size).file, device="cpu", trust=True).size == expected
        )
    monkeypatch.setattr(check, "LIMITS", {**check.LIMITS, "fp32": (-1.0, -1.0, 0.0)})
    with pytest.raises(ModelError, match="was rejected: scores differ"):
        detector.export(tmp_path / "bad.torchscript", size="64x96")
    assert not (tmp_path / "bad.torchscript").exists()


def test_a_bad_export_is_refused(work, capsys, tmp_path, monkeypatch):
    """A graph whose scores are off by a little more than is allowed, and one whose boxes are."""
    real = graph.build
    out = tmp_path / "model.torchscript"
    out.write_bytes(b"the good one of yesterday")

    def spoilt(network, about):
        module = real(network, about)
        with torch.no_grad():
            module.network.head.class_logits.bias += 2e-3
            module.network.head.box_distances.bias *= 1.01
        return module

    monkeypatch.setattr("fcos.export.formats.torchscript.build", spoilt)
    code, text, _ = fcos(
        capsys, "export", "--model", work / "model.safetensors", "--format", "torchscript", "--out", out
    )
    assert code == 1
    assert "rejected: scores differ" in text
    assert "rejected: boxes differ" in text
    assert out.read_bytes() == b"the good one of yesterday"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.torchscript", "model.torchscript.rejected"]


def test_what_the_check_calls_wrong():
    def report(**values):
        base = {"images": 2, "detections": 100, "matched": 100, "score": 0.0, "box": 0.0, "share": 0.0}
        return check.Report(**{**base, "lost": 0, "judged": 100, **values})

    assert check.verdict(report(), "fp32") == []
    for dtype, values, words in (
        ("fp32", {"score": 2e-4}, "scores differ"),
        ("fp32", {"box": 1.0, "share": 2e-3}, "boxes differ"),
        ("fp32", {"lost": 3}, "3 of 100 detections are gone"),
        ("fp32", {"matched": 80}, "same location"),
        ("fp32", {"detections": 0, "judged": 0, "matched": 0}, "nothing was checked"),
        ("fp32", {"score": float("inf")}, "scores differ"),
        ("int8", {"lost": 40}, "gone"),
        ("int8", {"ap50": (0.80, 0.785)}, "AP50 falls by 1.50"),
        ("fp16", {"ap50": (0.80, 0.785)}, "AP50 falls by 1.50"),
    ):
        (line,) = check.verdict(report(**values), dtype)
        assert words in line
    assert check.verdict(report(lost=10, score=0.2, share=0.2, ap50=(0.80, 0.795)), "int8") == []


def test_the_comparison_is_told_in_words():
    def told(dtype, **changed):
        about = About(tiny_config(), Classes(NAMES), dtype=dtype)
        values = {"score": 0.0015, "box": 0.33, "share": 5e-4, "matched": 180, "lost": 1, "judged": 36, **changed}
        result = Result(Path("m.onnx"), 1, 1.0, about, "onnx", check.Report(9, 181, **values), [])
        return result.text().splitlines()[1:]

    lines = told("fp16")
    assert lines[0] == "beside torch on 9 images: 35 of 36 detections of score 0.3 or more found again, 1 lost"
    assert lines[1].startswith("180 of all 181 detections of any score come from the same location")
    assert "scores differ by 0.0015 at most, boxes by 0.33 px" in lines[1]
    assert lines[1].endswith("the other 1 from elsewhere, or not at all")
    assert lines[2:] == [
        "good: every difference is within the limits for fp16", "next: fcos predict IMAGE --model m.onnx"
    ]  # fmt: skip
    lines = told("fp32", matched=181, lost=0, judged=181, ap=(0.4, 0.39), ap50=(0.7, 0.6))
    assert lines[0] == "beside torch on 9 images: 181 of 181 detections found again"
    assert lines[1].endswith("boxes by 0.33 px")
    assert lines[2] == "AP 0.4000 before, 0.3900 after; AP50 0.7000 before, 0.6000 after"


def test_differences_are_measured_at_the_same_location():
    def found(boxes, scores, labels, points):
        return Detections(*map(torch.tensor, (boxes, scores, labels, points)), size=(100, 200))

    a = found([[0.0, 0, 10, 10], [50, 50, 90, 90], [0, 0, 5, 5]], [0.9, 0.8, 0.7], [0, 1, 0], [3, 4, 5])
    b = found([[50.0, 50, 90, 92], [0, 0, 10, 11], [0, 0, 5, 5]], [0.85, 0.7, 0.7], [1, 0, 1], [4, 3, 5])
    report = check.measure([a], [b])
    assert (report.detections, report.matched, report.lost) == (3, 2, 1)
    assert report.score == pytest.approx(0.2)
    assert report.box == pytest.approx(2.0)
    assert report.share == pytest.approx(0.01)
    flat = found([[10.0, 0, 10, 10], [50, 50, 90, 90]], [0.9, 0.8], [0, 1], [3, 4])  # one was cut off at the border
    assert check.verdict(check.measure([flat], [flat]), "fp32") == []
    assert check.measure([flat], [flat[:0]]).lost == 1
    nan = found([[0.0, 0, 10, 10]], [float("nan")], [0], [3])
    assert check.measure([a], [nan]).score == float("inf")


MISTAKES = [
    (["--format", "tflight"], ["tflight", "litert"]),
    (["--format", "onnx", "--out", "x.xml"], ["x.xml", ".onnx"]),
    (["--dtype", "int8"], ["--calibrate"]),
    (["--dtype", "int4"], ["int4", "int8"]),
    (["--format", "litert", "--dtype", "fp16"], ["litert", "fp32"]),
    (["--format", "torchscript", "--nms"], ["--nms", "onnx, openvino, tensorrt"]),
    (["--format", "litert", "--dynamic", "size"], ["fixed batch and size"]),
    (["--dynamic", "sizes"], ["sizes", "batch,size"]),
    (["--size", "64", "--dynamic", "size"], ["--size"]),
    (["--size", "big"], ["big", "HxW"]),
    (["--nms", "decode.nms=soft-linear"], ["soft-linear", "--nms"]),
    (["--calibrate", "x"], ["int8"]),
    (["--data", "nowhere"], ["nowhere"]),
    (["--format", "tensorrt"], ["pip install", "[tensorrt]'"]),
    (["--model", "old.onnx"], ["old.onnx", "exported already"]),
]


@pytest.mark.parametrize(("arguments", "words"), MISTAKES, ids=[" ".join(a) for a, _ in MISTAKES])
def test_mistakes_are_one_line_and_exit_code_2(arguments, words, work, capsys, tmp_path, monkeypatch):
    if "soft-linear" in words:  # found when the graph is made
        pytest.importorskip("onnxscript")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", None)
    shutil.copy(work / "model.safetensors", "m.safetensors")
    (tmp_path / "old.onnx").write_bytes(b"")
    code, out, err = fcos(capsys, "export", "--model", "m.safetensors", *arguments)
    assert code == 2, (out, err)
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    for word in words:
        assert word in last
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.safetensors", "old.onnx"]


def test_batches_of_a_fixed_length_are_filled_up():
    from fcos.export.runtime import Runtime

    seen = []

    def run(images):
        seen.append(len(images))
        flat = images.float().flatten(1)[:, :1]
        return flat[..., None], flat[..., None].expand(-1, 1, 4), flat

    runtime = Runtime(run, About(config_of(), Classes(NAMES), batch=2), Path("x"), Placement(runtime="onnx"))
    images = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 32, 32)
    found = runtime(images)
    assert isinstance(found, Predictions)
    assert found.centerness[:, 0].tolist() == [0, 1, 2, 3, 4]
    assert seen == [2, 2, 2]


def test_pixels_are_rounded_where_a_graph_takes_whole_ones():
    about, values = About(config_of(), Classes(NAMES)), torch.tensor([0.4, 0.6, 254.7])
    assert as_pixels(values, about).tolist() == [0, 1, 255]
    exact = About(config_of(data={"padding": "exact"}), Classes(NAMES))
    assert torch.equal(as_pixels(values, exact), values)
    assert as_pixels(torch.tensor([3], dtype=torch.uint8), exact).dtype is torch.float32


@pytest.mark.slow
@pytest.mark.parametrize("nms", [[], ["--nms", "--dynamic", "", "--size", "64x96"]], ids=["predictions", "nms"])
@pytest.mark.parametrize("kind", ["onnx", "openvino"])
def test_int8_calibrated_on_images(work, kind, nms, capsys, tmp_path):
    pytest.importorskip("nncf")
    out = tmp_path / f"int8{FORMATS[kind].suffix}"
    code, text, err = fcos(
        capsys, "export", "--model", work / "model.safetensors", "--format", kind, "--dtype", "int8",
        "--calibrate", work / "shapes", "--out", out, *nms,
    )  # fmt: skip
    assert code in (0, 1), err  # random weights need not survive 8 bits; the check says so
    assert "int8" in text
    file = out if code == 0 else out.with_name(out.name + ".rejected")
    assert (b"QuantizeLinear" if kind == "onnx" else b"FakeQuantize") in file.read_bytes()
    if kind == "openvino" and code == 0:  # what it keeps in float may compute in bf16
        plain, mixed = (load(file, device="cpu", dtype=dtype) for dtype in ("int8", "bf16"))
        assert mixed.placement.dtype == "bf16"
        for a, b in zip(plain(IMAGES, score=0.05), mixed(IMAGES, score=0.05), strict=True):
            assert abs(len(a) - len(b)) <= 0.2 * len(a) + 3


@pytest.mark.parametrize(
    ("kind", "stored", "asked", "runs"),
    [
        ("openvino", "fp32", "bf16", True),
        ("openvino", "int8", "bf16", True),
        ("openvino", "int8", "fp32", False),
        ("openvino", "fp32", "int8", False),
        ("onnx", "int8", "bf16", False),
        ("onnx", "fp16", "fp16", True),
    ],
)
def test_what_a_file_can_compute_in(kind, stored, asked, runs):
    """OpenVINO chooses among floats; 8-bit numbers are in the file or not at all."""
    assert FORMATS[kind].computes(stored, asked) is runs


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "openvino", "compile", "auto"])
def test_a_checkpoint_on_another_runtime(work, runtime):
    expected = load(work / "model.safetensors", device="cpu")(IMAGES, score=0)
    detector = load(work / "model.safetensors", device="cpu", runtime=runtime)
    for found, one in zip(detector(IMAGES, score=0), expected, strict=True):
        same(found, one)
    assert detector.placement.runtime == (runtime if runtime != "auto" else "openvino")


@pytest.mark.parametrize("kind", ["torchscript", "openvino", "onnx"])
def test_a_full_disk_is_one_line_and_keeps_the_old_export(work, tmp_path, capsys, kind):
    for name in NEEDS[kind]:
        pytest.importorskip(name)
    suffix = FORMATS[kind].suffix
    with small_disk(tmp_path / "disk", 64 << 10) as disk:
        out = disk / f"m{suffix}"
        out.write_bytes(b"old")
        code, _, err = fcos(
            capsys, "export", "--model", work / "model.safetensors", "--format", kind, "--out", out, "--size", "64x96"
        )
        assert code == 2, err
        last = err.splitlines()[-1]
        assert last == f"fcos: cannot write {out}: No space left on device; what was there before is untouched"
        assert "Traceback" not in err
        assert out.read_bytes() == b"old"
        assert list(disk.iterdir()) == [out]


@pytest.mark.parametrize("count", [0, 3, 4, 9])
def test_a_graph_of_any_batch_up_to_a_limit_takes_more_in_parts(count):
    """As an engine of TensorRT does, which is built for at most 16."""
    asked = []

    def four(images, sizes):
        asked.append(len(images))
        return images.sum(dim=1), sizes * 2

    images, sizes = torch.arange(2 * count).view(count, 2), torch.arange(count)
    whole = in_parts(four, 4)(images, sizes)
    assert torch.equal(whole[0], images.sum(dim=1))
    assert torch.equal(whole[1], sizes * 2)
    assert max(asked) <= 4
    assert sum(asked) == count


def test_a_missing_extra_is_told_before_a_model_is_looked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as if it were not installed
    for job in (
        Job(partial(named, "no-such-model"), "onnx"),
        Job(partial(named, "no-such-model"), "html"),
        Job(partial(named, "no-such-model"), out=Path("m.xml")),
    ):
        with pytest.raises(MissingExtra, match=r"pip install .*\[(onnx|openvino)\]"):
            run(job)


def test_a_long_export_shows_signs_of_life_while_it_writes():
    lines, told = [], threading.Event()

    def tell(so_far):
        lines.append(so_far)
        told.set()

    with ticking(tell, every=0.01):
        assert told.wait(60)
    assert re.fullmatch(r"\d+:\d\d", lines[0])
    count = len(lines)
    time.sleep(0.05)
    assert len(lines) == count
    with pytest.raises(ValueError, match="as this test wants"), ticking(tell, every=60):
        raise ValueError("as this test wants")


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("keep.torchscript", "keep.torchscript/thesis.txt"),
        ("keep.torchscript", "keep.torchscript.rejected/thesis.txt"),
        ("keep.mlpackage", "keep.mlpackage/thesis.txt"),
        ("keep.xml", "keep.bin"),
    ],
)
def test_what_is_no_export_stays(work, tmp_path, monkeypatch, name, there):
    monkeypatch.setattr("fcos.export.registry.Format.check_installed", lambda form: None)
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_text("years of work")
    with pytest.raises(ModelError, match="give another --out"):
        run(Job(partial(named, str(work / "model.safetensors")), out=tmp_path / name))
    assert (tmp_path / there).read_text() == "years of work"


def test_a_model_in_the_current_folder_is_called_as_the_folder(work, tmp_path, monkeypatch, capsys):
    (tmp_path / "mine").mkdir()
    shutil.copy(work / "model.safetensors", tmp_path / "mine" / "best.safetensors")
    monkeypatch.chdir(tmp_path / "mine")
    code, _, err = fcos(capsys, "export", "--model", ".", "--format", "torchscript", "--size", "64")
    assert code == 0, err
    assert (tmp_path / "mine" / "mine.torchscript").is_file()


def test_classes_that_do_not_fit_are_told_before_anything_is_written(work, tmp_path, monkeypatch):
    state, config, _ = weights.read(work / "model.safetensors")[:3]
    other = weights.save(tmp_path / "other.safetensors", state, config, Classes(("cup", "plate")))
    monkeypatch.setattr("fcos.export.job.write_export", lambda *_: pytest.fail("it was written first"))
    with pytest.raises(DataError, match="disc"):
        run(Job(partial(named, str(other)), out=tmp_path / "x.torchscript", data=work / "shapes"))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["other.safetensors"]


def test_a_folder_with_other_versions_keeps_them(tmp_path):
    """Triton's folder of a model holds versions of it, and what its owner puts there."""
    from fcos.export.job import _replace

    for folder, files in (
        ("new", ("1/model.onnx", "config.pbtxt")),
        ("old", ("1/model.onnx", "1/x", "2/model.onnx", "labels.txt")),
    ):
        for file in files:
            (tmp_path / folder / file).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / folder / file).write_text(folder)
    _replace(tmp_path / "new", tmp_path / "old", merge=True)
    found = {str(p.relative_to(tmp_path / "old")): p.read_text() for p in (tmp_path / "old").rglob("*") if p.is_file()}
    assert found == {"1/model.onnx": "new", "config.pbtxt": "new", "2/model.onnx": "old", "labels.txt": "old"}


@pytest.mark.parametrize(
    ("given", "meant"), [("tflite", "litert"), ("engine", "tensorrt"), ("ONNX", "onnx"), ("pte", "executorch")]
)
def test_a_format_by_the_suffix_of_its_files(given, meant):
    assert _choice(Job(lambda: pytest.fail("asked"), format=given)).name == meant


@pytest.mark.slow
def test_the_page_makes_boxes_of_raw_maps_as_the_detector_does(tmp_path):
    """With docs/export.md alone, from a file of a format that has no boxes."""
    page = (Path(__file__).parents[2] / "docs" / "export.md").read_text("utf-8")
    (code,) = re.findall(r"```python\n((?:(?!```).)*def find_boxes.*?)```", page, re.S)
    known = {}
    exec(code, known)
    detector = load("fcos-lite0", device="cpu").in_torch().replace(size=(320, 448))
    detector.export(tmp_path / "m.torchscript", size="320x448")
    extra = {"fcos": ""}
    network = torch.jit.load(tmp_path / "m.torchscript", _extra_files=extra)
    for image in check.bundled_images():
        expected = detector(image, score=0)
        tensor, (h, w) = detector.prepare(image)
        maps = (value[0].numpy() for value in network(tensor[None]))
        boxes, scores, labels = known["find_boxes"](*maps, tensor.shape[1:], (h, w), json.loads(extra["fcos"]))
        height, width = image.shape[:2]
        assert labels.tolist() == expected.labels.tolist()
        np.testing.assert_allclose(scores, expected.scores, atol=1e-4)
        np.testing.assert_allclose(boxes * [width / w, height / h, width / w, height / h], expected.boxes, atol=0.05)
