"""Images, annotations, weights and outputs in a store: as on disk, whatever the server does on the way."""

import contextlib
import json
import os
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from tiny import NAMES, fcos, make_shapes, tiny_config

from fcos.data.open import open_splits
from fcos.errors import DataError, FcosError, ModelError
from fcos.inference.load import load
from fcos.network import weights
from fcos.scale.job import read_job
from fcos.system import progress, remote
from fcos.system.files import write_whole
from fcos.system.readers import read_bytes
from fcos.training.output.checkpoint import load_checkpoint
from fcos.training.output.folder import RunFolder
from fcos.training.output.store import Away, begin_away
from fcos.types import Classes


def upload(client, folder, prefix):
    for path in folder.rglob("*"):
        if path.is_file():
            client.upload_file(str(path), "box", f"{prefix}/{path.relative_to(folder)}")


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(3)
    config = tiny_config(decode={"threshold": 0.0, "max_detections": 5})
    state = weights.build(config, 2).state_dict()
    return weights.save(tmp_path / "run" / "best.safetensors", state, config, Classes(NAMES, (2, 7)))


@pytest.mark.parametrize(
    ("path", "far"),
    [
        ("s3://a/b.jpg", True), ("s3:/a/b.jpg", True), ("https://x.org/a.jpg", True), ("hf://datasets/a/b", True),
        ("gs://a/b", True), ("a/b.jpg", False), ("/a:/b", False), ("s3", False), ("C:/a", False), ("ftp://a/b", False),
        ("s3:///b", False), ("", False),
    ],
)  # fmt: skip
def test_what_is_far(path, far):
    assert remote.is_remote(path) is far


def test_reading_outlasts_a_server_that_fails(store):
    faults, client = store
    content = np.random.default_rng(0).bytes(300_000)
    client.put_object(Bucket="box", Key="a/b.bin", Body=content)
    for plan in (["500", "500"], ["cut"], ["slow"], ["cut", "500"], []):
        faults.plan = list(plan)
        assert read_bytes("s3://box/a/b.bin") == content
        assert not faults.plan
    with pytest.raises(DataError, match="larger than 0 MB"):
        read_bytes("s3://box/a/b.bin", 1000, DataError)
    faults.plan = ["500"] * 30
    with pytest.raises(DataError, match=r"cannot read s3://box/a/b.bin: .*\(tried 5 times\)"):
        read_bytes("s3://box/a/b.bin", kind=DataError)
    faults.plan = []
    with pytest.raises(DataError, match=r"cannot read s3://box/no.bin: there is no such file"):
        read_bytes("s3://box/no.bin", kind=DataError)


def test_a_web_server_gives_files_and_outlasts_the_same_faults(store, model, capsys):
    """moto's server gives what is in a bucket to whoever asks, as a plain web server does."""
    faults, client = store
    pixels = np.random.default_rng(4).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = cv2.imencode(".png", pixels)[1].tobytes()
    client.put_object(Bucket="box", Key="web/a.png", Body=content, ACL="public-read")
    client.upload_file(str(model), "box", "web/tiny.safetensors", ExtraArgs={"ACL": "public-read"})
    web = f"{os.environ['AWS_ENDPOINT_URL']}/box/web"
    for plan in (["500", "500"], ["cut"], ["slow"], []):
        faults.plan = list(plan)
        assert read_bytes(f"{web}/a.png") == content
        assert not faults.plan
    with pytest.raises(DataError, match=rf"cannot read {web}/no.png: there is no such file"):
        read_bytes(f"{web}/no.png", kind=DataError)
    faults.plan = ["500"] * 40
    with pytest.raises(DataError, match=r"\(tried 5 times\)"):
        read_bytes(f"{web}/a.png", kind=DataError)
    faults.plan = []
    with pytest.raises(DataError, match="larger than 0 MB"):
        read_bytes(f"{web}/a.png", 1000, DataError)
    assert remote.local(f"{web}/a.png").read_bytes() == content
    here = model.parent / "a.png"
    here.write_bytes(content)
    told = []
    for image, weight in ((f"{web}/a.png", f"{web}/tiny.safetensors"), (here, model)):
        code, out, err = fcos(capsys, "predict", image, "--model", weight, "--json", "--score", "0")
        assert code == 0, err
        told.append(json.loads(out)["detections"])
    assert told[0] == told[1] != []


