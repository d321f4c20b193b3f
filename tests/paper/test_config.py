"""Settings: sources in order, and errors that help."""

import pytest
import yaml

from fcos.changes import SYNONYMS, nearest_setting
from fcos.config import Config, DataConfig, describe, from_dict
from fcos.errors import ConfigError
from fcos.presets import DIALECTS, PRESETS, preset, resolve, with_dialect


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_preset_under_every_dialect(name, dialect):
    config = with_dialect(preset(name), dialect)
    assert (config.name, config.dialect) == (name, dialect)
    assert from_dict(yaml.safe_load(config.dump())) == config


def test_later_sources_win(tmp_path):
    for wrong in (3, None, [("data.size", 256)]):
        with pytest.raises(ConfigError, match="is no change of settings; give"):
            Config().override(wrong)
    file = tmp_path / "mine.yaml"
    file.write_text("train: {lr: 0.5, batch: 3}\ndecode: {nms_iou: 0.7}\n")
    config = resolve("fcos-lite0", ["train.lr=1e-4"], "mmdet", file)
    assert (config.train.lr, config.train.batch) == (1e-4, 3)
    assert (config.decode.nms_iou, config.decode.score) == (0.7, "product")


def test_a_file_of_another_model_or_dialect_is_no_quiet_change_of_it(tmp_path):
    """The whole of a config names both; without a name it is the preset that the file names."""
    file = tmp_path / "all.yaml"
    file.write_text(with_dialect(preset("fcos-lite1"), "mmdet").dump())
    assert resolve(None, file=file) == resolve("fcos-lite1", file=file) == with_dialect(preset("fcos-lite1"), "mmdet")
    with pytest.raises(ConfigError, match="has the settings of fcos-lite1, not of fcos-r50; give --model fcos-lite1"):
        resolve("fcos-r50", file=file)
    with pytest.raises(ConfigError, match="has the settings of dialect mmdet; leave out --dialect original"):
        resolve(None, dialect="original", file=file)
    for text in ("dialect:", "name: [a]"):
        file.write_text(f"{text}\n")
        with pytest.raises(ConfigError, match=f"{text.partition(':')[0]}=.* it should be a valid string"):
            resolve(None, dialect="mmdet", file=file)
    file.write_text("name: a name of my own\ntrain: {lr: 0.5}\n")
    assert resolve("fcos-r50", file=file).train.lr == 0.5
    assert resolve(None, file=file).model == preset("fcos-lite0").model


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("train.learning_rate=1", ["train.learning_rate", "train.lr"]),
        ("train.batchsize=1", ["train.batch"]),
        ("decode.nms_iuo=1", ["decode.nms_iou"]),
        ("train.batch=many", ["train.batch", "'many'", "integer"]),
        ("train.lr=-1", ["train.lr", "greater than 0"]),
        ("model.std=0,0,0", ["model.std=0", "greater than or equal to 0.001"]),
        ("model.mean=1e39,0,0", ["model.mean=1e+39", "less than or equal to 10000"]),
        ("assign.ranges=1,2,3,1e308", ["assign.ranges=1e+308", "less than or equal to 1000000000"]),
        ("data.learned_boxes=1,2,1e300", ["data.learned_boxes=1e+300", "less than or equal to 1000000000"]),
        ("model.deformable_stages=7", ["model.deformable_stages=7", "less than or equal to 4"]),
        ("model.strides=[8,16,64]", ["strides", "double"]),
        ("assign.ranges=[64]", ["levels need 4 limits"]),
        ("nonsense", ["'nonsense'", "section.key=value"]),
        ("train.lr.x=1", ["train.lr", "single value"]),
        ("train=1", ["train is a section"]),
        ("decode.nms=clas", ["decode.nms", "'class'"]),
        ("data.max_size=100", ["max_size"]),
    ],
)
def test_mistakes_name_the_setting_and_the_fix(setting, words):
    with pytest.raises(ConfigError) as error:
        preset("fcos-lite0").override(setting)
    text = str(error.value)
    assert "\n" not in text
    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    ("changes", "sizes"),
    [
        (["data.size=640"], (640, 1066, (608, 640, 672))),
        ([{"data": {"size": "640.0"}}], (640, 1066, (608, 640, 672))),
        (["data.size=640", "data.max_size=700"], (640, 700, (608, 640, 672))),
        (["data.size=640", {"data.max_size": 700, "data.train_sizes": [640]}], (640, 700, (640,))),
        (["data.size=640", "data.train_sizes=[]"], (640, 1066, ())),
        (["data.size=64"], (64, 106, (32, 64, 96))),
        (["data.size=320", "data.flip=0"], (320, 533, (256, 288, 320, 352, 384))),
    ],
)
def test_another_size_takes_the_sizes_that_go_with_it_along(changes, sizes):
    """`data.size` alone is what a person says, in training as in detection: a limit of 533 px would undo 640."""
    data = preset("fcos-lite0").override(*changes).data
    assert (data.size, data.max_size, data.train_sizes) == sizes


