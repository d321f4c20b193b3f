"""Checkpoints are read whole or refused in one line, and what is in them never runs."""

import os
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import torch

from fcos.errors import ModelError
from fcos.network.checkpoints import _ALLOWED, read_checkpoint

STATE = OrderedDict(a=torch.arange(6.0).view(2, 3), b=torch.tensor([1, 2]))


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


class Buffer:
    """Stands for a class of another code base: a log buffer, a config."""

    def __init__(self):
        self.values = [1, 2]


@pytest.mark.parametrize("entry", ["", "model", "state_dict", "model_state", "model_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "model.", "module.model."])
@pytest.mark.parametrize("legacy", [False, True])
def test_entries_and_prefixes(tmp_path, entry, prefix, legacy):
    state = {prefix + k: v for k, v in STATE.items()}
    path = tmp_path / "x.pth"
    whole = {entry: state, "epoch": 3} if entry else state
    torch.save(whole, path, _use_new_zipfile_serialization=not legacy)
    read, info = read_checkpoint(path)
    assert read.keys() == STATE.keys()
    assert all(torch.equal(read[k], STATE[k]) for k in STATE)
    assert info["entry"] == entry
    torch.save({entry or "model_ema": {**state, "n_averaged": torch.tensor(3)}}, path)  # torch's AveragedModel
    assert read_checkpoint(path)[0].keys() == STATE.keys()
    torch.save({entry or "model_ema": {"n_averaged": torch.tensor(3)}}, path)
    with pytest.raises(ModelError, match="holds no named tensors"):
        read_checkpoint(path)


@pytest.mark.parametrize("legacy", [False, True])
def test_objects_of_unknown_classes_are_passed_over(tmp_path, legacy):
    path = tmp_path / "x.pth"
    whole = {
        "state_dict": STATE,
        "message_hub": {"loss": Buffer()},
        "meta": {"cfg": "style='caffe'"},
        "n": np.float64(3),
    }
    torch.save(whole, path, _use_new_zipfile_serialization=not legacy)
    read, info = read_checkpoint(path)
    assert all(torch.equal(read[k], STATE[k]) for k in STATE)
    assert info["meta"]["cfg"] == "style='caffe'"


@pytest.mark.parametrize("protocol", [2, 4])
def test_detectron2_pkl(tmp_path, protocol):
    path = tmp_path / "model.pkl"
    arrays = {k: v.numpy() for k, v in STATE.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": "Caffe2"}, protocol))
    read, _ = read_checkpoint(path)
    assert all(torch.equal(read[k], STATE[k]) for k in STATE)


@pytest.mark.parametrize("name", ["x.pkl", "x.pth", "legacy.pth"])
def test_code_in_a_pickle_does_not_run(tmp_path, name):
    path, made = tmp_path / name, tmp_path / "made"
    whole = {"model": {k: v.numpy() for k, v in STATE.items()} if name == "x.pkl" else STATE, "x": Attack(made)}
    if name == "x.pkl":
        path.write_bytes(pickle.dumps(whole))
    else:
        torch.save(whole, path, _use_new_zipfile_serialization=name == "x.pth")
    read, _ = read_checkpoint(path)
    assert len(read) == 2
    assert not made.exists()


def test_an_attack_in_place_of_the_state_is_refused(tmp_path):
    path, made = tmp_path / "x.pkl", tmp_path / "made"
    path.write_bytes(pickle.dumps(Attack(made)))
    with pytest.raises(ModelError, match="not a checkpoint"):
        read_checkpoint(path)
    assert not made.exists()


@pytest.mark.parametrize("name", ["x.pth", "legacy.pth", "x.pkl", "x.safetensors"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_truncated_file_is_one_line(tmp_path, name, part):
    path = tmp_path / name
    state = {"a": torch.zeros(2000), "b": torch.ones(2000)}
    if name == "x.pkl":
        path.write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in state.items()}}))
    elif name == "x.safetensors":
        from safetensors.torch import save_file

        save_file(state, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=name == "x.pth")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(ModelError) as error:
        read_checkpoint(path)
    assert "\n" not in str(error.value)
    assert name in str(error.value)


@pytest.mark.parametrize("content", [b"hello, world", b"\xff\xd8\xff\xe0 an image", b'{"a": 1}'])
def test_another_kind_of_file_is_one_line(tmp_path, content):
    for name in ("x.pth", "x.pkl", "x.safetensors"):
        path = tmp_path / name
        path.write_bytes(content * 20)
        with pytest.raises(ModelError) as error:
            read_checkpoint(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:aa\n", "git lfs pull"),
        (b"\n<!DOCTYPE html><html></html>", "a web page"),
        (b"hello, world", "begins with b'hello, world'"),
        (b"PK\x03\x04", "cut short"),
    ],
)
def test_a_download_that_went_wrong_is_named(tmp_path, content, said):
    path = tmp_path / "x.pth"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=said):
        read_checkpoint(path)


