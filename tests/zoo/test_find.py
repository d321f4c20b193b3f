"""Names to weights: bundled, downloaded, packed; what starts from them by default."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from fileserver import FileServer
from PIL import Image
from tiny import NAMES, equal_states, tiny_config
from torch.overrides import TorchFunctionMode
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.ops.feature_pyramid_network import LastLevelP6P7

import fcos
from fcos.cli import main
from fcos.config import Config
from fcos.convert.names import COCO_80
from fcos.data.open import open_dataset
from fcos.errors import ModelError
from fcos.network import weights
from fcos.presets import PRESETS, preset
from fcos.system.files import ASSETS
from fcos.training.setup import initialise
from fcos.types import Classes
from fcos.zoo import models
from fcos.zoo.card import photographs
from fcos.zoo.download import Remote, sha256
from fcos.zoo.find import find_weights, load_network
from fcos.zoo.models import known_models
from fcos.zoo.pack import pack


def run(capsys, *arguments):
    """(exit code, stdout, stderr) of a command line."""
    try:
        main([str(a) for a in arguments])
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    out = capsys.readouterr()
    return code, out.out, out.err


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("FCOS_MIRROR", raising=False)
    return tmp_path / "cache"


@pytest.fixture
def assets(tmp_path, monkeypatch, cache):
    """An empty assets folder in place of the package's."""
    folder = tmp_path / "assets"
    folder.mkdir()
    monkeypatch.setattr(models, "ASSETS", folder)
    return folder


def fake_bundle(assets, about=None, **sections) -> dict:
    """A tiny detector as the package's fcos-lite0; its weights."""
    config = tiny_config(name="fcos-lite0", decode={"threshold": 0.0, "max_detections": 10}, **sections)
    torch.manual_seed(3)
    state = weights.build(config, 2).state_dict()
    weights.save(assets / "fcos-lite0.safetensors", state, config, Classes(NAMES), about=about)
    return state


# ---------------------------------------------------------------- files


def test_header_is_the_file_without_its_weights(tmp_path):
    config = tiny_config()
    state = weights.build(config, 2).state_dict()
    path = weights.save(tmp_path / "a.safetensors", state, config, Classes(NAMES, (4, 9)), about={"AP": 0.5})
    assert weights.header(path) == (config, Classes(NAMES, (4, 9)), {"AP": 0.5})
    read, *rest = weights.read(path)
    assert tuple(rest) == weights.header(path)
    assert all(torch.equal(read[k], state[k]) for k in state)


def test_half_stores_float16_and_gives_float32_back(tmp_path):
    config = preset("fcos-lite0").override({"model": {"backbone_weights": "none"}})
    torch.manual_seed(0)
    network = weights.build(config, 20).eval()
    state = network.state_dict()
    norm = next(k for k in state if k.endswith("running_var"))
    state[norm] = state[norm] + 1e-9 + 1e6 * torch.rand_like(state[norm])  # float16 ends at 65504
    large = next(k for k, v in state.items() if v.ndim == 4)
    state[large] = state[large].clone()
    path = weights.save(tmp_path / "h.safetensors", weights.halved(state), config, Classes(tuple(map(str, range(20)))))
    assert path.stat().st_size <= 12e6  # the limit for weights in the package
    stored = weights.read(path)[0]
    assert stored[large].dtype == torch.float16
    assert torch.equal(stored[norm], state[norm])
    again, _, _ = load_network(path)
    assert {p.dtype for p in again.parameters()} == {torch.float32}
    for key, value in again.state_dict().items():
        torch.testing.assert_close(value, state[key], rtol=1e-3, atol=1e-7)


def test_half_keeps_what_float16_cannot_hold(tmp_path):
    config = tiny_config()
    state = weights.build(config, 2).state_dict()
    key = next(k for k, v in state.items() if v.ndim == 4)
    state[key] = torch.full_like(state[key], 1e5)
    stored = weights.read(weights.save(tmp_path / "h.safetensors", weights.halved(state), config, Classes(NAMES)))[0]
    assert stored[key].dtype == torch.float32
    assert torch.equal(stored[key], state[key])


# ---------------------------------------------------------------- names


