"""Names both ways for every family and variant, and what the shapes say about the model."""

import pytest
import torch
import torch.nn.functional as F
from golden import keys
from variants import LISTS, distinct, shapes_of, variant

from fcos.convert.families import mmdet
from fcos.convert.recognise import recognise
from fcos.convert.translate import FAMILIES, Hints, convert, export_state, from_state
from fcos.errors import ModelError
from fcos.network.model import HRFPN
from fcos.points import level_shapes
from fcos.presets import preset, with_dialect


def same(a, b):
    return a.keys() == b.keys() and all(a[k].shape == b[k].shape and torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize(("family", "listed"), LISTS)
def test_a_familys_file_comes_back_bit_exact(family, listed):
    theirs = distinct({k: shape for k, (shape, _) in keys(listed).items()})
    found = from_state(theirs)
    assert found.family == family
    assert not found.spare
    assert same(export_state(found.state, found.config, family), theirs)


DCN = {"deformable_stages": (2, 3, 4), "head_deformable": True}
X101 = {"stride_in_1x1": False}
MOBILE = {"backbone": "mobilenetv2_100", "backbone_norm": "batch", "stride_in_1x1": False}
RT = {"strides": (8, 16, 32), "ranges": (64.0, 128.0), "backbone_norm": "batch"}
DLA = {**RT, "backbone": "dla34", "stride_in_1x1": False}
IMAGENET = {"std": (58.395, 57.12, 57.375)}
VARIANTS = {
    "original-r101": variant("original", "fcos-r101"),
    "original-x101-64x4d-dcn": variant("original", "fcos-x101-64x4d", **X101, **DCN),
    "original-mobilenet": variant(
        "original-2019", **MOBILE, backbone_norm_eps=None, fpn_channels=128, head_channels=128
    ),
    "adelaidet-x101-32x8d-dcn": variant(
        "adelaidet", "fcos-x101-32x8d", **X101, **IMAGENET, deformable_stages=(3, 4), head_deformable=True
    ),
    "adelaidet-mobilenet": variant("adelaidet", **MOBILE),
    "adelaidet-rt-dla": variant("adelaidet", **DLA),
    "adelaidet-rt-dla-shared-bn": variant("adelaidet", **DLA, head_shared_convs=4, head_convs=0, head_norm="batch"),
    "adelaidet-rt-r50-bn": variant("adelaidet", **RT, head_norm="batch"),
    "detectron2-x101-64x4d": variant("detectron2", "fcos-x101-64x4d", **X101),
    "detectron2-dcn": variant("detectron2", deformable_stages=(2, 3, 4)),
    "mmdet-dcn": variant("mmdet", **DCN),
    "mmdet-2019-x101-64x4d": variant(
        "mmdet-2019", "fcos-x101-64x4d", **X101, **IMAGENET, mean=(123.675, 116.28, 103.53), bgr=False
    ),
    "mmdet-2019-hrnet": variant(
        "mmdet-2019",
        backbone="hrnet_w32",
        neck="hrfpn",
        stride_in_1x1=False,
        **IMAGENET,
        mean=(123.675, 116.28, 103.53),
    ),
    "original-r18": variant("original", backbone="resnet18", stride_in_1x1=False),
    "mmdet-r34": variant("mmdet", backbone="resnet34", stride_in_1x1=False),
    "detectron2-r18": variant("detectron2", backbone="resnet18", stride_in_1x1=False),
    "torchvision-p6-from-c5": variant("torchvision", extra_from="body"),
    "torchvision-r101-bn": variant("torchvision", "fcos-r101", backbone_norm="batch"),
}


@pytest.mark.parametrize("name", [pytest.param(n, marks=[pytest.mark.slow] * ("hrnet" in n)) for n in VARIANTS])
def test_a_variant_goes_out_and_comes_back_bit_exact_with_its_config(name):
    config = VARIANTS[name]
    family = name.partition("-")[0]
    state = distinct(shapes_of(config))
    theirs = export_state(state, config, family)
    assert recognise(theirs)[0].name == family
    assert not [key for key in theirs if "@" in key]  # our mark of deformable weights stays here
    found = from_state(theirs, hints=Hints(dialect=config.dialect))
    for section in ("assign", "loss", "decode"):
        assert getattr(found.config, section) == getattr(config, section), section
    assert found.config.model == config.model.model_copy(update={"backbone_weights": "none"})
    kept = {k: v for k, v in state.items() if FAMILIES[family].counts(config) or "num_batches" not in k}
    assert same({k: found.state[k] for k in kept}, kept)
    assert same(export_state(found.state, found.config, family), theirs)


def test_hrnets_pyramid_is_mmdetections():
    """The five levels, spelled out as in mmdet/models/necks/hrfpn.py."""
    config = VARIANTS["mmdet-2019-hrnet"].model.model_copy(update={"fpn_channels": 8})
    maps = [torch.rand(1, c, 32 // 2**i, 48 // 2**i) for i, c in enumerate((32, 64, 128, 256))]
    neck = HRFPN([32, 64, 128, 256], config)
    with torch.inference_mode():
        found = neck(maps)
        joined = torch.cat(
            [F.interpolate(m, scale_factor=2**i, mode="bilinear") if i else m for i, m in enumerate(maps)], 1
        )
        joined = neck.reduction(joined)
        for i, conv in enumerate([*neck.output, *neck.extra]):
            pooled = F.avg_pool2d(joined, kernel_size=2**i, stride=2**i) if i else joined
            torch.testing.assert_close(found[i], F.conv2d(pooled, conv.weight, conv.bias, stride=2, padding=1))
    assert [tuple(x.shape[-2:]) for x in found] == level_shapes((128, 192), config.strides)


def base(family="detectron2"):
    config = variant("torchvision" if family == "torchvision" else family)
    return export_state(distinct(shapes_of(config)), config, family)


def test_names_that_fit_nothing_are_listed_on_both_sides():
    state = base()
    state["head.extra.weight"] = state.pop("head.bbox_pred.bias")
    with pytest.raises(ModelError, match=r"1 missing in the file \(head.box_distances.bias\).*\(head.extra.weight\)"):
        from_state(state)


def test_a_wrong_shape_is_named():
    state = base()
    state["head.ctrness.weight"] = torch.zeros(2, 256, 3, 3)
    with pytest.raises(ModelError, match=r"centerness.weight \(2, 256, 3, 3\) instead of \(1, 256, 3, 3\)"):
        from_state(state)


def test_pixel_buffers_of_old_detectron2_files_go_into_the_config():
    state = base() | {"pixel_mean": torch.tensor([1.0, 2, 3]).view(3, 1, 1), "pixel_std": torch.ones(3, 1, 1)}
    found = from_state(state)
    assert found.config.model.mean == (3.0, 2.0, 1.0)
    assert len(found.spare) == 2


def test_old_spellings_are_read():
    mmdet = {k.replace("conv_cls", "fcos_cls").replace("conv_reg.", "fcos_reg."): v for k, v in base("mmdet").items()}
    mmdet = {k.replace("conv_centerness", "fcos_centerness"): v for k, v in mmdet.items()}
    assert from_state(mmdet).family == "mmdet"
    torchvision = {k.replace("_blocks.0.0.", "_blocks.0."): v for k, v in base("torchvision").items()}
    assert from_state(torchvision).family == "torchvision"


def test_dcn_v1_is_refused_by_name():
    config = VARIANTS["detectron2-dcn"]
    state = export_state(distinct(shapes_of(config)), config, "detectron2")
    for key in [k for k in state if "conv2_offset.weight" in k]:
        state[key] = torch.zeros(18, *state[key].shape[1:])
    with pytest.raises(ModelError, match="offsets of 18 channels"):
        from_state(state)


def test_what_the_file_name_and_the_config_in_it_decide():
    original = base("original")
    assert from_state(original, {"file": "FCOS_imprv_R_50_FPN_1x.pth"}).config.dialect == "original"
    assert from_state(original, {"file": "FCOS_R_50_FPN_1x.pth"}).config.dialect == "original-2019"
    assert from_state(base("adelaidet"), {"file": "FCOS_R_50_1x_iou.pth"}).config.loss.quality == "iou"
    text = "mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True, style='pytorch'"
    model = from_state(base("mmdet"), {"meta": {"cfg": text}}).config.model
    assert (model.stride_in_1x1, model.bgr, model.mean[0], model.std[0]) == (False, False, 123.675, 58.395)


def test_the_config_in_an_mmdetection_file_tells_its_loss_sampling_and_nms():
    """fcos_r50-caffe_fpn_gn-head-center: the first version with center sampling."""
    config = with_dialect(preset("fcos-r50"), "mmdet-2019")
    state = export_state(distinct(shapes_of(config)), config, "mmdet")
    assert from_state(state).config.assign.center_radius == 0
    text = (
        "bbox_head=dict(type='FCOSHead', center_sampling=True, center_sample_radius=2.0, "
        "loss_bbox=dict(type='GIoULoss', loss_weight=1.0)), test_cfg=dict(nms_pre=1000, score_thr=0.05, "
        "nms=dict(type='nms', iou_threshold=0.55), max_per_img=100)"
    )
    found = from_state(state, {"meta": {"cfg": text}}).config
    assert (found.dialect, found.assign.center_radius) == ("mmdet-2019", 2.0)
    assert (found.loss.box, found.decode.nms_iou, found.model.regression) == ("giou", 0.55, "exp")
    old = "center_sampling=False, loss_bbox=dict(type='IoULoss'), test_cfg=dict(nms=dict(type='nms', iou_thr=0.5))"
    found = from_state(state, {"meta": {"config": old}}).config
    assert (found.loss.box, found.decode.nms_iou, found.assign.center_radius) == ("iou", 0.5, 0)
    for stated, tower in (("True", "regression"), ("False", "classification")):
        found, _, _ = mmdet._from_config(f"norm_on_bbox=True, centerness_on_reg={stated}")
        assert found == {"centerness_on": tower, "regression": "relu", "normalize": True}


PIPELINES = """
train_pipeline = [
    dict(type='RandomResize', scale=[(1333, 480), (1333, 960)], keep_ratio=True),
    dict(type='Resize', scale=(1333, 800), keep_ratio=True)]
test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(640, 384), keep_ratio=True),
    dict(type='PackDetInputs', meta_keys=('img_id', 'scale_factor'))
]
"""


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (PIPELINES, (384, 640)),
        (
            "test_pipeline = [\n    dict(\n        scale=(\n            640,\n            384,\n        ),\n    )]\n",
            (384, 640),
        ),
        ("dict(type='MultiScaleFlipAug', img_scale=(600, 400), flip=False)", (400, 600)),
        ("scale=(1333, 800)), dict(scale=(1000, 600))", (800, 1333)),  # not sure: as published
    ],
)
def test_the_size_and_limits_of_a_custom_model_are_those_of_its_config(text, size):
    limits = "test_cfg=dict(nms_pre=500, score_thr=0.05, nms=dict(type='nms', iou_threshold=0.6), max_per_img=300)"
    found = from_state(base("mmdet"), {"meta": {"cfg": f"model=dict({limits})\n{text}"}})
    assert (found.config.data.size, found.config.data.max_size) == size
    assert (found.config.decode.topk, found.config.decode.max_detections) == (500, 300)
    told = " ".join(found.reasons)
    assert "decode.topk" in told
    assert ("data.size" in told) == (size != (800, 1333))


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("bbox_head.scales.0.scale", (2,)),
        ("backbone.layer1.0.conv2.weight", None),
        ("bbox_head.conv_cls.weight", (80,)),
        ("neck.fpn_convs.0.conv.weight", ()),
    ],
)
def test_a_tensor_that_is_not_what_its_name_says_is_one_line(tmp_path, monkeypatch, key, shape):
    state = dict(base("mmdet"))
    assert key in state
    if shape is None:
        del state[key]
    else:
        state[key] = torch.ones(shape)
    monkeypatch.setattr("fcos.convert.translate.read_checkpoint", lambda path: (state, {}))
    with pytest.raises(ModelError, match=r"cannot convert .*odd\.pth") as error:
        convert(tmp_path / "odd.pth", tmp_path / "out.safetensors")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.safetensors").exists()


