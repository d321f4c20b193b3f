"""The readers of everything from outside: what they take, what they refuse, and that nothing else comes out."""

import gzip
import json
import math
import os
import socket
import zipfile
from xml.etree import ElementTree

import pytest
import yaml

from fcos.errors import DataError, ImageError
from fcos.system.core_yaml import dump_yaml, parse_yaml, read_yaml
from fcos.system.readers import check_archive, parse_json, read_bytes, read_json, read_lines, read_text, read_xml

READERS = (read_bytes, read_text, read_lines, read_json, read_yaml, read_xml)


def refused(read, *arguments, **options):
    """The line with which `read` refuses."""
    with pytest.raises(DataError) as error:
        read(*arguments, kind=DataError, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="there is no /proc here")
def test_a_file_without_a_size_is_read_whole_or_refused():
    """Those of /proc say 0: what is longer than the limit is not cut to it."""
    whole = read_bytes("/proc/version")
    assert read_bytes("/proc/version", len(whole)) == whole
    assert "over the limit" in refused(read_bytes, "/proc/version", len(whole) - 1)


def test_a_checkpoint_that_unpacks_to_much_more_than_it_is_is_refused(tmp_path):
    """Those of torch are not packed; what is no archive its own reader judges."""
    for name, packed, size in (("bomb", zipfile.ZIP_DEFLATED, 66), ("plain", zipfile.ZIP_STORED, 1)):
        with zipfile.ZipFile(tmp_path / name, "w", packed, compresslevel=1) as archive:
            archive.writestr("data.pkl", bytes(size << 20))
    with pytest.raises(DataError, match=r"it unpacks to 69\.2 MB"):
        check_archive(tmp_path / "bomb", DataError)
    check_archive(tmp_path / "plain", DataError)
    (tmp_path / "none").write_bytes(b"PK and nothing else")
    check_archive(tmp_path / "none", DataError)


@pytest.mark.parametrize("read", READERS)
def test_only_regular_files_are_read(tmp_path, monkeypatch, read):
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "sparse", "wb") as file:
        file.truncate(8 << 30)
    with socket.socket(socket.AF_UNIX) as server:
        monkeypatch.chdir(tmp_path)  # the path of a socket must be short
        server.bind("socket")
        assert "no such device" in refused(read, tmp_path / "socket")
    assert "it is a pipe" in refused(read, tmp_path / "pipe")
    assert "it is a device" in refused(read, "/dev/zero")
    assert "8.6 GB is over the limit" in refused(read, tmp_path / "sparse")
    assert "no such file" in refused(read, tmp_path / "none")
    assert "directory" in refused(read, tmp_path)
    for name in ("a\0b", "\ud800"):
        assert "no file can have this name" in refused(read, name)


@pytest.mark.parametrize("read", READERS)
def test_the_nearest_name_is_offered_but_not_for_images_which_may_be_thousands(tmp_path, read):
    (tmp_path / "baseline.json").touch()
    assert refused(read, tmp_path / "basline.json").endswith(f"; did you mean {tmp_path / 'baseline.json'}?")
    assert refused(read, tmp_path / "other.txt").endswith("no such file or directory")
    (tmp_path / "link.json").symlink_to("gone.json")
    assert refused(read, tmp_path / "link.json").endswith("no such file or directory")
    with pytest.raises(ImageError, match=r"no such file or directory$"):
        read(tmp_path / "basline.json", kind=ImageError)


def test_the_limit_can_be_raised(tmp_path, monkeypatch):
    file = tmp_path / "large.txt"
    file.write_text("x" * 100)
    assert "FCOS_MAX_MB" in refused(read_text, file, limit=99)
    monkeypatch.setenv("FCOS_MAX_MB", "1")
    assert len(read_text(file, limit=99)) == 100
    monkeypatch.setenv("FCOS_MAX_MB", " 1\n")
    assert len(read_text(file, limit=99)) == 100
    for given in ("²", "1.5", "300MB", "9" * 5000):
        monkeypatch.setenv("FCOS_MAX_MB", given)
        told = refused(read_text, file, limit=99)
        assert "over the limit" in told
        assert "set FCOS_MAX_MB to a whole number ('" in told


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_text_in_any_unicode(tmp_path, encoding):
    text = "Größe\u2028 \x85日本\n\tb\r\nc\n"
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))
    assert read_text(tmp_path / "a.txt") == text
    assert read_lines(tmp_path / "a.txt") == ["Größe\u2028 \x85日本", "\tb", "c"]