def test_parameters_of_the_table_are_those_of_the_network():
    for name in ("fcos-lite0", "fcos-r50"):
        with torch.device("meta"):
            network = weights.build(PRESETS[name](), 80)
        assert known_models()[name].parameters == sum(p.numel() for p in network.parameters()), name


@pytest.mark.slow
def test_the_table_is_there_without_the_texts_of_functions():
    code = "from fcos.zoo.models import known_models; print(len(known_models()))"
    done = subprocess.run([sys.executable, "-OO", "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) == len(known_models())


@pytest.mark.parametrize("name", sorted(known_models()))
def test_parameters_of_every_model(name):
    entry = known_models()[name]
    with torch.device("meta"):
        network = weights.build(entry.config, entry.classes)
    assert entry.parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("fcos-lite0", "without weights"),
        ("fcos-lit0", "did you mean fcos-lite0"),
        ("torchvision/fcos-r50", "did you mean torchvision/fcos-r50-coco"),
        ("hf://owner", "hf://owner/name"),
        ("gone.safetensors", "no model file gone"),
    ],
)
def test_names_without_weights(assets, name, words):
    with pytest.raises(ModelError, match=words):
        find_weights(name)


def test_the_bundled_detector_is_the_default(assets, tmp_path, capsys):
    fake_bundle(assets)
    assert find_weights("fcos-lite0") == assets / "fcos-lite0.safetensors"
    assert fcos.load().classes == Classes(NAMES)
    Image.fromarray(np.full((40, 60, 3), 90, np.uint8)).save(tmp_path / "photo.png")
    code, out, err = run(capsys, "predict", tmp_path / "photo.png", "--json", "--score", "0", "--device", "cpu")
    assert code == 0, err
    labels = {d["label"] for d in json.loads(out)["detections"]}
    assert labels <= set(NAMES)
    assert labels