def test_a_web_server_that_sends_for_ever_is_left_at_the_limit():
    sent = 0

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self):  # the name that http.server calls
            nonlocal sent
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while sent < 400:
                    self.wfile.write(bytes(1 << 20))
                    sent += 1

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Endless)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(DataError, match="larger than 8 MB"):
            read_bytes(f"http://127.0.0.1:{server.server_address[1]}/a.jpg", 8 << 20, DataError)
        assert sent < 100
    finally:
        server.shutdown()
        server.server_close()


def test_a_copy_is_fetched_once_and_again_when_it_changes(store, monkeypatch):
    faults, client = store
    monkeypatch.setattr(remote, "_CHUNK", 1000)
    one, two = np.random.default_rng(0).bytes(4500), np.random.default_rng(1).bytes(2500)
    client.put_object(Bucket="box", Key="copy.bin", Body=one)
    faults.plan = ["ok", "ok", "ok", "cut", "ok", "500"]
    place = remote.local("s3://box/copy.bin")
    assert place.read_bytes() == one
    before = place.stat().st_mtime_ns
    assert remote.local("s3://box/copy.bin").stat().st_mtime_ns == before
    client.put_object(Bucket="box", Key="copy.bin", Body=two)
    assert remote.local("s3://box/copy.bin").read_bytes() == two
    assert not list(place.parent.glob(".fetching-*"))


class Web(SimpleHTTPRequestHandler):
    """A plain web server, which tells when a file changed unless `silent`. It has no ETag."""

    silent = False

    def log_message(self, *_):
        pass

    def send_header(self, keyword, value):
        if not (self.silent and keyword == "Last-Modified"):
            super().send_header(keyword, value)


def test_a_list_that_a_store_has_given_is_not_given_again(monkeypatch, tmp_path):
    """fsspec's file systems remember lists, for as long as the process lives."""

    class Remembering:
        seen: ClassVar[dict[str, list[str]]] = {}

        def find(self, path, detail=False, **_):
            if path not in self.seen:
                self.seen[path] = sorted(str(p) for p in tmp_path.iterdir())
            return {f"hf://{p}": {"etag": Path(p).read_text(), "size": 1} for p in self.seen[path]}

        def invalidate_cache(self, path=None):
            self.seen.clear()

    monkeypatch.setattr(remote, "_files", lambda url: Remembering())
    for count in (1, 2):
        (tmp_path / f"{count}.txt").write_text("a")
        assert len(list(remote.below("hf://datasets/o/n"))) == count


def test_what_is_found_behind_an_address_is_called_by_it(tmp_path, model, capsys):
    pytest.importorskip("aiohttp")
    Image.fromarray(np.random.default_rng(4).integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Web, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        web, out = f"http://127.0.0.1:{server.server_address[1]}", tmp_path / "found.json"
        detector = load(model, device="cpu", runtime="torch")
        assert detector(f"{web}/a.png").source == detector(Path(f"{web}/a.png")).source == f"{web}/a.png"
        words = ("--model", model, "--score", "0", "--csv", out.with_suffix(".csv"), "--coco", out)
        code, lines, err = fcos(capsys, "predict", f"{web}/a.png", f"{web}/no.png", *words)
        server.shutdown()
    assert code == 1
    assert f"cannot read {web}/no.png: there is no such file" in err
    assert lines.startswith(f"{web}/a.png ")
    assert json.loads(out.with_suffix(".images.json").read_text())["images"][0]["file_name"] == f"{web}/a.png"
    assert out.with_suffix(".csv").read_text().splitlines()[1].startswith(f"{web}/a.png,")


@pytest.mark.parametrize("silent", [False, True])
def test_a_web_file_that_keeps_its_size_is_fetched_when_it_changes(silent, tmp_path, monkeypatch):
    pytest.importorskip("aiohttp")
    monkeypatch.setattr(Web, "silent", silent)
    file = tmp_path / "a.bin"
    file.write_bytes(b"one")
    os.utime(file, (1e9, 1e9))
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Web, directory=tmp_path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}/a.bin"
        place = remote.local(url)
        assert place.read_bytes() == b"one"
        kept = place.stat().st_ino, place.stat().st_mtime_ns
        again = remote.local(url).stat()
        assert (
            (again.st_ino, again.st_mtime_ns) == kept
        ) is not silent  # without a version nothing says it is the same
        file.write_bytes(b"two")
        os.utime(file, (1e9 + 60, 1e9 + 60))
        assert remote.local(url).read_bytes() == b"two"
        server.shutdown()