def test_a_size_leaves_what_a_file_gives(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("data: {max_size: 640, train_sizes: [416]}\n")
    data = resolve("fcos-lite0", ["data.size=416"], file=file).data
    assert (data.size, data.max_size, data.train_sizes) == (416, 640, (416,))
    file.write_text(preset("fcos-lite0").override("data.train_sizes=[320]").dump())  # its sizes go with its data.size
    data = resolve("fcos-lite0", ["data.size=640"], file=file).data
    assert (data.size, data.max_size, data.train_sizes) == (640, 1066, (640,))
    for more in ("", "data: {size: 320}\n"):
        file.write_text(f"decode: {{shown: 0.4}}\n{more}")
        assert resolve("fcos-lite0", ["decode.score=class"], file=file).decode.shown is None
    file.write_text("data: {max_size: -1}\n")
    with pytest.raises(ConfigError, match=r"mine\.yaml: data\.max_size=-1"):
        resolve("fcos-lite0", ["data.size=416"], file=file)


@pytest.mark.parametrize("name", ["fcos-lite0", "fcos-lite2", "fcos-r50", "fcos-r50-2019"])
def test_sizes_come_back_as_they_went(name):
    config = preset(name)
    for size in (64, 97, 416, 1024):
        there = config.override({"data": {"size": size}})
        assert there.override({"data": {"size": config.data.size}}).data.max_size == config.data.max_size
    square = Config(data=DataConfig(size=64, max_size=64)).override("data.size=90")
    assert (square.data.max_size, square.data.train_sizes) == (90, ())


@pytest.mark.parametrize("size", ["inf", "-3", "nan", "many", "8", "99999"])
def test_what_is_no_size_is_named_as_the_size(size):
    with pytest.raises(ConfigError, match=r"data\.size="):
        preset("fcos-lite0").override(f"data.size={size}")


def test_unknown_names_suggest_the_nearest(tmp_path):
    with pytest.raises(ConfigError, match="did you mean fcos-r50"):
        preset("fcos-r5O")
    with pytest.raises(ConfigError, match="did you mean detectron2"):
        with_dialect(Config(), "detectron")
    broken = tmp_path / "broken.yaml"
    broken.write_text("train: [")
    with pytest.raises(ConfigError, match=r"broken\.yaml is not YAML"):
        resolve("fcos-r50", file=broken)
    with pytest.raises(ConfigError, match=r"cannot read .*none\.yaml"):
        resolve("fcos-r50", file=tmp_path / "none.yaml")


def test_every_setting_has_a_meaning():
    assert all(about for _, _, about in describe(Config()))


def test_dots_in_a_key_lead_into_its_section(tmp_path):
    config = Config().override({"data.size": 256, "train": {"lr": 0.25}, "train.batch": 3})
    assert (config.data.size, config.train.lr, config.train.batch) == (256, 0.25, 3)
    with pytest.raises(ConfigError, match=r"unknown setting data\.sise; did you mean data\.size"):
        Config().override({"data.sise": 256})
    file = tmp_path / "mine.yaml"
    file.write_text("data.size: 192\ntrain:\n  lr: 0.5\n")
    config = resolve("fcos-lite0", file=file)
    assert (config.data.size, config.train.lr) == (192, 0.5)


def test_lists_and_numbers_on_the_command_line():
    config = preset("fcos-r50").override("data.train_sizes=320,352", "train.lr=1e-3", "data.classes=[cat, dog]")
    assert (config.data.train_sizes, config.train.lr, config.data.classes) == ((320, 352), 1e-3, ("cat", "dog"))
    assert config.override("data.train_sizes=320").data.train_sizes == (320,)
    with pytest.raises(ConfigError, match=r"data.first_sizes=8.*32"):
        config.override("data.first_sizes=320,8")


def test_a_number_alone_is_a_list_of_one():
    config = Config().override("model.deformable_stages=4", "train.milestones=0.5", "data.train_sizes=96")
    assert (config.model.deformable_stages, config.train.milestones, config.data.train_sizes) == ((4,), (0.5,), (96,))
    assert preset("fcos-lite0").override("data.train_sizes=").data.train_sizes == ()
    assert Config().override("train.logger=wandb").override("train.logger=").train.logger == ()
    calibrated = Config().override({"decode": {"calibration": [[1, 0]]}})
    for nothing in ("decode.calibration=", "decode.calibration=[]", {"decode.calibration": ""}):
        assert calibrated.override(nothing).decode.calibration == ()
        with pytest.raises(ConfigError, match="were never calibrated"):
            calibrated.override(nothing, "decode.calibrated=true")
    with pytest.raises(ConfigError, match=r"data.train_sizes='none': it should be a valid integer"):
        Config().override("data.train_sizes=none")


def test_a_range_without_a_limit_as_others_write_it():
    """1e8 is the INF of AdelaiDet and mmdetection."""
    assert preset("fcos-lite0").override("assign.ranges=64,128,256,1e8").assign.ranges[-1] == 1e8


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("class_weights", "train.balance"),
        ("resolution", "data.size"),
        ("max_det", "decode.max_detections"),
        ("cos_lr", "train.schedule"),
        ("scale", "data.crop_scale"),
        ("modell.scale", "model.scale"),
        ("warmup_epochs", "train.warmup"),
        ("early_stopping_patience", "train.patience"),
        ("hsv_h", "data.color"),
        ("class-weights", "train.balance"),  # a slip of a setting of ours is that one, whatever others call alike
        ("class-weigth", "loss.class_weight"),
        ("fpn_chanels", "model.fpn_channels"),
        ("channels-last", "train.channels_last"),
        ("data.resampe", "data.resample"),
        ("learning_rat", "train.lr"),
        ("base_lr", "train.lr"),
        ("nms_thresh", "decode.nms_iou"),
        ("translate", ""),
        *((name, "") for name in ("num_classes", "nc", "rotation", "resume", "data.channels", "data.grayscale")),
    ],
)
def test_names_of_other_programs_lead_to_those_here(theirs, ours):
    known = [key for key, _, _ in describe(Config())]
    assert set(SYNONYMS.values()) - {""} <= set(known)
    assert (nearest_setting(theirs, known) or "") == ours


def test_a_trained_model_where_a_preset_is_wanted(tmp_path):
    with pytest.raises(ConfigError, match="a preset is wanted; to start training from this model: --init "):
        preset(str(tmp_path))