def test_a_config_written_one_item_a_line():
    """mmengine's pretty text since 0.8 sorts the keys and breaks every list."""
    text = """
        data_preprocessor=dict(
            bgr_to_rgb=True,
            mean=[
                123.675,
                116.28,
                103.53,
            ],
            std=[
                58.395,
                57.12,
                57.375,
            ],
            type='DetDataPreprocessor'),
        test_cfg=dict(
            max_per_img=100,
            nms=dict(iou_threshold=0.55, type='nms'),
            score_thr=0.1))
    """
    found = from_state(base("mmdet"), {"meta": {"cfg": text}}).config
    assert (found.model.bgr, found.model.mean[0], found.model.std[0]) == (False, 123.675, 58.395)
    assert (found.decode.nms_iou, found.decode.threshold) == (0.55, 0.1)


def test_the_class_names_that_mmdetection_stores():
    state = base("mmdet")
    for key in ("bbox_head.conv_cls.weight", "bbox_head.conv_cls.bias"):
        state[key] = state[key][:2]
    for meta in ({"CLASSES": ("cat", "dog")}, {"dataset_meta": {"classes": ["cat", "dog"]}}):
        assert from_state(state, {"meta": meta}).classes.names == ("cat", "dog")
        assert from_state(state, {"meta": meta}, Hints(names=("a", "b"))).classes.names == ("a", "b")
    assert from_state(state, {"meta": {"CLASSES": ("cat",)}}).classes.names == ("class0", "class1")
    coco = from_state(base("mmdet")).classes
    again = from_state(base("mmdet"), {"meta": {"CLASSES": tuple(n.replace(" ", "_") for n in coco.names)}}).classes
    assert again == coco
    turned = tuple(n.replace(" ", "_") for n in coco.names[::-1])  # learned in another order than COCO's
    assert from_state(base("mmdet"), {"meta": {"CLASSES": turned}}).classes.names == coco.names[::-1]