class Store:
    """A file system of fsspec with the folder s3://box/d: for each name what `info` says beside the size, and its
    bytes. `asked`: names of files that were read; `looked`: of those of which `info` was asked."""

    def __init__(self, files):
        self.files = files
        self.asked = []
        self.looked = []

    def invalidate_cache(self):
        """It remembers nothing."""

    def isfile(self, url):
        return url.rpartition("/")[2] in self.files

    def find(self, url, detail):
        return {f"{url}/{name}": self._about(name) for name in self.files}

    def info(self, url):
        self.looked.append(url.rpartition("/")[2])
        return self._about(self.looked[-1])

    def _about(self, name):
        about, data = self.files[name]
        return {"size": len(data), "type": "file", **about}

    def cat_file(self, url, start=0, end=None):
        self.asked.append(url.rpartition("/")[2])
        return self.files[url.rpartition("/")[2]][1][start:end]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"blob_id": "1", "xet_hash": None, "last_commit": None}, {"blob_id": "2", "xet_hash": None}),
        ({"blob_id": "1", "xet_hash": "x"}, {"blob_id": "1", "xet_hash": "y"}),
        ({"ETag": "", "LastModified": "1"}, {"ETag": "", "LastModified": "2"}),
        ({"etag": "1", "mtime": "0"}, {"etag": "2", "mtime": "0"}),
        ({"Content-MD5": "1"}, {"Content-MD5": "2"}),
    ],
)
def test_every_store_tells_of_a_change_in_its_own_way(before, after, monkeypatch):
    store = Store({"a": (before, b"one")})
    monkeypatch.setattr(remote, "_files", lambda url: store)
    assert [remote.local("hf://datasets/me/d/a").read_bytes() for _ in range(2)] == [b"one"] * 2
    assert store.asked == ["a"]
    store.files["a"] = (after, b"two")
    assert remote.local("hf://datasets/me/d/a").read_bytes() == b"two"
    assert store.asked == ["a"] * 2


def test_a_folder_that_is_here_takes_one_list(monkeypatch, capsys):
    """Those that have changed are fetched; the store is asked of those of which no list tells, with a bar."""
    store = Store({name: ({"ETag": "1"}, name.encode()) for name in "abc"} | {"web": ({}, b"web")})
    monkeypatch.setattr(remote, "_files", lambda url: store)
    monkeypatch.setattr(progress, "PLAIN_SECONDS", 0.0)
    place = remote.local("s3://box/d")
    assert "fetching s3://box/d 4/4" in capsys.readouterr().err
    store.looked.clear()
    store.asked.clear()
    store.files["b"] = ({"ETag": "2"}, b"new")
    remote.local("s3://box/d")
    assert (store.looked, sorted(store.asked)) == (["web"], ["b", "web"])
    assert (place / "b").read_bytes() == b"new"
    del store.files["web"]
    capsys.readouterr()
    store.looked.clear()
    assert remote.local("s3://box/d") == place
    assert (store.looked, capsys.readouterr().err) == ([], "")


def test_a_folder_that_another_process_fetches_too(monkeypatch):
    """What it has half fetched stays; what one that was killed left hours ago goes, as does what is gone there."""
    store = Store({"a": ({"ETag": "1"}, b"one"), "b": ({"ETag": "1"}, b"two")})
    monkeypatch.setattr(remote, "_files", lambda url: store)
    place = remote.local("s3://box/d")
    theirs, old = place / ".fetching-theirs", place / ".fetching-old"
    theirs.touch()
    old.touch()
    os.utime(old, (1e9, 1e9))
    del store.files["b"]
    assert remote.local("s3://box/d") == place
    assert sorted(p.name for p in place.iterdir() if "stamp" not in p.name) == [".fetching-theirs", "a"]