def test_the_content_decides_not_the_end_of_the_name(tmp_path, recwarn):
    """A plain pickle called .pth, and files of torch.save called .pkl; no warning of torch beside them."""
    (tmp_path / "x.pth").write_bytes(pickle.dumps({"model": {k: v.numpy() for k, v in STATE.items()}}))
    torch.save({"model": STATE}, tmp_path / "new.pkl")
    torch.save({"model": STATE}, tmp_path / "old.pkl", _use_new_zipfile_serialization=False)
    for name in ("x.pth", "new.pkl", "old.pkl"):
        read, _ = read_checkpoint(tmp_path / name)
        assert all(torch.equal(read[k], STATE[k]) for k in STATE), name
    assert not recwarn.list


def test_a_whole_object_is_no_state(tmp_path):
    torch.save(Buffer(), tmp_path / "x.pth")
    with pytest.raises(ModelError, match=r"holds an object of a class.*save its state_dict\(\)"):
        read_checkpoint(tmp_path / "x.pth")


def test_missing_and_empty(tmp_path):
    with pytest.raises(ModelError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "none.pth")
    torch.save({"epoch": 3}, tmp_path / "x.pth")
    with pytest.raises(ModelError, match="no named tensors"):
        read_checkpoint(tmp_path / "x.pth")


class Forged:
    """A pickle that builds an array of objects over bytes of its own choice, as numpy's constructor would."""

    def __init__(self, *reduced):
        self.reduced = reduced

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("name", ["x.pkl", "x.pth", "zip.pth"])
def test_numpys_own_constructors_are_not_within_reach(tmp_path, name):
    """np.ndarray((1,), "O", memory) reads an address that the file says, and setting its item writes there."""
    forged = Forged(np.ndarray, ((1,), Forged(np.dtype, ("O8",)), Forged(bytearray, (bytes(8),))))
    made = Forged(OrderedDict, ([("a", forged)],))
    whole = {"model": {k: v.numpy() for k, v in STATE.items()} | {"bad": made}, "other": forged}
    if name == "zip.pth":
        torch.save(whole, tmp_path / name)
    else:
        (tmp_path / name).write_bytes(pickle.dumps(whole, 2))
    read, _ = read_checkpoint(tmp_path / name)
    assert read.keys() == STATE.keys()
    for kind in (np.ndarray, np.dtype):
        assert kind not in _ALLOWED.values()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("kind", ["<f4", ">f4", "<f8", "<f2", "<i8", ">i4", "|u1", "|i1", "|b1"])
def test_arrays_of_every_kind_of_number_come_as_they_are(tmp_path, protocol, kind):
    value = np.arange(12).reshape(3, 4).astype(kind)
    whole = {"plain": value, "turned": np.asfortranarray(value), "none": value[:0], "one": value[0, 0]}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(whole | {"text": np.array(["a"]), "any": np.array([None])}, protocol))
    read, _ = read_checkpoint(tmp_path / "x.pkl")
    assert sorted(read) == ["none", "plain", "turned"]
    for name in read:
        np.testing.assert_array_equal(read[name].numpy(), whole[name])
        assert read[name].numpy().dtype == whole[name].dtype.newbyteorder("=")


def test_an_array_that_is_longer_than_its_bytes_is_one_line(tmp_path):
    array = np.zeros(4, np.float32)
    shape = pickle.dumps({"a": array, "b": array}, 2).replace(b"K\x04\x85", b"M\xff\xff\x85")
    (tmp_path / "x.pkl").write_bytes(shape)
    with pytest.raises(ModelError, match=r"cannot read the checkpoint .*x\.pkl: cannot reshape"):
        read_checkpoint(tmp_path / "x.pkl")