def test_a_folder_called_like_a_model_hides_it_only_if_it_is_one(assets, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fake_bundle(assets)
    (tmp_path / "fcos-lite0").mkdir()
    assert find_weights("fcos-lite0") == assets / "fcos-lite0.safetensors"
    (tmp_path / "fcos-lite0" / "last.safetensors").touch()
    assert find_weights("fcos-lite0") == Path("fcos-lite0/last.safetensors")
    (tmp_path / "mine").mkdir()
    with pytest.raises(ModelError, match="mine holds neither"):
        find_weights("mine")


def test_models_table(assets, cache, capsys):
    about = {"AP": 0.41, "judged_on": "a test, 9 images", "licence": "Apache-2.0", "parameters": 700_000}
    fake_bundle(assets, about)
    code, out, _ = run(capsys, "models")
    assert code == 0
    table, words, legend = out.split("\n\n")
    assert max(map(len, out.splitlines())) <= 80
    lines = table.splitlines()
    assert lines[0].split() == ["name", "params", "input", "classes", "AP", "weights"]
    bundled = next(line for line in lines if line.startswith("fcos-lite0 "))
    for word in ("0.7 M", " 64 ", " 2 ", "0.410", "bundled, "):
        assert word in bundled
    remote = next(line for line in lines if line.startswith("torchvision/"))
    for word in ("0.392", "to download, 130 MB"):
        assert word in remote
    start = lines[0].index("weights")
    assert bundled[start:].startswith("bundled")
    assert remote[start:].startswith("to download")
    assert "(Apache-2.0)" in words
    assert "(BSD-3-Clause)" in words
    assert "to train" in next(line for line in lines if line.startswith("fcos-r101"))
    assert "fcos-lite0 on a test, 9 images" in legend
    rows = json.loads(run(capsys, "models", "--json")[1])
    assert next(r for r in rows if r["name"] == "fcos-lite0")["file"] == str(assets / "fcos-lite0.safetensors")


# ---------------------------------------------------------------- training starts from them


def test_training_starts_from_the_bundled_detector(assets):
    state = fake_bundle(assets)
    config = tiny_config(name="fcos-lite0", model={"backbone_weights": "auto"})
    torch.manual_seed(9)
    network = weights.build(config, 3)
    fresh = {k: v.clone() for k, v in network.state_dict().items()}
    (line,) = initialise(network, config, Classes(("a", "b", "c")), None)
    assert "fcos-lite0" in line
    assert "fresh: head.class_logits" in line
    for key, value in network.state_dict().items():
        expected = fresh if key.startswith("head.class_logits.") else state
        assert torch.equal(value, expected[key]), key


def test_the_same_classes_keep_their_layer_other_names_do_not(assets):
    state = fake_bundle(assets)
    config = tiny_config(name="fcos-lite0", model={"backbone_weights": "auto"})
    for names, kept in ((NAMES, True), (("cat", "dog"), False)):
        network = weights.build(config, 2)
        initialise(network, config, Classes(names), None)
        same = torch.equal(network.head.class_logits.weight, state["head.class_logits.weight"])
        assert same == kept


def test_another_body_or_weights_of_ones_own_do_not_start_from_it(assets):
    fake_bundle(assets)
    for model in ({"backbone": "plain", "backbone_weights": "none"}, {"backbone_weights": "none"}):
        config = tiny_config(name="fcos-lite0", model=model)
        lines = initialise(weights.build(config, 2), config, Classes(NAMES), None)
        assert "fcos-lite0" not in " ".join(lines)
    config = tiny_config(name="fcos-lite0", model={"backbone_weights": "auto", "backbone": "resnet10t"})
    from fcos.training.setup import bundled

    assert bundled(config) is None


# ---------------------------------------------------------------- torchvision's weights


@pytest.fixture(scope="module")
def published():
    """A small torchvision FCOS with COCO's 91 outputs: (model, state dict)."""
    torch.manual_seed(0)
    body = BackboneWithFPN(
        torchvision.models.resnet18(weights=None, norm_layer=torchvision.ops.FrozenBatchNorm2d),
        {"layer2": "0", "layer3": "1", "layer4": "2"}, [128, 256, 512], 32, LastLevelP6P7(32, 32),
    )  # fmt: skip
    model = torchvision.models.detection.FCOS(body, num_classes=91).eval()
    return model, model.state_dict()


@pytest.fixture
def served(published, tmp_path, cache, monkeypatch):
    """The local server that has torchvision's file; the zoo knows its hash as 8 digits, as the real one."""
    torch.save(published[1], tmp_path / "published.pth")
    digits = sha256(tmp_path / "published.pth")[:8]
    with FileServer((tmp_path / "published.pth").read_bytes()) as server:
        (entry,) = models._DOWNLOADS
        remote = Remote(f"{server.url}/models/fcos-{digits}.pth", digits, 1)
        monkeypatch.setattr(models, "_DOWNLOADS", (dataclasses.replace(entry, remote=remote),))
        yield server


def test_torchvision_weights_are_downloaded_once_and_run_as_theirs(served, published, cache, capsys):
    theirs, _ = published
    code, out, err = run(capsys, "models", "download", "torchvision/fcos-r50-coco")
    assert code == 0, err
    assert out.strip() == str(cache / "torchvision" / "fcos-r50-coco.safetensors")
    assert len(served.requests) == 1
    detector = fcos.load("torchvision/fcos-r50-coco")
    assert len(served.requests) == 1  # not again
    assert detector.config.dialect == "torchvision"
    assert detector.classes == COCO_80
    assert (detector.classes.names[0], detector.classes.names[79]) == ("person", "toothbrush")
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 3, 160, 192), dtype=np.uint8))
    with torch.inference_mode():
        ours = detector.network(pixels)
        features = theirs.backbone(torch.stack([theirs.transform.normalize(p / 255) for p in pixels]))
        out = theirs.head(list(features.values()))
    # their output k is COCO's id k
    torch.testing.assert_close(ours.logits, out["cls_logits"][..., list(COCO_80.ids)], rtol=1e-3, atol=1e-4)
    rows = json.loads(run(capsys, "models", "--json")[1])
    row = next(r for r in rows if r["name"] == "torchvision/fcos-r50-coco")
    assert row["weights"].startswith("downloaded")
    assert (row["AP"], row["classes"], row["licence"]) == (0.392, 80, "BSD-3-Clause")


def test_a_half_converted_file_is_made_again_without_the_network(served, cache):
    path = find_weights("torchvision/fcos-r50-coco")
    whole = path.read_bytes()
    path.write_bytes(whole[:1000])
    served.status = [500] * 9
    assert find_weights("torchvision/fcos-r50-coco").read_bytes() == whole
    state, config, classes, about = weights.read(path)
    weights.save(path, state, config, classes, {**about, "fcos": "1.0.0"})  # of another version of the package
    assert find_weights("torchvision/fcos-r50-coco").read_bytes() == whole