def test_a_copy_that_cannot_be_kept_is_one_line(monkeypatch):
    store = Store({"a": ({"ETag": "1"}, b"one")})
    monkeypatch.setattr(remote, "_files", lambda url: store)
    place = remote.place_of("s3://box/d/a")
    place.mkdir(parents=True)
    (place / "x").touch()
    with pytest.raises(DataError, match=r"^cannot keep a copy of s3://box/d/a in .*: is a directory$"):
        remote.local("s3://box/d/a", DataError)


def test_what_is_written_appears_whole_or_not_at_all(store):
    faults, client = store
    content = np.random.default_rng(2).bytes(100_000)
    faults.plan = ["500", "ok", "cut"]
    write_whole("s3://box/out/x.bin", content)
    assert client.get_object(Bucket="box", Key="out/x.bin")["Body"].read() == content
    faults.plan = ["500"] * 40
    with pytest.raises(FcosError, match=r"cannot write s3://box/out/y.bin"):
        write_whole("s3://box/out/y.bin", content)
    faults.plan = []
    keys = [entry["Key"] for entry in client.list_objects_v2(Bucket="box", Prefix="out/")["Contents"]]
    assert keys == ["out/x.bin"]
    with pytest.raises(RuntimeError, match="half way"):
        write_whole("s3://box/out/x.bin", _fails)
    assert client.get_object(Bucket="box", Key="out/x.bin")["Body"].read() == content
    with pytest.raises(FcosError, match="a web server only gives files"):
        write_whole("http://127.0.0.1:1/x.bin", b"x")


def _fails(path):
    path.write_bytes(b"half")
    raise RuntimeError("half way")


class Shaky:
    """A store that answers as it is told: `parts` are the first answers to a read, `sizes` to the size of a file."""

    def __init__(self, content=b"", parts=(), sizes=()):
        self.content, self.parts, self.sizes = content, list(parts), list(sizes)

    def cat_file(self, url, start=0, end=None):
        return self.parts.pop(0) if self.parts else self.content[start:end]

    def put_file(self, source, url):
        self.content = Path(source).read_bytes()

    def info(self, url):
        return {"size": self.sizes.pop(0) if self.sizes else len(self.content), "ETag": "1"}

    def isfile(self, url):
        return True

    def invalidate_cache(self):
        pass


def test_half_an_answer_is_no_file(monkeypatch, tmp_path):
    """Whatever a store sends: what came short is asked for again, and what is too long is refused and not cut."""
    monkeypatch.setattr(remote, "_CHUNK", 4)
    store = Shaky(b"0123456789", parts=[b"01", b"", b"0123"])
    monkeypatch.setattr(remote, "_files", lambda url: store)
    assert remote.local("s3://box/a.bin").read_bytes() == b"0123456789"
    assert remote.read("s3://box/a.bin", 10) == b"0123456789"
    with pytest.raises(DataError, match="larger than"):
        remote.read("s3://box/a.bin", 9, DataError)
    (tmp_path / "b").write_bytes(b"abc")
    store.sizes = [2, 0]
    remote.put(tmp_path / "b", "s3://box/b")
    assert not store.sizes
    store.sizes = [2] * 99
    with pytest.raises(FcosError, match=r"cannot write s3://box/b: 2 of 3 bytes arrived \(tried 5 times\)"):
        remote.put(tmp_path / "b", "s3://box/b")


def test_without_permission_the_line_says_where_credentials_come_from(monkeypatch):
    def once():
        raise PermissionError("Forbidden")

    with pytest.raises(FcosError, match="no permission; credentials come from AWS_ACCESS_KEY_ID"):
        remote._trying(once, "read s3://box/a", FcosError, "s3://box/a")