def test_deformable_convs_under_the_names_of_old_mmdetection():
    config = VARIANTS["mmdet-dcn"]
    state = export_state(distinct(shapes_of(config)), config, "mmdet")
    assert state["bbox_head.cls_convs.3.conv.conv_offset.weight"].shape == (27, 256, 3, 3)
    assert state["backbone.layer2.0.conv2.conv_offset.weight"].shape[0] == 27
    assert "backbone.layer1.0.conv2.conv_offset.weight" not in state  # DCNv2 in stages 2..4 only
    old = {
        k.replace(".conv.conv_offset.", ".conv_offset.").replace("conv2.conv_offset", "conv2_offset"): v
        for k, v in state.items()
    }
    assert old.keys() != state.keys()
    again = from_state(old)
    assert same(export_state(again.state, again.config, "mmdet"), state)


NAMES = {
    "original-x101-64x4d-dcn": """
        rpn.head.cls_tower.9.offset.weight rpn.head.bbox_tower.9.conv.bias
        backbone.body.layer2.0.conv2.offset.bias backbone.body.layer4.2.conv2.conv.weight""",
    "adelaidet-x101-32x8d-dcn": """
        proposal_generator.fcos_head.cls_tower.9.conv.weight proposal_generator.fcos_head.bbox_tower.9.offset.bias
        backbone.bottom_up.res5.0.conv2_offset.weight backbone.bottom_up.res5.0.conv2.weight""",
    "mmdet-dcn": "backbone.layer2.0.conv2.weight bbox_head.reg_convs.3.conv.weight",
    "detectron2-dcn": "backbone.bottom_up.res3.0.conv2_offset.weight backbone.bottom_up.res3.0.conv2.norm.weight",
    "adelaidet-rt-dla-shared-bn": """
        proposal_generator.fcos_head.share_tower.0.weight proposal_generator.fcos_head.share_tower.10.2.running_var
        backbone.bottom_up.base_layer.0.weight backbone.fpn_lateral5.weight""",
    "original-mobilenet": """
        backbone.body.features.0.0.weight backbone.body.features.1.conv.3.weight
        backbone.body.features.17.conv.7.running_mean""",
    "adelaidet-mobilenet": "backbone.bottom_up.features.17.conv.6.weight",
    "mmdet-2019-hrnet": """
        neck.reduction_conv.conv.weight neck.fpn_convs.4.conv.bias backbone.stage4.0.branches.0.0.conv1.weight""",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_that_the_code_bases_have(name):
    state = export_state(distinct(shapes_of(VARIANTS[name])), VARIANTS[name], name.partition("-")[0])
    assert not [key for key in NAMES[name].split() if key not in state]


def test_a_dialect_of_another_family_is_refused():
    with pytest.raises(ModelError, match="does not belong to detectron2, which has detectron2"):
        from_state(base(), hints=Hints(dialect="mmdet"))


def test_a_state_of_something_else_is_refused():
    with pytest.raises(ModelError, match="no FCOS head of a known family"):
        from_state({"conv1.weight": torch.zeros(1)})
