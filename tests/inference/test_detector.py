"""Any source in, the same detections out, in pixels of the image as displayed."""

import copy
import io
import json
import pickle
import re
import weakref

import numpy as np
import pytest
import torch
from matching import assert_same_detections
from PIL import Image
from tiny import NAMES, tiny_config

from fcos.detections import Detections, Results
from fcos.errors import ConfigError, DeviceError, FcosError, ImageError, ModelError
from fcos.inference.detector import Detector
from fcos.inference.load import load
from fcos.inference.runtime_switch import ChangeOver
from fcos.inference.sources import find_images, load_source
from fcos.network import weights
from fcos.system.files import ASSETS
from fcos.system.machine import pick_device
from fcos.types import Classes, Predictions


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(1)
    config = tiny_config(decode={"threshold": 0.0, "max_detections": 10, "shown": 0.0})
    return Detector(weights.build(config, 2).eval(), config, Classes(NAMES))


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 255, (70, 90, 3), dtype=np.uint8)


def test_every_kind_of_source(detector, image, tmp_path):
    path = tmp_path / "an image ü.png"
    Image.fromarray(image).save(path)
    expected = detector(image)
    assert len(expected) == 10
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    for source in (path, str(path), Image.fromarray(image), tensor, tensor.float() / 255):
        assert_same_detections(detector(source), expected, box=1e-3, score=1e-5)
    assert detector(path).source == str(path)
    assert detector(path).size == (70, 90)
    assert [len(d) for d in detector([image, path])] == [10, 10]
    assert detector([]) == []


def test_a_image_does_not_depend_on_its_neighbours(detector, image):
    others = [np.full((40, 90, 3), 7, np.uint8), image, np.zeros((300, 20, 3), np.uint8), image[:, ::-1].copy()]
    alone = [detector(p) for p in others]
    for together, single in zip(detector(others, batch=4), alone, strict=True):
        assert_same_detections(together, single, box=1e-2, score=1e-5)