def test_a_server_cannot_lead_out_of_the_cache():
    with pytest.raises(FcosError, match="leads out"):
        remote._inside("s3://box/data/../../etc/passwd", "s3://box/data", FcosError)


def test_weights_and_data_sets_from_a_store(store, model, tmp_path):
    faults, client = store
    data = make_shapes(tmp_path / "shapes", {"train": 3, "val": 2})
    upload(client, data, "shapes")
    upload(client, model.parent, "runs/mine")
    faults.plan = ["ok", "500", "ok", "cut"]
    there = load("s3://box/runs/mine", device="cpu")
    for a, b in zip(there.network.parameters(), load(model, device="cpu").network.parameters(), strict=True):
        assert torch.equal(a, b)
    near, far = open_splits(data), open_splits("s3://box/shapes")
    assert near.keys() == far.keys()
    for split, mine in near.items():
        for a, b in zip(mine.records, far[split].records, strict=True):
            assert (a.id, a.size, a.file_name) == (b.id, b.size, b.file_name)
            assert np.array_equal(a.boxes, b.boxes)
            assert a.path is not None
            assert b.path is not None
            assert a.path.read_bytes() == b.path.read_bytes()
    with pytest.raises(ModelError, match=r"no model file s3://box/runs"):
        load("s3://box/runs", device="cpu")


def test_predict_reads_from_a_store_and_writes_into_it(store, model, tmp_path, capsys):
    faults, client = store
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(pictures / f"{i}.png")
    (pictures / "6.png").write_bytes(b"no image")
    upload(client, pictures, "pictures")
    upload(client, model.parent, "runs/other")
    shared = ["--model", model, "--score", "0", "--engine", "local", "--parts", "jsonl"]
    assert fcos(capsys, "predict", pictures, *shared, "--out", tmp_path / "near")[0] == 1
    faults.plan = ["ok"] * 12 + ["500", "ok", "cut", "slow", "ok", "500", "500", "ok"]
    job = ["predict", "s3://box/pictures", *shared, "--out", "s3://box/rows"]
    code, _, err = fcos(capsys, *job)
    assert code == 1, err
    assert "7 images: s3://box/rows/parts" in err
    assert not faults.plan

    def by_name(folder):
        opened = read_job(folder)
        assert opened is not None
        return {
            row["path"].rpartition("/")[2]: {**row, "path": "", "error": bool(row["error"])} for row in opened.rows()
        }

    assert by_name(Path("s3://box/rows")) == by_name(tmp_path / "near")
    client.delete_object(Bucket="box", Key="rows/parts/part-00000002.jsonl")
    code, _, err = fcos(capsys, *job, "--resume")
    assert code == 1
    assert "6 of them done before" in err
    assert by_name(Path("s3://box/rows")) == by_name(tmp_path / "near")


def test_a_run_with_folders_in_it_is_uploaded_file_by_file(tmp_path, monkeypatch):
    """TensorBoard and trackio write into a folder of the run."""
    for name in ("config.yaml", "tensorboard/events.1", "trackio/media/a.png", "run.lock"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    sent, gone = {}, []
    monkeypatch.setattr(remote, "put", lambda source, url: sent.update({url: source.read_text()}))
    monkeypatch.setattr(remote, "remove", gone.append)
    away = Away(tmp_path, "s3://box/run")
    away.push()
    names = ("config.yaml", "tensorboard/events.1", "trackio/media/a.png")
    assert sent == {f"s3://box/run/{name}": name for name in names}
    (tmp_path / "tensorboard" / "events.2").write_text("more")
    (tmp_path / "config.yaml").unlink()
    sent.clear()
    away.push()
    assert sent == {"s3://box/run/tensorboard/events.2": "more"}
    assert gone == ["s3://box/run/config.yaml"]


def test_a_resume_leaves_the_folder_of_a_run_that_works_there_alone(store, tmp_path, monkeypatch):
    """Nothing is fetched or removed; once it has ended, what it had no time to upload stays, and is uploaded."""
    _, client = store
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "cache"))
    for name in ("config.yaml", "checkpoint-00000004.pt"):
        client.put_object(Bucket="box", Key=f"runs/working/{name}", Body=name.encode())
    folder = remote.place_of("s3://box/runs/working")
    running = RunFolder(folder)
    running.hold()
    mine = ("checkpoint-00000002.pt", "checkpoint-00000099.pt", ".writing-abcd.pt", "old.png", "config.yaml")
    for name in mine:
        (folder / name).write_text("newer")
    with pytest.raises(FcosError, match="another run is writing into"):
        begin_away("s3://box/runs/working", resume=True)
    assert {p.name for p in folder.iterdir()} == {*mine, "run.lock"}
    assert (folder / "config.yaml").read_text() == "newer"
    running.release()
    assert begin_away("s3://box/runs/working", resume=True) == folder
    kept = {p.name for p in folder.iterdir() if not p.name.endswith(".fcos-stamp")}
    assert kept == {"config.yaml", "checkpoint-00000004.pt", "checkpoint-00000099.pt", ".writing-abcd.pt"}
    away = Away(folder, "s3://box/runs/working")
    away.known()
    away.push()
    assert remote.names("s3://box/runs/working") == ["checkpoint-00000004.pt", "checkpoint-00000099.pt", "config.yaml"]


