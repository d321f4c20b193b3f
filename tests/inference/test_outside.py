"""What comes from outside and is not an image: names, folders, files that are programs."""

import os
import shutil
import zipfile

import pytest
import torch
from PIL import Image

from fcos.config import Config
from fcos.data.tree import DataSource, Tree
from fcos.errors import ConfigError, FcosError, ModelError, one_line
from fcos.export.about import About
from fcos.export.formats import torchscript
from fcos.export.open import read_about
from fcos.inference.load import load
from fcos.inference.sources import find_images
from fcos.network.checkpoints import read_checkpoint
from fcos.system.files import write_whole
from fcos.system.walk import files_below
from fcos.types import Classes


def test_links_in_a_circle_are_walked_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.makedirs("loop/a/b")
    Image.new("RGB", (8, 8)).save("loop/a/b/x.jpg")
    for k in range(6):
        os.symlink("../..", f"loop/a/b/up{k}")
    os.symlink("..", "loop/a/up")
    for pattern in ("loop", "loop/**", "**/*.jpg", "loop/**/b/**", "loop/*/b/*.jpg"):
        assert [p.name for p in find_images([pattern])] == ["x.jpg"], pattern


def test_a_link_to_itself_hides_nothing_beside_it(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "x.jpg")
    os.symlink("self", tmp_path / "self")
    (tmp_path / "inner").mkdir()
    assert find_images([str(tmp_path)]) == [tmp_path / "x.jpg"]
    assert {p.name for p in files_below(tmp_path)} == {"x.jpg", "self"}


def test_a_link_out_to_everything_is_not_followed(tmp_path):
    """To the folder that all lies in, or to /: the walk would take minutes, and find what nobody meant."""
    photos = tmp_path / "all" / "photos"
    photos.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(photos / "x.jpg")
    Image.new("RGB", (8, 8)).save(tmp_path / "all" / "other.jpg")
    for name, place in (("up", ".."), ("root", "/")):
        os.symlink(place, photos / name)
    assert [p.name for p in find_images([str(photos)])] == ["x.jpg"]
    assert [p.name for p in Tree(DataSource(photos)).images.paths] == ["x.jpg"]


def test_what_a_killed_writer_left_is_no_image(tmp_path):
    for name in ("a.jpg", ".writing-x.jpg", "._a.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name, "JPEG")
    assert find_images([str(tmp_path)]) == [tmp_path / "a.jpg"]


def test_names_of_255_bytes_are_written(tmp_path):
    path = tmp_path / f"{'ü' * 125}.json"
    assert write_whole(path, "x").read_text() == "x"
    assert os.listdir(tmp_path) == [path.name]


def test_odd_names_end_in_a_line(tmp_path):
    for name in ("a\0b", "x" * 300, "\udce4"):
        try:
            paths = find_images([name])
        except FcosError:
            continue
        assert paths


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31mred", "\udce4", "\u202eabc", "x" * 5000, "\u2028"])
def test_a_message_is_one_short_line_of_characters_that_show(text):
    message = str(FcosError(f"there is no {text}"))
    assert message.isprintable()
    assert len(message) <= 700
    assert one_line(message) == message
    message.encode()


def script(path):
    class Network(torch.nn.Module):
        def forward(self, x):
            return x

    torch.jit.save(torch.jit.script(Network()), str(path))
    torchscript.describe(path, About(Config(), Classes(("a",))))


def test_torchscript_runs_only_where_it_is_trusted(tmp_path, monkeypatch):
    script(tmp_path / "a.torchscript")
    real = torch.jit.load
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("code of the file was run"))
    assert read_about(tmp_path / "a.torchscript").classes.names == ("a",)
    with pytest.raises(ModelError, match="is code"):
        load(tmp_path / "a.torchscript", device="cpu")
    monkeypatch.setattr(torch.jit, "load", real)
    assert load(tmp_path / "a.torchscript", device="cpu", trust=True).classes.names == ("a",)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + b"x" * 99, b"hello"])
def test_torchscript_that_is_none(tmp_path, content):
    (tmp_path / "a.torchscript").write_bytes(content)
    with pytest.raises(ModelError, match="not a whole TorchScript file"):
        torchscript.read(tmp_path / "a.torchscript")


def test_a_checkpoint_that_unpacks_to_more_is_refused(tmp_path):
    torch.save({"a": torch.zeros(40_000_000)}, tmp_path / "a.pth")
    with (
        zipfile.ZipFile(tmp_path / "a.pth") as old,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for member in old.infolist():
            with old.open(member) as source, new.open(member.filename, "w") as target:
                shutil.copyfileobj(source, target)
    with pytest.raises(ModelError, match=r"unpacks to 160\.0 MB"):
        read_checkpoint(tmp_path / "bomb.pth")
    assert read_checkpoint(tmp_path / "a.pth")[0]["a"].numel() == 40_000_000


NUMBERS = [
    f"{section}.{name}"
    for section, part in Config()
    if hasattr(part, "model_dump")
    for name, value in part
    if type(value) in (int, float)
]


@pytest.mark.parametrize("key", NUMBERS)
def test_every_number_has_both_limits(key):
    for value in ("1e308", "1e20", "-1e20", "inf", "-inf", "nan", "-1e308", "1" * 400):
        with pytest.raises(ConfigError):
            Config().override(f"{key}={value}")


@pytest.mark.parametrize("threads", [-1, 100_000_000])
def test_too_many_threads(threads):
    with pytest.raises(ModelError, match="threads"):
        load("fcos-lite0", device="cpu", threads=threads)