@pytest.mark.parametrize("looks", [{}, {"batch": 3}, {"tta": "flip"}, {"tile": 64}])
def test_images_of_a_list_are_not_all_held_at_once(detector, tmp_path, monkeypatch, looks):
    """Nor does it matter in which order they are done: an image of a size that is rare waits longest."""
    rng = np.random.default_rng(2)
    for number, height in enumerate((200, 100, 200, 300, 200, 100, 200, 200)):
        Image.fromarray(rng.integers(0, 255, (height, 210, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    paths = sorted(tmp_path.iterdir())
    alive, most = set(), []

    def load(source):
        image = load_source(source)
        alive.add(source)
        weakref.finalize(image, alive.discard, source)
        most.append(len(alive))
        return image

    alone = [detector(path, **looks) for path in paths]
    monkeypatch.setattr("fcos.inference.detector.load_source", load)
    found = detector(paths, **looks)
    assert [one.source for one in found] == list(map(str, paths))
    for together, single in zip(found, alone, strict=True):
        assert_same_detections(together, single, box=1e-2, score=1e-5)
    assert (len(most), max(most)) == (8, 1)
    monkeypatch.setattr("fcos.inference.detector.PIXELS_AHEAD", 1)  # none waits for others of its size
    assert [one.size for one in detector(paths, **looks)] == [one.size for one in alone]


def test_a_list_with_an_image_that_cannot_be_read_is_an_error_that_names_it(detector, image, tmp_path):
    with pytest.raises(ImageError, match=r"cannot read .*missing\.jpg"):
        detector([image, tmp_path / "missing.jpg", image])


def test_boxes_return_to_the_image(image):
    """A network that always fires at one point with a known box, through resizing and padding and back."""
    config = tiny_config(data={"size": 128, "max_size": 256})

    def network(images):
        count = (images.shape[-2] // 8) * (images.shape[-1] // 8) + (images.shape[-2] // 16) * (images.shape[-1] // 16)
        out = Predictions(torch.full((1, count, 2), -9.0), torch.full((1, count, 4), 16.0), torch.full((1, count), 9.0))
        out.logits[0, 2 * (images.shape[-1] // 8) + 3, 1] = 9.0  # the point (28, 20)
        return out

    found = Detector(network, config, Classes(NAMES))(np.zeros((64, 100, 3), np.uint8))
    assert found.boxes.tolist() == [[6.0, 2.0, 22.0, 18.0]]  # (12, 4, 44, 36) at twice the size
    assert found.name(0) == "square"


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 500, 3), (33, 1, 3)])
def test_tiny_and_thin_images(detector, shape):
    found = detector(np.zeros(shape, np.uint8))
    assert (found.boxes[:, 2] <= shape[1]).all()
    assert (found.boxes[:, 3] <= shape[0]).all()


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((3, 4, 5), np.uint8),
        np.full((3, 4, 3), 9.0),
        np.zeros((0, 4, 3), np.uint8),
        5,
        torch.full((3, 4, 4), 9.0),
    ],
)
def test_what_is_no_image(source):
    with pytest.raises(ImageError):
        load_source(source)


def test_grey_and_alpha_arrays():
    assert load_source(np.zeros((4, 5), np.uint8)).shape == (4, 5, 3)
    assert load_source(np.zeros((4, 5, 4), np.uint8)).shape == (4, 5, 3)


def test_a_gpu_by_its_number(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, meant in (("0", "cuda:0"), (1, "cuda:1"), ("gpu", "cuda")):
        assert str(pick_device(name)) == meant
    with pytest.raises(DeviceError, match=r"'2' cannot be used: 2 CUDA devices are visible"):
        pick_device("2")
    with pytest.raises(DeviceError, match="fcos train takes their number, --devices 2"):
        pick_device("0,1")


def test_devices():
    assert pick_device("cpu").type == "cpu"
    for name in ("cuda:99", "gpu", "mps" if not torch.backends.mps.is_available() else "cuda:98"):
        with pytest.raises(DeviceError, match="try --device cpu"):
            pick_device(name)


def test_formats():
    found = Detections(
        torch.tensor([[10.0, 20.0, 30.0, 60.0]]), torch.tensor([0.5]), torch.tensor([1]), torch.tensor([0]),
        names=NAMES, size=(100, 200),
    )  # fmt: skip
    assert found.to_coco(4, [2, 7]) == [{"image_id": 4, "category_id": 7, "bbox": [10, 20, 20, 40], "score": 0.5}]
    assert found.to_yolo() == "1 0.100000 0.400000 0.100000 0.400000 0.500000\n"
    with pytest.raises(FcosError, match="give its size"):
        Detections([[10, 20, 30, 60]], [0.5], [1]).to_yolo()
    assert Detections([], [], []).to_yolo() == ""
    assert found.to_dict()["detections"][0]["name"] == "square"
    assert '"label": "square"' in json.dumps(found.to_dict())  # for readers of version 1.0
    assert len(found[found.scores > 0.9]) == 0
    with pytest.raises(ValueError, match="scores must be"):
        Detections(torch.zeros(2, 4), torch.zeros(1), torch.zeros(2), torch.zeros(2))


def test_detections_made_by_hand_are_checked():
    boxes, name = [[0, 0, 9, 9], [1, 1, 5, 5]], "square"
    kept = Detections(boxes, [0.1, 0.9], [0, 0], names=name)
    assert kept.names == (name,)
    assert kept.scores.tolist() == pytest.approx([0.1, 0.9])  # in the order given
    assert Detections(boxes, [0.1, 0.9], [0, 1], names=list(NAMES)).names == NAMES
    for label in (-1, 2):
        for labels in ([0, label], torch.tensor([0, label]), np.array([0, label])):
            with pytest.raises(ValueError, match=f"the label {label} is none of 0..1"):
                Detections(boxes, [0.1, 0.9], labels, names=NAMES)
    assert len(Detections(boxes, [0.1, 0.9], [0, 7])) == 2  # without names any number may be one
    for bad in (float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"boxes must be finite numbers, not {bad}"):
            Detections([[0, 0, bad, 9]], [0.5], [0])
        with pytest.raises(ValueError, match=r"scores must be 0\.\.1"):
            Detections([[0, 0, 9, 9]], np.array([bad]), [0])


def test_upper_case_and_the_like_do_not_matter_in_names():
    found = Detections([[0, 0, 9, 9]] * 3, [0.9, 0.8, 0.7], [0, 1, 1], names=("traffic light", "cat"))
    assert len(found["Traffic-Light"]) == 1
    assert len(found["CAT"]) == len(found[["Cat"]]) == 2
    both = Detections([[0, 0, 9, 9]] * 2, [0.9, 0.8], [0, 1], names=("Cat", "cat"))
    assert both["cat"].labels.tolist() == [1]
    for unclear in ("CAT", "dog"):
        with pytest.raises(FcosError, match="no class"):
            both[unclear]


def test_several_images_are_one_table_and_one_list_of_results():
    some = Results([Detections([[0, 0, 9, 5]] * 2, [0.5, 0.25], [1, 0], names=NAMES, ids=(4, 7), source="a.jpg"),
                    Detections.empty(), Detections([[1, 1, 5, 5]], [1.0], [0], names=NAMES, ids=(4, 7))])  # fmt: skip
    rows = some.to_coco([11, 12, 13])
    assert [(r["image_id"], r["category_id"], r["bbox"]) for r in rows] == [
        (11, 7, [0, 0, 9, 5]), (11, 4, [0, 0, 9, 5]), (13, 4, [1, 1, 4, 4])
    ]  # fmt: skip
    assert [r["image_id"] for r in some.to_coco()] == [1, 1, 3]
    with pytest.raises(FcosError, match="image_ids has 1 numbers for 3 images"):
        some.to_coco([1])
    assert some[0] is next(iter(some))
    assert isinstance(some[::2], Results)
    of_one = some[::2][NAMES[0]]
    assert isinstance(of_one, Results)
    assert [[d.name for d in one] for one in of_one] == [[NAMES[0]], [NAMES[0]]]
    with pytest.raises(FcosError, match="no class"):
        some[::2]["zebra"]
    pytest.importorskip("pandas", reason="pip install 'fcos-detector[pandas]'")
    table = some.to_pandas()
    assert table["file"].tolist() == ["a.jpg", "a.jpg", ""]
    assert table["name"].tolist() == [NAMES[1], NAMES[0], NAMES[0]]
    assert list(Results().to_pandas().columns) == list(table.columns)
    assert len(Results().to_pandas()) == 0


def test_a_stream_takes_scores_as_a_call_does(detector, image):
    other = image[::-1].copy()
    for score in (None, 0, 0.505, {NAMES[0]: 0.505}, f"1,{NAMES[1]}=0.5"):
        streamed = [frame.detections for frame in detector.stream([image, Image.fromarray(other)], score=score)]
        called = [detector(one, score=score) for one in (image, other)]
        assert all(torch.equal(a.boxes, b.boxes) for a, b in zip(streamed, called, strict=True))
    assert len(streamed[0]) < len(detector(image, score=0))


def test_several_images_in_one_array_are_told(detector, image):
    for several in (np.stack([image, image]), torch.from_numpy(np.stack([image, image])).permute(0, 3, 1, 2)):
        with pytest.raises(ImageError, match="are 2 images; give them one by one, as a list"):
            detector(several)
        assert len(detector([*several])) == 2


def test_settings_around_a_model_are_taken_in_every_form(detector, tmp_path):
    file = weights.save(tmp_path / "w.safetensors", detector.network.state_dict(), detector.config, Classes(NAMES))
    for overrides in (
        "decode.nms_iou=0.25", ["decode.nms_iou=0.25"], {"decode.nms_iou": 0.25}, {"decode": {"nms_iou": 0.25}},
        [{"decode": {"nms_iou": 0.25}}],
    ):  # fmt: skip
        model = load(file, overrides=overrides, device="cpu", runtime="torch")
        assert model.config.decode.nms_iou == 0.25
    chosen = {
        "data.train_sizes": (64, 96),
        "data.classes": ["a, b", "1"],
        "decode.calibrated": False,
        "decode.shown": None,
    }
    config = load(file, overrides=chosen, device="cpu", runtime="torch").config
    assert (config.data.train_sizes, config.data.classes) == ((64, 96), ("a, b", "1"))
    assert config.decode.shown is None
    for wrong in (3, [3]):
        with pytest.raises(ConfigError, match="or a mapping, not 3"):
            load(file, overrides=wrong)
    with pytest.raises(ModelError, match="a name, a run folder or a file, not NoneType"):
        load(None)


def test_parts_that_do_not_fit_are_told(detector, tmp_path):
    assert detector.replace(classes=["a", "b"]).classes == Classes(("a", "b"))
    assert detector.replace(size=[64, 96]).size == (64, 96)
    for changes, error, line in (
        ({"classes": ["a"]}, ModelError, "the network tells 2 classes apart, and 1 are named"),
        ({"classes": 2}, ConfigError, "classes is a int; give a list of names"),
        ({"classes": [1, 2]}, ConfigError, "classes holds 1; give names"),
        ({"size": 320}, ConfigError, r"size=320: give \(height, width\)"),
        ({"size": (320, 0)}, ConfigError, "give .height, width"),
        ({"placement": "cuda"}, ConfigError, "placement is a str; give a Placement"),
        ({"config": "tiny"}, ConfigError, "config is a str; give a Config"),
    ):
        with pytest.raises(error, match=line):
            detector.replace(**changes)
    state = detector.network.state_dict()
    with pytest.raises(ModelError, match=r"w.safetensors: the weights tell 2 classes apart, and 1 are named"):
        weights.save(tmp_path / "w.safetensors", state, detector.config, Classes(("a",)))
    assert not list(tmp_path.iterdir())
    weights.save(tmp_path / "w.safetensors", state, detector.config, ["a", "b"])
    assert weights.read(tmp_path / "w.safetensors")[2].names == ("a", "b")


def test_finding_images(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("b.jpg", "a.PNG", "sub/c d.webp", "notes.txt"):
        (tmp_path / name).touch()
    found = [str(p.relative_to(tmp_path)) for p in find_images([str(tmp_path)])]
    assert found == ["a.PNG", "b.jpg", "sub/c d.webp"]
    assert len(find_images([str(tmp_path), str(tmp_path / "*.jpg")])) == 3
    sub = tmp_path / "sub"  # as if an earlier run had written there
    assert len(find_images([str(tmp_path)], out=sub)) == 2
    assert len(find_images([str(sub)], out=sub)) == 1  # asked for by name
    assert len(find_images([str(tmp_path)], out=tmp_path)) == 3
    assert find_images(["-"], ["x.jpg\n", "\n", "y z.jpg\n"])[1].name == "y z.jpg"


def test_a_detector_is_copied_and_pickled(detector, image):
    for other in (copy.deepcopy(detector), pickle.loads(pickle.dumps(detector))):
        assert other(image, score=0) == detector(image, score=0)


def test_a_detector_that_may_change_over_is_copied_as_it_is_in_torch(image):
    one = load("fcos-lite0", device="cpu")
    other = copy.deepcopy(one)
    assert not isinstance(other.network, ChangeOver)
    assert other.classes == one.classes


def test_a_compiled_detector_is_pickled():
    one = load("fcos-lite0", device="cpu", runtime="compile")  # compiled by its first image, which takes a minute
    other = pickle.loads(pickle.dumps(one))
    assert (type(other.network), other.running) == (type(one.network), one.running)


def test_default_types_of_the_caller_do_not_matter(detector, image):
    expected = detector(image, score=0)
    torch.set_default_dtype(torch.float64)
    try:
        found = detector(image, score=0)
    finally:
        torch.set_default_dtype(torch.float32)
    assert found.boxes.dtype == torch.float32
    assert found == expected
    with torch.autocast("cpu", torch.bfloat16):
        assert detector(image, score=0) == expected


def test_a_program_is_not_told_of_a_command_line():
    with pytest.raises(ConfigError, match=r"^settings: unknown setting decode.nms_iu; did you mean decode.nms_iou"):
        load("fcos-lite0", device="cpu", runtime="torch", overrides={"decode.nms_iu": 0.5})


@pytest.mark.parametrize("looks", [{}, {"tile": 48}, {"tta": "flip"}, {"score": "0,disc=0.1"}])
def test_the_default_device_of_the_caller_does_not_matter(detector, image, looks):
    expected = detector([image], **{"score": 0, **looks})
    with torch.device("meta"):  # where nothing can be computed
        assert detector([image], **{"score": 0, **looks}) == expected


def test_a_network_is_built_in_32_bits_on_the_cpu_whatever_the_caller_prefers():
    expected = load("fcos-lite0", device="cpu", runtime="torch")
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            other = load("fcos-lite0", device="cpu", runtime="torch")
            assert torch.zeros(1).is_meta
        assert torch.get_default_dtype() == torch.bfloat16
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.zeros(1).device.type == torch.get_default_device().type == "cpu"
    wanted, built = expected.network.state_dict(), other.network.state_dict()
    assert all(torch.equal(built[key], value) for key, value in wanted.items())
    assert {key: value.dtype for key, value in built.items()} == {key: value.dtype for key, value in wanted.items()}


@pytest.mark.parametrize(
    "wrong",
    [
        {"score": 2.0},
        {"score": float("nan")},
        {"score": [0.5]},
        {"batch": 0},
        {"batch": 2.5},
        {"batch": "a"},
        {"tta": True},
        {"tta": ["flip"]},
    ],
)
def test_numbers_out_of_range_are_told(detector, image, wrong):
    with pytest.raises(ConfigError, match=r"give|write flip"):
        detector([image], **wrong)
    if "batch" in wrong:
        with pytest.raises(ConfigError, match="1 or more"):
            list(detector.stream([image], **wrong))


def test_a_misspelt_option_is_named():
    with pytest.raises(ConfigError, match="did you mean device"):
        load("fcos-lite0", devce="cpu")


def test_a_file_that_is_no_image_source_is_told(detector):
    with pytest.raises(ImageError, match="cannot take a BytesIO"):
        detector(io.BytesIO(b"x"))


def test_numbers_of_another_program_are_detections():
    found = Detections(boxes=[[1, 2, 30, 40]], scores=np.array([0.5]), labels=[1], names=("a", "b"))
    assert (found.boxes.dtype, found.labels.dtype) == (torch.float32, torch.int64)
    assert found.points.tolist() == [-1]
    assert [(d.name, d.box) for d in found] == [("b", (1.0, 2.0, 30.0, 40.0))]
    assert len(Detections([], [], [])) == 0
    with pytest.raises(ValueError, match="scores must be"):
        Detections([[1, 2, 3, 4]], [0.5, 0.6], [1])


def test_labels_may_be_names():
    boxes, scores = [[0, 0, 2, 2], [1, 1, 3, 3]], [0.9, 0.4]
    found = Detections(boxes, scores, ["dog", "cat"])
    assert (found.names, found.labels.tolist()) == (("cat", "dog"), [1, 0])
    assert Detections(boxes, scores, np.array(["dog", "cat"], dtype=object)).labels.tolist() == [1, 0]
    found = Detections(boxes, scores, np.array(["dog", "cat"]), names=("dog", "cup", "cat"))
    assert (found.names, found.labels.tolist(), found[0].name) == (("dog", "cup", "cat"), [0, 2], "dog")
    with pytest.raises(ValueError, match="the label 'dog' is none of the names cat, cup"):
        Detections(boxes, scores, ["dog", "cat"], names=("cat", "cup"))


def test_scores_by_class_and_a_table_of_several_images(tmp_path):
    model = load("fcos-lite0", device="cpu", runtime="torch")
    photos = [ASSETS / "photos" / name for name in ("cat.jpg", "photographer.jpg")]
    every = model(photos, score=0.05)
    chosen = model(photos, score={"cat": 0.1, "person": 0.9})
    assert chosen == model(photos, score="cat=0.1,person=0.9")
    least = {"cat": 0.1, "person": 0.9}
    for seen, kept in zip(every, chosen, strict=True):
        limits = torch.tensor([least.get(seen.names[k], model.shown) for k in seen.labels.tolist()])
        assert kept == seen[seen.scores >= limits]
    rows = every.save(tmp_path / "all.csv").read_text().splitlines()
    assert len(rows) == 1 + sum(map(len, every))
    assert rows[1].startswith(f"{photos[0]},{every[0][0].name},{every[0][0].score:.4f},")
    assert json.loads(every.save(tmp_path / "all.json").read_text()) == [seen.to_dict() for seen in every]
    with pytest.raises(FcosError, match=r"\.csv or \.json"):
        every.save(tmp_path / "all.txt")


def test_no_box_ends_outside_the_image():
    model = load("fcos-lite0", device="cpu", runtime="torch")
    for path in sorted((ASSETS / "photos").glob("*.jpg")):
        seen = model(path, score=0)
        height, width = seen.size
        assert (seen.boxes >= 0).all()
        assert (seen.boxes <= torch.tensor([width, height] * 2)).all()


def test_a_link_that_leads_nowhere_is_named_as_other_files_that_cannot_be_read(tmp_path):
    (tmp_path / "dead.jpg").symlink_to(tmp_path / "missing.jpg")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    assert [p.name for p in find_images([str(tmp_path)])] == ["a.png", "dead.jpg"]


def test_names_of_other_programs_say_what_it_is_here(detector):
    """And change nothing else: no attribute, no name in the list of them, copies and pickles as ever."""
    found = detector(np.zeros((64, 64, 3), np.uint8), score=0)
    for thing, name, told in (
        (detector, "names", "write .classes.names"),
        (detector, "predict", "write model(image)"),
        (found, "xyxy", "write .boxes"),
        (found, "tracker_id", "write .track_ids"),
        (found, "nothing_at_all", "has no attribute 'nothing_at_all'"),
    ):
        with pytest.raises(AttributeError, match=re.escape(told) + "$"):
            getattr(thing, name)
        assert not hasattr(thing, name)
        assert name not in dir(thing)
    assert copy.copy(found) == copy.deepcopy(found) == pickle.loads(pickle.dumps(found)) == found
    assert copy.copy(detector)(np.zeros((64, 64, 3), np.uint8), score=0) == found


def test_what_a_property_fails_of_is_told(detector, monkeypatch):
    monkeypatch.setattr(Detector, "shown", property(lambda self: self.config.no_such))
    with pytest.raises(AttributeError, match="no_such"):
        _ = detector.shown
