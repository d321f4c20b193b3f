"""An exported file that was cut or changed is refused when it is opened, whatever its runtime would make of it."""

import base64
import hashlib
import json
from dataclasses import replace

import pytest
import torch
from exporting import NEEDS, config_of, network_of
from tiny import NAMES

from fcos.config import Config
from fcos.errors import ModelError
from fcos.export import seal
from fcos.export.about import About, read_side_file, side_file, write_side_file
from fcos.export.open import read_about, write_export
from fcos.export.registry import FORMATS
from fcos.types import Classes


def spoiled(whole: bytes) -> list[bytes]:
    """Cut at both ends and in the middle, one bit changed at several places, something put behind."""
    size = len(whole)
    bits = [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in (size // 7, size // 2, size - size // 9)]
    return [b"", whole[: size // 2], whole[:-1], whole[1:], *bits]


@pytest.mark.parametrize("kind", ["onnx", "openvino", "torchscript", "html"])
def test_what_was_cut_or_changed_is_refused_in_one_line(tmp_path, kind):
    for needed in NEEDS.get(kind, ("onnx", "onnxscript")):
        pytest.importorskip(needed)
    config = config_of()
    path = tmp_path / f"a{FORMATS[kind].suffix}"
    about = About(config, Classes(NAMES), 1, (64, 96), dtype=FORMATS[kind].dtypes[0])
    write_export(network_of(config), about, kind, path)
    written = read_about(path)
    assert written == replace(about, version=written.version, sha256=written.sha256)
    for file in sorted(tmp_path.iterdir()):
        whole = file.read_bytes()
        for content in spoiled(whole):
            file.write_bytes(content)
            with pytest.raises(ModelError) as caught:
                read_about(path)
            assert path.stem in str(caught.value)
        file.write_bytes(whole)
    read_about(path)
    if path.with_suffix(".bin").exists():
        path.with_suffix(".bin").unlink()
        with pytest.raises(ModelError, match=r"a\.bin"):
            read_about(path)


def test_libtorch_still_finds_the_metadata_of_torchscript(tmp_path):
    path = tmp_path / "a.torchscript"
    config = config_of()
    write_export(network_of(config), About(config, Classes(NAMES), 1, (64, 96)), "torchscript", path)
    extra = {"fcos": ""}
    torch.jit.load(str(path), _extra_files=extra)
    assert json.loads(extra["fcos"])["classes"]["names"] == list(NAMES)


def test_the_model_inside_a_page_is_sealed_too(tmp_path):
    pytest.importorskip("onnxscript")
    path = tmp_path / "a.html"
    config = config_of()
    write_export(network_of(config), About(config, Classes(NAMES), 1, (64, 96), dtype="fp16"), "html", path)
    inside = path.read_text().split('<script id="packed-model" type="text/plain">')[1].split("</script>")[0]
    (tmp_path / "inside.onnx").write_bytes(base64.b64decode(inside))
    assert read_about(tmp_path / "inside.onnx").classes == Classes(NAMES)


def test_a_graph_with_its_text_beside_it(tmp_path):
    """ExecuTorch, LiteRT and TensorRT cannot hold text."""
    path = tmp_path / "a.pte"
    path.write_bytes(b"graph" * 999)
    write_side_file(path, About(Config(), Classes(("a",))))
    assert json.loads(read_side_file(path))["classes"]["names"] == ["a"]
    for file in (path, side_file(path)):
        whole = file.read_bytes()
        for content in spoiled(whole):
            file.write_bytes(content)
            with pytest.raises(ModelError, match=r"a\.pte"):
                read_about(path)
        file.write_bytes(whole)
    read_about(path)
    side_file(path).unlink()
    with pytest.raises(ModelError, match="does not say"):
        read_about(path)


def test_the_digest_by_hand(tmp_path):
    (tmp_path / "b").write_bytes(b"weights")
    text = b'{"sha256": "%s"}' % (b"0" * 64)
    by_hand = hashlib.sha256(text + hashlib.sha256(b"weights").digest()).hexdigest().encode()
    content = seal.sealed(text, tmp_path / "b")
    assert content == b'{"sha256": "%s"}' % by_hand
    seal.check(tmp_path / "a", content, tmp_path / "b")
    with pytest.raises(ModelError):
        seal.check(tmp_path / "a", content)
