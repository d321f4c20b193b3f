"""Files written whole, alone and together: what stays after an error, and their permissions."""

import errno
import os
import tempfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from fcos.data.tree import _walk
from fcos.errors import DataError, FcosError, ImageWarning
from fcos.inference.sources import images_below
from fcos.system.files import (
    WINDOWS,
    disk_reason,
    scratch,
    sources_kept,
    whole,
    whole_folder,
    whole_set,
    write_whole,
)
from fcos.system.readers import read_text


@pytest.mark.skipif(WINDOWS, reason="permissions of POSIX")
@pytest.mark.parametrize("mask", [0o022, 0o077, 0o002])
def test_what_is_written_has_the_permissions_of_any_new_file(tmp_path, mask):
    before = os.umask(mask)
    try:
        (tmp_path / "plain").write_text("")
        (tmp_path / "folder").mkdir()
        file = write_whole(tmp_path / "mine", "x")
        with whole_folder(tmp_path / "mine-too") as folder:
            (folder / "a").write_text("")

        def private(path):  # as some libraries write: a file of their own, moved into place
            handle, name = tempfile.mkstemp(dir=tmp_path)
            os.close(handle)
            os.replace(name, path)

        moved = write_whole(tmp_path / "moved", private)
    finally:
        os.umask(before)
    mode = (tmp_path / "plain").stat().st_mode
    assert file.stat().st_mode == mode
    assert moved.stat().st_mode == mode
    assert (tmp_path / "mine-too").stat().st_mode == (tmp_path / "folder").stat().st_mode


@pytest.mark.skipif(WINDOWS, reason="permissions of POSIX")
def test_threads_that_write_leave_the_umask_alone(tmp_path, monkeypatch):
    def changed(mask):
        raise AssertionError("the umask is of the whole process: another thread would write with it")

    monkeypatch.setattr(os, "umask", changed)
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda k: write_whole(tmp_path / f"{k % 8}.txt", f"{k}"), range(64)))
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted({p.name for p in paths})


def test_who_reads_what_it_has_written_may_write_it_again(tmp_path):
    """The number of a file that is gone may become that of a new one, too."""
    (tmp_path / "b.txt").write_text("of somebody")
    with sources_kept():
        with whole(tmp_path / "a.txt") as temporary:
            temporary.write_text("one")
            assert read_text(temporary) == "one"
        assert read_text(tmp_path / "a.txt") == "one"
        assert write_whole(tmp_path / "a.txt", "two").read_text() == "two"
        read_text(tmp_path / "b.txt")
        with pytest.raises(FcosError, match="is read by this command"):
            write_whole(tmp_path / "b.txt", "three")


@pytest.mark.parametrize(("name", "number"), [("fsync", errno.EINVAL), ("fsync", errno.ENOSYS), ("chmod", errno.EPERM)])
def test_a_network_disk_that_refuses_the_usual_calls_is_written(tmp_path, monkeypatch, name, number):
    def refused(*_, **__):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, name, refused)
    assert write_whole(tmp_path / "a.txt", "x").read_text() == "x"


def test_a_disk_that_fails_to_keep_what_was_written_is_told(tmp_path, monkeypatch):
    def failed(_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failed)
    with pytest.raises(FcosError, match="cannot write"):
        write_whole(tmp_path / "a.txt", "x")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_file_that_the_user_knows(tmp_path):
    """Not the one it is first written to, where one writer calls another."""

    def full(path):
        raise OSError(28, "No space left on device")

    with pytest.raises(FcosError, match=r"results\.json: No space left on device"):
        write_whole(tmp_path / "results.json", lambda place: write_whole(place, full))
    assert list(tmp_path.iterdir()) == []


def test_what_openvino_and_numpy_say_of_a_full_disk_is_understood():
    assert "full" in (disk_reason(RuntimeError("basic_ios::clear: iostream error")) or "")
    assert "full" in (disk_reason(OSError("15360 requested and 8064 written")) or "")  # numpy


def _old(folder):
    for name in "abc":
        (folder / name).write_text("old")


def _write(contents):
    with whole_set():
        for path, content in contents.items():
            write_whole(path, content)


def _there(folder):
    return {path.name: path.read_text() for path in folder.iterdir() if path.is_file()}