@pytest.mark.parametrize("data", ["Größe".encode("latin-1"), b"\xff\xfea", b"\xef\xbb\xbf\xff", b"\xed\xa0\x80"])
def test_what_is_no_text_is_named(tmp_path, data):
    (tmp_path / "a.txt").write_bytes(data)
    line = refused(read_text, tmp_path / "a.txt")
    assert "a.txt" in line
    assert "save it as UTF-8" in line


VALUES = [None, True, 0, -1.5, 1e308, "a\u2028\x00ü", [], {}, {"a": [{"b": []}, 10**300]}]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_json_is_what_pythons_own_reads(tmp_path, value, encoding):
    (tmp_path / "a.json").write_bytes(json.dumps(value, ensure_ascii=False).encode(encoding))
    assert read_json(tmp_path / "a.json") == value
    (tmp_path / "a.json.gz").write_bytes(gzip.compress((tmp_path / "a.json").read_bytes()))
    assert read_json(tmp_path / "a.json.gz") == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[" * 100_000, "deeper than 200"),
        ("[" * 300 + "]" * 300, "deeper than 200"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "deeper than 200"),
        ("1e999", "too large"),
        ("[1, -1E+400]", "too large"),
        ("1" * 400, "too large"),
        ("1" * 5000, "out of range"),
        ("NaN", "expected value"),
        ('["\\ud800"]', "text that is not UTF-8"),
        ('["a\nb"]', "control character"),
        ("²", "expected value"),
        ("[1,]", "trailing comma"),
        ("", "EOF"),
        ("{} {}", "trailing characters"),
    ],
)
def test_json_that_is_refused(tmp_path, text, reason):
    (tmp_path / "a.json").write_text(text)
    line = refused(read_json, tmp_path / "a.json")
    assert "a.json is not JSON" in line
    assert reason in line
    assert reason in refused(parse_json, text, "a.json")


def test_nan_in_json_by_choice_only():
    assert math.isnan(parse_json("NaN", "a", nan=True))
    assert parse_json("[-Infinity, 2]", "a", nan=True) == [-math.inf, 2]
    assert "too large" in refused(parse_json, "[1e999]", "a", nan=True)
    assert parse_json('{"0e000.jpg": "1e999"}', "a") == {"0e000.jpg": "1e999"}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (gzip.compress(b"0" * (100 << 20)), "over the limit of 64 MB"),
        (gzip.compress(gzip.compress(b"[1]")), "is not JSON"),
        (gzip.compress(b"[1, 2]" * 99)[:-12], "cut short"),
        (gzip.compress(b"[1]") + b"\x1f\x8bxxxxxxxxxxxx", "cannot be unpacked"),
        (b"\x1f\x8b", "cut short"),
    ],
    ids=["large", "twice", "cut", "trailing", "head"],  # the bytes hold the time, and workers must agree on names
)
def test_packed_json_that_is_refused(tmp_path, data, reason):
    (tmp_path / "a.json.gz").write_bytes(data)
    assert reason in refused(read_json, tmp_path / "a.json.gz")


def test_packed_json_in_several_members(tmp_path):
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b"[1,") + gzip.compress(b"2]"))
    assert read_json(tmp_path / "a.json.gz") == [1, 2]


@pytest.mark.parametrize("value", [*VALUES[:-1], {"a": [{"b": []}, 1]}, {1: "x", "y": {-2.5: None}}])
@pytest.mark.parametrize("flow", [True, False, None])
def test_yaml_is_what_pyyaml_wrote(value, flow):
    assert parse_yaml(yaml.safe_dump(value, default_flow_style=flow), "a.yaml") == value


TEXTS = (
    "1e5", "0o17", "no", "2024-01-01", "010", "1.5", "1_000", "~", "", "1:30", "a: b", "a\nb", "a\x85\u2028b", "<<",
    "=", ".nan", "\x00\x07", " x ", "+.5", "\ufeffx", "*a", "# a", "- a",
)  # fmt: skip