def test_a_new_run_does_not_empty_the_folder_of_one_that_has_uploaded_nothing(store, tmp_path, monkeypatch):
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "cache"))
    running = RunFolder(remote.place_of("s3://box/runs/new"))
    running.hold()
    with pytest.raises(FcosError, match="another run is writing into"):
        begin_away("s3://box/runs/new", resume=False)
    assert (running.path / "run.lock").is_file()
    running.release()
    assert not list(begin_away("s3://box/runs/new", resume=False).glob("*"))


@pytest.mark.slow
def test_a_run_in_a_store_goes_on_on_another_machine(store, tmp_path, capsys, monkeypatch):
    """Its folder is uploaded after each checkpoint; what resumes from there ends in the bits of a run on a disk."""
    faults, _ = store
    data = make_shapes(tmp_path / "shapes", {"train": 8, "val": 2})
    settings = tmp_path / "tiny.yaml"
    changes = {"ema": 0.9, "epochs": 2, "schedule": "constant", "warmup": 0, "log_every": 1, "plots": False}
    settings.write_text(tiny_config(data={"color": 0.3, "workers": 0}, train=changes).dump())
    begin = ["train", data, "--config", settings, "--init", "none", "--device", "cpu", "--quiet"]
    assert fcos(capsys, *begin, "--out", tmp_path / "disk")[0] == 0
    faults.plan = ["500", "ok", "cut", "ok", "500", "500", "slow"]
    code, _, err = fcos(capsys, *begin, "--epochs", 1, "--out", "s3://box/runs/mine")
    assert (code, err) == (0, "")
    assert not faults.plan

    def there():
        return {name for name in remote.names("s3://box/runs/mine") if name.startswith("checkpoint")}

    assert there() == {"checkpoint-00000002.pt"}
    code, _, err = fcos(capsys, *begin, "--out", "s3://box/runs/mine")
    assert code == 2
    assert "s3://box/runs/mine holds a run already" in err
    monkeypatch.setenv("FCOS_CACHE", str(tmp_path / "another machine"))
    assert fcos(capsys, "train", "--resume", "--out", "s3://box/runs/none")[0] == 2
    code, _, err = fcos(
        capsys, "train", "--resume", "--out", "s3://box/runs/mine", "--epochs", 2, "--device", "cpu", "--quiet"
    )
    assert (code, err) == (0, "")
    assert there() == {"checkpoint-00000004.pt"}
    ours, theirs = load_checkpoint(remote.local("s3://box/runs/mine")), load_checkpoint(tmp_path / "disk")
    for part in ("model", "average"):
        assert all(torch.equal(ours[part][key], value) for key, value in theirs[part].items())
    rows = [read_bytes(f"{place}/metrics.csv").count(b"\n") for place in ("s3://box/runs/mine", tmp_path / "disk")]
    assert rows[0] == rows[1] > 4
    assert weights.read(remote.local("s3://box/runs/mine/last.safetensors"))[3]["step"] == 4