def test_files_that_belong_together_are_all_new_or_all_old(tmp_path):
    _old(tmp_path)
    with whole_set():
        write_whole(tmp_path / "a", "new")
        with whole_set(), whole(tmp_path / "b") as path:  # a part of the set
            write_whole(path, "half")
            path.write_text("new")
        assert (tmp_path / "a").read_text() == (tmp_path / "b").read_text() == "old"
    assert _there(tmp_path) == {"a": "new", "b": "new", "c": "old"}

    def full(path):
        path.write_text("ha")
        raise OSError(28, "No space left on device")

    _old(tmp_path)
    with pytest.raises(FcosError, match=r"cannot write .*c: No space left"):
        _write({tmp_path / "a": "new", tmp_path / "new": "new", tmp_path / "c": full})
    assert _there(tmp_path) == {"a": "old", "b": "old", "c": "old"}
    write_whole(tmp_path / "a", "new")  # and the set has ended
    assert _there(tmp_path)["a"] == "new"


def test_a_folder_in_the_place_of_one_of_them_is_met_before_any_moves(tmp_path):
    _old(tmp_path)
    (tmp_path / "b").unlink()
    (tmp_path / "b").mkdir()
    with pytest.raises(FcosError, match=r"cannot write .*b: Is a directory"):
        _write({tmp_path / "a": "new", tmp_path / "b": "new"})
    assert _there(tmp_path) == {"a": "old", "c": "old"}
    assert list((tmp_path / "b").iterdir()) == []


def test_temporary_files_without_room_or_place_are_one_line_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    for error in (OSError(28, "No space left on device"), RuntimeError("basic_ios::clear: iostream error")):
        with pytest.raises(FcosError, match=r"cannot write temporary files in .*; set TMPDIR to a folder with room"):
            _fail(error)
    with pytest.raises(ValueError, match="another"):
        _fail(ValueError("another"))
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(FcosError, match=r"cannot make a temporary folder: .*; set TMPDIR"):
        _fail(ValueError())


def _fail(error):
    with scratch() as folder:
        (folder / "a").write_text("half")
        raise error


def test_a_folder_that_cannot_be_read_is_told_of(tmp_path, monkeypatch):
    """The system refuses; as root, which may read everything, that is played."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    for place in ("1.jpg", "a/2.jpg", "a/b/3.jpg"):
        (tmp_path / place).write_bytes(b"")
    real, refused = os.scandir, tmp_path / "a"

    def scandir(folder):
        if os.fspath(folder) == os.fspath(refused):
            raise PermissionError(13, "Permission denied")
        return real(folder)

    monkeypatch.setattr(os, "scandir", scandir)
    for walk in (images_below, lambda root: _walk(root, 5, 99)[0]):
        with pytest.warns(ImageWarning, match=r"a cannot be read \(Permission denied\), so what is in it is left out"):
            assert [path.name for path in walk(tmp_path)] == ["1.jpg"]
        with pytest.raises(DataError, match=r"cannot read the folder .*a: Permission denied"):
            list(walk(refused))


def test_folders_too_deep_are_told_of(tmp_path):
    """They were left out without a word: a conversion wrote half of the set."""
    deep = tmp_path.joinpath(*"abcdef", "far")
    deep.mkdir(parents=True)
    (deep / "1.jpg").write_bytes(b"")
    (tmp_path / "2.jpg").write_bytes(b"")
    assert len(_walk(tmp_path, 7, 99)[0]) == 2
    (deep.parent / "empty" / ".git").mkdir(parents=True)
    with pytest.warns(ImageWarning, match=r"1 folder more than 6 deep is not looked at: '.*far'; .* nearer to it"):
        assert [path.name for path in _walk(tmp_path, 6, 99)[0]] == ["2.jpg"]
    (deep.parent / "also").mkdir()
    (deep.parent / "also" / "3.jpg").write_bytes(b"")
    with pytest.warns(ImageWarning, match=r"2 folders more than 6 deep are not looked at: '.*', '.*'; .*them"):
        _walk(tmp_path, 6, 99)
    assert len(_walk(tmp_path, 6, 99, whole=False)[0]) == 1  # a look around asks for no more