def test_offline_error_names_the_place(cache, monkeypatch, capsys):
    monkeypatch.setenv("FCOS_MIRROR", "http://127.0.0.1:9")  # nobody listens
    code, _, err = run(capsys, "models", "download", "torchvision/fcos-r50-coco")
    assert code == 2
    line = err.strip().splitlines()[-1]
    for word in ("fcos_resnet50_fpn_coco-99b0c9b7.pth", str(cache), "https://download.pytorch.org/models/"):
        assert word in line


def test_the_published_address_is_torchvisions_own():
    from torchvision.models.detection import FCOS_ResNet50_FPN_Weights as Weights

    remote = known_models()["torchvision/fcos-r50-coco"].remote
    weights = Weights.COCO_V1
    assert remote.url == weights.url
    assert remote.sha256 == weights.url.rpartition("-")[2].removesuffix(".pth")
    assert remote.size == pytest.approx(weights.meta["_file_size"] * 2**20, rel=0.01)
    assert known_models()["torchvision/fcos-r50-coco"].ap == weights.meta["_metrics"]["COCO-val2017"]["box_map"] / 100


# ---------------------------------------------------------------- packing


def test_pack(tmp_path, capsys):
    run_folder = tmp_path / "run"
    config = tiny_config()
    state = weights.build(config, 2).state_dict()
    weights.save(run_folder / "best.safetensors", state, config, Classes(NAMES), about={"step": 12, "AP": 0.1})
    told = {"command": "fcos train --data /home/me/my data/voc --out /tmp/x/y a=1", "date": "2026-11-23", "gpu": None}
    (run_folder / "environment.json").write_text(json.dumps(told))
    numbers = {"data": "/srv/voc2007", "split": "test", "images": 540, "AP": 0.4, "AP50": 0.66, "AP75": 0.4,
               "VOC_AP50_11point": 0.65, "per_class": []}  # fmt: skip
    (tmp_path / "metrics.json").write_text(json.dumps(numbers))
    out = tmp_path / "packed.safetensors"
    code, said, err = run(
        capsys, "models", "pack", run_folder, out, "--metrics", tmp_path / "metrics.json", "--licence", "Apache-2.0"
    )
    assert code == 0, err
    assert "2 classes, 64 px" in said
    assert out.stat().st_size < 0.55 * (run_folder / "best.safetensors").stat().st_size
    read, kept, classes, about = weights.read(out)
    pack(run_folder, tmp_path / "full.safetensors", {}, full=True)
    assert equal_states(weights.read(tmp_path / "full.safetensors")[0], state)
    assert (kept, classes) == (config, Classes(NAMES))
    assert about["judged_on"] == "voc2007 test, 540 images"
    assert (about["AP"], about["step"], about["licence"]) == (0.4, 12, "Apache-2.0")
    assert "/home/me" not in json.dumps(about)
    assert about["parameters"] == sum(p.numel() for p in weights.build(config, 2).parameters())
    assert {v.dtype for v in read.values() if v.ndim == 4} == {torch.float16}
    image = np.random.default_rng(0).integers(0, 255, (64, 80, 3), dtype=np.uint8)
    settings = ["decode.threshold=0.0", "decode.nms=none", "decode.max_detections=1000"]
    full, half = (fcos.load(p, overrides=settings)(image, score=0) for p in (run_folder, out))
    order = [torch.argsort(d.points * 10 + d.labels) for d in (full, half)]
    torch.testing.assert_close(full.scores[order[0]], half.scores[order[1]], rtol=0, atol=2e-3)
    torch.testing.assert_close(full.boxes[order[0]], half.boxes[order[1]], rtol=0, atol=0.2)
    assert run(capsys, "models", "pack", run_folder, tmp_path / "x.pth")[0] == 2
    (tmp_path / "metrics.json").write_text("{}")
    assert run(capsys, "models", "pack", run_folder, out, "--metrics", tmp_path / "metrics.json")[0] == 2


# ---------------------------------------------------------------- the photographs