@pytest.mark.parametrize("text", TEXTS)
def test_yaml_keeps_every_text(text):
    for value in (text, [text], {text: text}, {"a": [text, 1e-5, 1e300, 5, None, True]}):
        assert parse_yaml(dump_yaml(value), "a.yaml") == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[yes, no, on, 2024-01-01, 1:30, 010, 1_000]", ["yes", "no", "on", "2024-01-01", "1:30", "010", "1_000"]),
        ("[1e-4, 1., .5, +3, 0x1F, 0o17, -0]", [1e-4, 1.0, 0.5, 3, 31, 15, 0]),
        ("{a: !!float 3, b: !!str 3, c: '3', d: ! 3}", {"a": 3.0, "b": "3", "c": "3", "d": "3"}),
        ("a: &x [1, 2]\nb: *x", {"a": [1, 2], "b": [1, 2]}),
        ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}", {"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}),
        ("", None),
        ("names: [no, 1.10, null, 007, true]\nnc: 5", {"names": ["no", "1.10", "null", "007", "true"], "nc": 5}),
        ("names: {0: 1e3, 01: 2}", {"names": {0: "1e3", "01": "2"}}),
    ],
)
def test_yaml_is_text_and_numbers(text, value):
    read = parse_yaml(text, "a.yaml", as_written=("names",))
    assert read == value
    assert repr(read) == repr(value)


LAUGHS = "\n".join(f"k{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" if i else "k0: &a0 [1]" for i in range(12))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (LAUGHS, "more than 1,000,000 values"),
        ("&a [*a]", "nothing to stand for"),
        ("a: *b", "nothing to stand for"),
        ("[" * 5000, "deeper than 100"),
        ("{a: " * 200, "deeper than 100"),
        ("\n".join("  " * i + "a:" for i in range(150)), "deeper than 100"),
        ("!!python/object/apply:os.system [true]", "is not read"),
        ("a: !!binary aGk=", "is not read"),
        ("a: !!set {x}", "is not read"),
        ("a: !!timestamp 2024-01-01", "is not read"),
        ("a: !!int x", "is no int"),
        ("a: .nan", "no finite number"),
        ("a: -.inf", "no finite number"),
        ("a: 1e999", "too large"),
        (f"a: {'1' * 400}", "too large"),
        ("a: 1\na: 2", "appears twice"),
        ("[1]: 2", "a key must be"),
        ("null: 2", "a key must be"),
        ("--- 1\n--- 2", "more than one document"),
        ("a: 'b", "end of stream"),
        ("a: \x00", "not YAML"),
        ("a: [", "not YAML"),
    ],
)
def test_yaml_that_is_refused(tmp_path, text, reason):
    (tmp_path / "a.yaml").write_text(text)
    line = refused(read_yaml, tmp_path / "a.yaml")
    assert "a.yaml" in line
    assert reason in line


def test_xml_is_what_elementtree_reads(tmp_path):
    text = '<a k="1"><b> x &amp; y </b><!-- c --><c/>tail<![CDATA[<d>]]></a>'
    (tmp_path / "a.xml").write_text(text)
    assert ElementTree.tostring(read_xml(tmp_path / "a.xml")) == ElementTree.tostring(ElementTree.fromstring(text))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1251", "koi8-r"])
def test_xml_in_any_encoding(tmp_path, encoding):
    name = "Größe" if encoding in ("latin-1",) else "кот"
    declared = encoding.removesuffix("-sig").removesuffix("-le")
    (tmp_path / "a.xml").write_bytes(f'<?xml version="1.0" encoding="{declared}"?><a>{name}</a>'.encode(encoding))
    assert read_xml(tmp_path / "a.xml").text == name


@pytest.mark.parametrize("encoding", ["shift_jis", "gb18030", "big5", "euc_kr", "euc-jp"])
def test_xml_in_encodings_of_many_bytes(tmp_path, encoding):
    (tmp_path / "a.xml").write_bytes(f"<?xml version='1.0' encoding='{encoding}'?><a>日本</a>".encode(encoding))
    assert read_xml(tmp_path / "a.xml").text == "日本"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'<!DOCTYPE a [<!ENTITY x "y">]><a>&x;</a>', "document type"),
        (b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>', "document type"),
        (b"<a>&x;</a>", "undefined entity"),
        (b"<a>" * 5000 + b"</a>" * 5000, "deeper than 100"),
        (b"<a>", "no element found"),
        (b"", "no element found"),
        (b"<a>\xff</a>", "not text in UTF-8"),
        (b'<?xml version="1.0" encoding="base64"?><a/>', "is not known"),
        (b'<?xml version="1.0" encoding="klingon"?><a/>', "is not known"),
        (b'<?xml version="1.0" encoding="utf-16"?><a/>', "not text in UTF-16"),
        (b'<?xml version="1.0" encoding="utf-7"?><a>+2AA-</a>', "is not XML"),
    ],
)
def test_xml_that_is_refused(tmp_path, data, reason):
    (tmp_path / "a.xml").write_bytes(data)
    line = refused(read_xml, tmp_path / "a.xml")
    assert "a.xml" in line
    assert reason in line