def test_photographs_are_a_data_set():
    dataset = open_dataset(photographs())
    assert {r.path.name for r in dataset.records} == {p.name for p in photographs().parent.glob("*.jpg")}
    for record in dataset.records:
        with Image.open(record.path) as image:
            assert record.size == image.size[::-1]
            assert max(image.size) <= 640
        assert record.path.stat().st_size < 80_000
        assert (record.boxes[:, 2:] <= np.array(record.size[::-1])).all()
        assert f"photos/{record.path.name}" in (ASSETS / "ATTRIBUTION.md").read_text()
    assert {dataset.classes.names[k] for r in dataset.records for k in r.labels[~r.ignore]} == {"cat", "person"}


SHIPPED = [name for name, entry in known_models().items() if entry.bundled() is not None]


def test_the_default_is_shipped():
    assert "fcos-lite0" in SHIPPED
    assert all(known_models()[name].bundled().stat().st_size < 12e6 for name in SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_detector_finds_what_is_on_the_photographs(name):
    from fcos.data.classes import match_classes
    from fcos.show.judged import match

    dataset = open_dataset(photographs())
    detector = fcos.load(name, device="cpu")
    assert isinstance(detector.config, Config)
    mapping = match_classes(detector.classes, dataset.classes)
    for record in dataset.records:
        found = detector(record.path, score=0.4)
        assert ((found.scores >= 0.4) & (found.scores <= 1)).all()
        _, used = match(found, record, mapping)
        missed = [dataset.classes.names[k] for k in record.labels[~used & ~record.ignore]]
        assert not missed, f"{record.file_name}: {missed} not found, only {[found.name(i) for i in range(len(found))]}"


@pytest.mark.parametrize(
    "model",
    [
        {"backbone": "vit_giant_patch14_dinov2"},
        {"backbone": "resnetv2_152x4_bit"},
        {"fpn_channels": 4096, "head_channels": 4096},
        {"head_convs": 8, "head_channels": 4096},
    ],
)
def test_a_config_too_large_for_its_file_takes_no_memory(tmp_path, monkeypatch, model):
    config = tiny_config()
    state = weights.build(config, 2).state_dict()
    path = weights.save(tmp_path / "a.safetensors", state, config.override({"model": model}), Classes(NAMES))
    taken = []

    class Watch(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            made = function(*args, **(kwargs or {}))
            if isinstance(made, torch.Tensor) and made.device.type != "meta" and made.numel() > 10_000_000:
                taken.append(made.shape)
            return made

    with Watch(), pytest.raises(ModelError) as caught:
        load_network(path)
    assert taken == []
    assert "\n" not in str(caught.value)


def test_a_file_whose_header_lies_about_the_type_of_its_numbers_is_refused(tmp_path):
    config = tiny_config()
    state = weights.build(config, 2).state_dict()
    path = weights.save(tmp_path / "a.safetensors", weights.halved(state), config, Classes(NAMES))
    load_network(path)
    whole = path.read_bytes()
    assert b'"F16"' in whole
    for true, lie in (
        ('"F16"', '"I16"'),
        ('"F32"', '"I32"'),
        ('"F32"', '"U32"'),
        ('"F16"', '"U16"'),
        ('"F16"', '"BF16"'),
    ):
        end = 8 + int.from_bytes(whole[:8], "little")
        header = whole[8:end].decode()
        raw = header.replace(f'"dtype":{true}', f'"dtype":{lie}', 1).encode()
        assert raw != header.encode()
        path.write_bytes(len(raw).to_bytes(8, "little") + raw + whole[end:])
        with pytest.raises(ModelError, match=r"a\.safetensors.* is stored as \w+, and only"):
            load_network(path)


def test_a_folder_without_weights_names_what_lies_in_it(tmp_path):
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "best.safetensors").touch()
    with pytest.raises(ModelError, match=r"holds neither .*; did you mean .*runs/mine\?"):
        find_weights(tmp_path / "runs")
    (tmp_path / "repo" / "1").mkdir(parents=True)
    (tmp_path / "repo" / "1" / "model.onnx").touch()
    with pytest.raises(ModelError, match=r"folder for Triton, and .*model\.onnx is the model"):
        find_weights(tmp_path / "repo")
    (tmp_path / "a.mlpackage").mkdir()
    assert find_weights(tmp_path / "a.mlpackage") == tmp_path / "a.mlpackage"
