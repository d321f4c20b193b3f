import io
import re
import struct
import subprocess
import sys
import warnings
import zlib
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageOps, TiffImagePlugin

from fcos.data.images import gif, reading
from fcos.data.images.jpeg import Header, parse_jpeg
from fcos.data.images.reading import (
    image_header,
    image_size,
    load_image,
    read_image,
    resize,
    resized_shape,
    turn_boxes,
    turn_image,
)
from fcos.errors import DarkImage, ImageError, ImageWarning


def scene(height=48, width=80):
    """Smooth colours with every corner different, so that a wrong turn shows."""
    y, x = np.mgrid[:height, :width]
    return np.stack((255 * x / width, 255 * y / height, 128 + 0 * x), axis=2).astype(np.uint8)


def encoded(image, form, **options):
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def marked(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_as_pillow_shows_it(form, orientation, tmp_path):
    options = {"quality": 95} if form in ("JPEG", "WEBP") else {}
    data = encoded(Image.fromarray(scene()), form, exif=marked(orientation), **options)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
    np.testing.assert_array_equal(read_image(data), expected)
    path = tmp_path / f"image.{form.lower()}"
    path.write_bytes(data)
    assert image_size(path) == expected.shape[:2]
    assert image_header(path).orientation == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_the_image(orientation):
    stored = np.zeros((20, 30), dtype=np.uint8)
    stored[3:9, 4:17] = 1
    shown = turn_image(stored, orientation)
    x1, y1, x2, y2 = turn_boxes(np.array([[4.0, 3.0, 17.0, 9.0]]), orientation, shown.shape)[0].astype(int)
    rows, columns = np.nonzero(shown)
    assert (x1, y1, x2, y2) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGB"])
@pytest.mark.parametrize("form", ["PNG", "GIF", "TIFF", "BMP"])
def test_plain_modes_equal_pillow(mode, form):
    image = Image.fromarray(scene()).convert(mode)
    data = encoded(image, form)
    np.testing.assert_array_equal(read_image(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_grey_jpeg_has_three_equal_channels():
    pixels = read_image(encoded(Image.fromarray(scene()).convert("L"), "JPEG"))
    assert pixels.shape == (48, 80, 3)
    assert (pixels[..., 0] == pixels[..., 2]).all()


def test_cmyk_jpeg_looks_like_its_rgb_original():
    data = encoded(Image.fromarray(scene()).convert("CMYK"), "JPEG", quality=95)
    assert np.abs(read_image(data).astype(int) - scene()).mean() < 3


def test_sixteen_bits_are_scaled_by_a_fixed_factor():
    values = np.array([[0, 257, 128 * 257, 65535]], dtype=np.uint16)
    for form in ("PNG", "TIFF"):
        assert read_image(encoded(Image.fromarray(values), form))[0, :, 0].tolist() == [0, 1, 128, 255]


def twelve_bits(values):
    """A TIFF [H,W] of 12 bits, two pixels in three bytes, which Pillow reads and does not write."""
    first, second = values.reshape(-1, 2).T
    parts = (first >> 4, (first & 15) << 4 | second >> 8, second & 255)
    pixels = np.stack(parts, axis=1).astype(np.uint8).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(pixels)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = struct.pack("<2sHI", b"II", 42, 8 + len(pixels))
    return head + pixels + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_twelve_bits_of_a_tiff_that_says_so_have_their_brightness():
    values = np.array([[0, 16, 2048, 4095]])
    assert read_image(twelve_bits(values))[0, :, 0].tolist() == [0, 1, 128, 255]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(twelve_bits(values // 8))[0, :, 0].max() == 32  # dark, and no other bits are meant


@pytest.mark.parametrize(("bits", "seen"), [(14, "dark"), (12, "nearly black"), (10, "nearly black")])
def test_fewer_bits_in_sixteen_are_told_of(bits, seen, tmp_path):
    values = np.linspace(0, 2**bits // 2, 64 * 64).astype(np.uint16).reshape(64, 64)
    colour = cv2.imencode(".png", np.repeat(values[..., None], 3, axis=2))[1].tobytes()
    Image.fromarray(values).save(tmp_path / "a.tif")
    for image in (encoded(Image.fromarray(values), "PNG"), colour, tmp_path / "a.tif", values, Image.fromarray(values)):
        with pytest.warns(DarkImage, match=f"lowest {bits} of them, so it is seen {seen}") as told:
            load_image(image)
        assert told[0].message.name == (str(image) if isinstance(image, Path) else "the image")


@pytest.mark.parametrize("values", [[0, 1, 20000], [0, 65535], [0, 0]])
def test_sixteen_bits_that_are_used_are_not_told_of(values):
    values = np.array([values], np.uint16)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_image(values)
        load_image(encoded(Image.fromarray(values), "PNG"))
        load_image(np.array([[1, 2, 3]], np.uint8))


def tiff_of(bands, bits, photometric=1, extra=()):
    """A TIFF of noise as GDAL writes it: bands beside each other in one strip."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(1, 2**bits - 1, (12, 16, bands)).astype(f"<u{bits // 8}")
    head = TiffImagePlugin.ImageFileDirectory_v2()
    data = pixels.tobytes()
    head[256], head[257], head[258], head[259], head[262] = 16, 12, (bits,) * bands, 1, photometric
    head[277], head[278], head[284], head[279] = bands, 12, 1, len(data)
    if extra:
        head[338] = extra
    head[34735] = (1, 1, 0, 0)  # that it is a map
    head[273] = 0  # behind these, as Pillow counts
    return b"II*\0\x08\0\0\0" + head.tobytes(8) + data, pixels


def test_near_infrared_is_no_transparency():
    """GDAL marks a fourth band as such, whatever it holds."""
    data, pixels = tiff_of(4, 8, photometric=2, extra=(2,))
    assert (read_image(data) == pixels[..., :3]).all()
    cut = Image.fromarray(pixels)
    cut.putalpha(Image.fromarray(np.where(np.arange(16) < 8, 0, 255).astype(np.uint8)[None].repeat(12, 0)))
    seen = read_image(encoded(cut, "TIFF"))
    assert (seen[:, :8] == 255).all()
    assert (seen[:, 8:] == pixels[:, 8:, :3]).all()
    cut.putalpha(200)  # of a picture that is no map
    assert (read_image(encoded(cut, "TIFF")) == read_image(encoded(cut, "PNG"))).all()


@pytest.mark.parametrize(
    ("bands", "bits", "photometric", "told"),
    [
        (5, 8, 1, "5 bands of 8 bits, not marked as RGB; RGB has three: gdal_translate -b 1 -b 2 -b 3"),
        (4, 16, 1, "4 bands of 16 bits, not marked as RGB"),
        (3, 8, 1, "3 bands of 8 bits, not marked as RGB"),
        (2, 32, 1, "2 x 32 bits, not marked as RGB; save it as plain grey or RGB"),
    ],
)
def test_a_tiff_of_other_bands_says_what_it_is(bands, bits, photometric, told, tmp_path):
    data, _ = tiff_of(bands, bits, photometric)
    (tmp_path / "a.tif").write_bytes(data)
    for read in (read_image, image_size):
        with pytest.raises(ImageError, match=re.escape(told)):
            read(tmp_path / "a.tif")


def test_float_tiff_in_0_to_1():
    data = encoded(Image.fromarray(np.array([[0.0, 0.5, 1.0]], dtype=np.float32)), "TIFF")
    assert read_image(data)[0, :, 1].tolist() == [0, 128, 255]


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_transparency_lies_over_white(form):
    rgba = np.zeros((4, 4, 4), dtype=np.uint8)
    rgba[:, :2] = (200, 100, 50, 255)
    pixels = read_image(encoded(Image.fromarray(rgba), form, **({"lossless": True} if form == "WEBP" else {})))
    assert pixels[0, 0].tolist() == [200, 100, 50]
    assert pixels[0, 3].tolist() == [255, 255, 255]


def test_the_transparent_grey_of_sixteen_bits_lies_over_white():
    """A PNG may name one grey that is transparent; with 8 bits Pillow lays it on white by itself."""
    values = np.array([[0, 257, 65535, 514]], np.uint16)
    data = encoded(Image.fromarray(values), "PNG")
    chunk = b"tRNS" + (257).to_bytes(2, "big")
    chunk = (2).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    at = data.index(b"IDAT") - 4
    assert read_image(data[:at] + chunk + data[at:])[0, :, 0].tolist() == [0, 255, 255, 2]


def test_transparent_palette():
    image = Image.fromarray(np.array([[0, 1]], dtype=np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0])
    assert read_image(encoded(image, "PNG", transparency=1))[0].tolist() == [[255, 0, 0], [255, 255, 255]]


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert read_image(data)[0, 0].tolist() == [255, 0, 0]


def test_path_with_spaces_and_letters_of_the_world(tmp_path):
    path = tmp_path / "ein Bild – 写真 ü.jpg"
    path.write_bytes(encoded(Image.fromarray(scene()), "JPEG"))
    assert read_image(path).shape == (48, 80, 3)
    assert read_image(str(path)).shape == (48, 80, 3)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
def test_cut_jpeg_is_an_error_and_never_half_grey(share, progressive, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    thumbnail = encoded(Image.fromarray(scene()), "JPEG")  # its end marker must not count
    exif = Image.Exif()
    exif[0x010E] = "x"
    data = encoded(Image.fromarray(noise), "JPEG", progressive=progressive, exif=exif, comment=thumbnail)
    assert read_image(data).shape == (200, 200, 3)
    path = tmp_path / "cut.jpg"
    path.write_bytes(data[: int(len(thumbnail) + (len(data) - len(thumbnail)) * share)])
    with pytest.raises(ImageError, match=r"cut\.jpg: the file is cut short$"):
        read_image(path)


def test_bytes_behind_the_end_marker_do_no_harm():
    data = encoded(Image.fromarray(scene()), "JPEG")
    np.testing.assert_array_equal(read_image(data + b"trailer" * 50), read_image(data))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello, I am text", "not an image in a known format"),
        (b"\0\0\0\x18ftypheic" + b"\0" * 64, "HEIC is not supported; convert it to JPEG"),
    ],
)
def test_what_is_no_image(content, reason, tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    for read in (read_image, image_size):
        with pytest.raises(ImageError) as caught:
            read(path)
        assert str(caught.value).startswith(f"cannot read {path}: {reason}")
        assert "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ImageError, match="no such file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(ImageError, match="is a directory"):
        image_size(tmp_path)


def test_huge_sizes_are_refused_before_decoding(monkeypatch):
    data = bytearray(encoded(Image.fromarray(scene()), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", 40000, 40000)
    with pytest.raises(ImageError, match="40000x40000 is over the limit of 178 megapixels"):
        read_image(bytes(data))
    png = bytearray(encoded(Image.fromarray(scene()), "PNG"))
    png[16:24] = struct.pack(">II", 40000, 40000)
    with pytest.raises(ImageError):
        read_image(bytes(png))
    monkeypatch.setenv("FCOS_MAX_MEGAPIXELS", "300MP")
    with pytest.raises(ImageError, match=r"or set FCOS_MAX_MEGAPIXELS to a whole number .'300MP' is none. if"):
        read_image(bytes(data))


@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_give_pixels_or_one_line(data, as_jpeg):
    message = ""
    try:
        read_image((b"\xff\xd8\xff" if as_jpeg else b"") + data)
    except ImageError as error:
        message = str(error)
    assert "\n" not in message


def test_shapes_worked_by_hand():
    assert resized_shape((480, 640), 800, 1333) == (800, 1067)
    assert resized_shape((480, 640), 800, 1333, "floor") == (800, 1066)
    assert resized_shape((300, 1000), 800, 1333) == (400, 1333)
    assert resized_shape((1000, 1), 800, 1333) == (1333, 1)
    assert resized_shape((10000, 3), 800, 1333) == (1333, 1)


@given(st.integers(1, 5000), st.integers(1, 5000), st.integers(32, 1200), st.integers(0, 1200))
def test_resized_shape_keeps_its_limits(height, width, short, more):
    longest = short + more
    h, w = resized_shape((height, width), short, longest)  # the published rules, in floats, do not
    assert min(h, w) >= 1
    assert max(h, w) <= longest
    assert min(h, w) <= short
    assert min(h, w) == short or max(h, w) == longest


def test_resizing_is_near_the_antialiased_reference():
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (15, 20, 3), dtype=np.uint8))
    rough = noise.resize((320, 240), Image.Resampling.BICUBIC)  # about as smooth as a photograph
    pixels = np.asarray(rough)
    for shape in ((400, 533), (160, 213)):
        reference = np.asarray(rough.resize(shape[::-1], Image.Resampling.BILINEAR)).astype(float)
        assert np.abs(resize(pixels, shape) - reference).mean() <= 1
        np.testing.assert_array_equal(resize(pixels, shape, "pil"), reference)
    assert resize(pixels, (240, 320)) is pixels


def every_kind():
    """(name, image): modes whose pixels once depended on the way the image came."""
    rng = np.random.default_rng(0)
    rgba, deep = rng.integers(0, 256, (20, 30, 4), dtype=np.uint8), rng.integers(0, 65536, (20, 30), dtype=np.uint16)
    share = rng.random((20, 30)).astype(np.float32)
    odd = {"nan": np.nan, "infinite": np.inf, "over": 1.00001, "whole": 1.0}
    floats = {k: np.where(np.arange(600).reshape(20, 30) == 7, v, share).astype(np.float32) for k, v in odd.items()}
    return [
        ("rgba.png", Image.fromarray(rgba)),
        ("la.png", Image.fromarray(rgba).convert("LA")),
        ("deep.png", Image.fromarray(deep)),
        ("deep.tif", Image.fromarray(deep)),
        ("big-endian.tif", Image.fromarray(deep.astype(">u2"))),
        ("cmyk.tif", Image.fromarray(rgba[..., :3]).convert("CMYK")),
        ("palette.gif", Image.fromarray(rgba[..., :3]).quantize(8)),
        *((f"{name}.tif", Image.fromarray(values)) for name, values in floats.items()),
    ]


@pytest.mark.filterwarnings("ignore::fcos.errors.ImageWarning")
@pytest.mark.parametrize(("name", "image"), every_kind())
def test_the_same_pixels_whichever_way_an_image_comes(name, image, tmp_path):
    image.save(tmp_path / name)
    expected = load_image(tmp_path / name)
    np.testing.assert_array_equal(load_image((tmp_path / name).read_bytes()), expected)
    with Image.open(tmp_path / name) as opened:
        np.testing.assert_array_equal(load_image(opened), expected)
        if image.mode in ("RGBA", "I;16", "I;16B", "F"):
            np.testing.assert_array_equal(load_image(np.asarray(opened)), expected)
    if image.mode == "F":
        assert abs(expected.mean() - 127) < 12


def test_odd_arrays_and_modes_have_the_pixels_of_the_usual_ones():
    grey = np.arange(200, dtype=np.uint8).reshape(10, 20)
    np.testing.assert_array_equal(load_image(np.asarray(grey).view(np.matrix)), load_image(grey))
    clear = Image.merge("LA", [Image.fromarray(grey), Image.fromarray(np.full_like(grey, 255))])
    np.testing.assert_array_equal(load_image(clear.convert("La")), load_image(clear))


def test_a_few_floats_that_are_not_finite_are_told_and_many_refused(tmp_path):
    values = np.full((10, 10), 0.5, np.float32)
    values[0, :2] = np.nan, np.inf
    with pytest.warns(ImageWarning, match="2 values are not finite"):
        pixels = load_image(values)
    assert pixels[0, 0, 0] == 0
    assert pixels[5, 5, 0] == 128
    values[:6] = np.nan
    with pytest.raises(ImageError, match="60 of its 100 values"):
        load_image(values)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_jpeg_whose_end_was_patched_on_is_told(share, mode):
    noise = np.random.default_rng(0).integers(0, 256, (25, 25, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(np.kron(noise, np.ones((16, 16, 1), np.uint8))).convert(mode), "JPEG", quality=90)
    with pytest.warns(ImageWarning, match="the end of the image is missing"):
        read_image(data[: int(len(data) * share)] + b"\xff\xd9")


def parts_of(data):
    """Offsets behind the header of each scan, and of the end marker."""
    starts = [m.start() for m in re.finditer(rb"\xff\xda", data)]
    return [at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") for at in starts], data.rfind(b"\xff\xd9")


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95, 1.0])
def test_a_progressive_jpeg_cut_in_any_scan_is_told(mode, share):
    """Its late scans hold details: nothing of the image is one colour."""
    data = encoded(Image.fromarray(scene()).convert(mode), "JPEG", quality=90, progressive=True)
    scans, end = parts_of(data)
    for number, (start, after) in enumerate(zip(scans, [*scans[1:], end], strict=True)):
        # 1.0: cut between two scans, tables in front of the next one left
        cut = start + int((after - start - (10 if number + 1 < len(scans) else 0)) * share)
        if cut >= end:
            continue
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                read_image(data[:cut] + b"\xff\xd9")
            except ImageError:  # the cut went through a table
                continue
        assert ["missing" in str(w.message) for w in told] == [True], (number, cut)


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_jpeg_cut_between_restart_markers_is_told(blocks):
    """The decoder waits for the next marker there, and takes no other byte."""
    data = encoded(Image.fromarray(scene()).convert("L"), "JPEG", quality=90, restart_marker_blocks=blocks)
    marks = [m.start() for m in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    for cut in marks[:: max(len(marks) // 5, 1)]:
        for at in (cut, cut + 2):
            with pytest.warns(ImageWarning, match="missing"):
                read_image(data[:at] + b"\xff\xd9")


def is_told(data):
    """Whether a damaged image is refused, or read with a warning."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            read_image(data)
        except ImageError:
            return True
    return any("missing" in str(w.message) for w in told)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("options", [{"restart_marker_blocks": 7}, {"restart_marker_rows": 1, "progressive": True}])
def test_a_jpeg_that_lacks_a_restart_marker_is_told(mode, options):
    """The last block need not be of one colour then: each part between two markers stands for itself."""
    data = encoded(Image.fromarray(scene()).convert(mode), "JPEG", subsampling=2, **options)
    marks = [m.start() for m in re.finditer(rb"\xff[\xd0-\xd7]", data)]
    for at in marks[: -1 : max(len(marks) // 4, 1)]:
        for broken in (data[: at + 9] + b"\xff\xd9", data[:at] + data[at + 2 :]):
            assert is_told(broken), at


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_zeros_in_front_of_the_end_marker_are_told(mode):
    """They are codes as good as others, so that the last block need not be of one colour."""
    data = encoded(Image.fromarray(scene()).convert(mode), "JPEG", quality=90)
    for share in (0.5, 0.8, 0.95):
        for count in (64, 700, 5000):
            assert is_told(data[: int(len(data) * share)] + bytes(count) + b"\xff\xd9"), (share, count)


def test_a_png_that_a_decoder_completes_from_zeros_is_told(tmp_path):
    """Deflate's codes of one bit can be zeros, so a cut file may decode to its last row."""
    rows = np.random.default_rng(0).integers(0, 2, (40, 60, 3), dtype=np.uint8) * 255
    rows[:, :, 1:] = 0
    buffer = io.BytesIO()
    Image.fromarray(rows).save(buffer, "PNG")
    data = buffer.getvalue()
    path = tmp_path / "a.png"
    silent = told = 0
    for at in range(60, len(data) - 12, 7):
        path.write_bytes(data[:at] + bytes(5000))
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter("always")
            try:
                image = load_image(path)
            except ImageError:
                continue
        told += len(seen)
        silent += not seen and not np.array_equal(image, rows)
    assert silent == 0
    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(load_image(path), rows)
    damaged = bytearray(data)
    damaged[-13] ^= 1  # in the checksum of the last pixels
    path.write_bytes(bytes(damaged))
    with pytest.warns(ImageWarning, match="the PNG is damaged"):
        load_image(path)


@pytest.mark.parametrize(("form", "options"), [("JPEG", {}), ("WEBP", {"lossless": True}), ("GIF", {})])
def test_a_file_whose_end_is_zeros_is_told(form, options):
    """As a download leaves it that broke off."""
    data = encoded(Image.fromarray(scene()).convert("L" if form == "JPEG" else "RGB"), form, **options)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            read_image(data[: len(data) * 4 // 5] + bytes(len(data)))
        except ImageError:
            return
    assert "ends in zeros" in str(told[0].message)


def test_a_gif_whose_last_bytes_are_zeros_is_told():
    """However few they are; zeros behind a whole one mean nothing."""
    data = encoded(Image.fromarray(scene()[:2]).quantize(), "GIF")
    whole, silent = read_image(data), []
    for count in range(1, 60):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                image = read_image(data[:-count] + bytes(count))
            except ImageError:
                continue
        if not told and not np.array_equal(image, whole):
            silent.append(count)
    assert not silent
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for end in (data, data + bytes(70), data[:-1]):
            assert np.array_equal(read_image(end), whole)


@pytest.mark.parametrize("size", [(8, 1), (40, 9)])
def test_a_gif_cut_in_its_pixels_is_told(size):
    """Wherever it is cut, with a foreign end patched on or without; the decoder may have all pixels by then."""
    rng = np.random.default_rng(0)
    data = encoded(Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).quantize(8), "GIF")
    whole = read_image(data)
    for at in range(60 - 24, len(data) - 2):
        for end in (b"", b"\xff\xd9", b";"):
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                try:
                    image = read_image(data[:at] + end)
                except ImageError:
                    continue
            assert told or np.array_equal(image, whole), (at, end)


def test_a_gif_with_colours_of_its_own_images():
    """The table of colours of an image stands behind its frame; nothing in it is a block."""
    table = bytes([0, 0x2C, 0x3B, 0x21, 200, 0, 0x2C, 9, 9, 1, 0, 0x3B])
    image = b"\x2c" + struct.pack("<4HB", 0, 0, 1, 1, 0x81) + table + b"\x02\x02\x44\x01\x00"
    head = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0)
    for images in (1, 2):
        data = head + images * image
        for end in (b";", b""):
            assert gif.is_whole(data + end)
            assert not gif.is_cut(io.BytesIO(data + end))
            assert gif.moves(io.BytesIO(data + end)) == (images > 1)
        assert gif.is_cut(io.BytesIO(data[:-2]))
        for left in range(1, len(image) - 1):
            assert not gif.is_whole(head + image[:-left])
    assert np.array_equal(read_image(head + image + b";"), [[[0, 0x2C, 0x3B]]])


def test_fill_bytes_in_front_of_a_marker_are_nothing():
    data = encoded(Image.fromarray(scene()), "JPEG", exif=marked(6))
    at = data.index(b"\xff\xdb")
    filled = data[:at] + b"\xff\xff" + data[at:]
    assert parse_jpeg(filled).header == parse_jpeg(data).header == Header(48, 80, 6)
    assert np.array_equal(read_image(filled), read_image(data))


def test_a_tensor_with_transparency_in_either_order_is_the_array():
    values = np.dstack([scene(), np.full((48, 80), 128, np.uint8)])
    for tensor in (torch.from_numpy(values), torch.from_numpy(values).permute(2, 0, 1)):
        assert np.array_equal(load_image(tensor), load_image(values))


def test_a_tiff_whose_jpeg_tables_are_zeros_is_told():
    """They lie behind the pixels, so a cut file filled with zeros has all of those and means something else."""
    data = encoded(Image.fromarray(scene()), "TIFF", compression="jpeg")
    whole, silent = read_image(data), []
    tables = data.rfind(b"\xff\xd8\xff\xdb")
    for at in range(tables, len(data), 10):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            try:
                image = read_image(data[:at] + bytes(len(data) - at))
            except ImageError:
                continue
        if not told and not np.array_equal(image, whole):
            silent.append(at)
    assert not silent
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        read_image(data)


def test_a_jpeg_that_ends_in_the_header_of_its_scan_is_refused():
    data = encoded(Image.fromarray(scene()), "JPEG")
    for more in range(2, 14):
        with pytest.raises(ImageError):
            read_image(data[: data.find(b"\xff\xda") + more])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize(
    "options",
    [
        {"progressive": True},
        {"progressive": True, "subsampling": 0},
        {"quality": 30},
        {"restart_marker_blocks": 3},
        {"progressive": True, "restart_marker_rows": 1},
    ],
)
def test_a_whole_jpeg_is_not_complained_of(mode, options):
    """Nor one in front of another image, as phones write them, nor one with bytes behind its end."""
    data = encoded(Image.fromarray(scene()).convert(mode), "JPEG", **options)
    for whole in (data, data + data, data + b"\0" * 99):
        read_image(whole)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("optimize", [False, True])
@pytest.mark.parametrize("size", [(100, 90), (1600, 1200), (700, 401)])
def test_a_flat_jpeg_is_whole(progressive, optimize, size):
    """Whose every block may be a few bits that are zeros."""
    image = Image.new("RGB", size, "white")
    read_image(encoded(image, "JPEG", progressive=progressive, optimize=optimize))
    image.paste(Image.fromarray(scene()))
    for mode in ("RGB", "L"):
        read_image(encoded(image.convert(mode), "JPEG", progressive=progressive, optimize=optimize))


def test_a_jpeg_of_many_scans_is_refused():
    data = encoded(Image.fromarray(scene()), "JPEG", progressive=True)
    last, end = data.rfind(b"\xff\xda"), data.rfind(b"\xff\xd9")
    with pytest.raises(ImageError, match="scans"):
        read_image(data[:last] + data[last:end] * 3000 + b"\xff\xd9")


def test_postscript_starts_no_program(tmp_path):
    (tmp_path / "holiday.jpg").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
    for read in (read_image, image_size):
        with pytest.raises(ImageError, match="not an image in a known format"):
            read(tmp_path / "holiday.jpg")


@pytest.mark.parametrize("share", [0.3, 0.6])
def test_a_progressive_jpeg_whose_last_scan_was_filled_with_zeros_is_told_of(share):
    """Zeros are codes as good as others: the scan has its end, and then some are left over."""
    pixels = (np.add.outer(np.arange(90) * 2, np.arange(120) * 3) % 256).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85, progressive=True)
    data = file.getvalue()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        whole = load_image(data)
    start = data.rfind(b"\xff\xda")
    cut = data[: start + 10 + int(share * (len(data) - start))] + bytes(700) + b"\xff\xd9"
    with pytest.warns(ImageWarning, match="ends in zeros"):
        image = load_image(cut)
    assert not np.array_equal(image, whole)


@pytest.mark.parametrize(
    ("seed", "quality", "share", "count"), [(24, 50, 0.4, 64), (11, 95, 0.8, 150), (27, 90, 0.95, 64)]
)
def test_zeros_that_a_last_scan_takes_for_its_own_are_told_of(seed, quality, share, count):
    """A decoder finds nothing wrong with them; but an encoder says in one code that the rest is flat."""
    rng = np.random.default_rng(seed)
    height, width = (int(n) for n in rng.integers(40, 200, 2))
    coarse = rng.normal(size=(height // 8 + 2, width // 8 + 2, 3))
    smooth = Image.fromarray(np.uint8(np.clip(128 + 50 * coarse, 0, 255))).resize(
        (width, height), Image.Resampling.BICUBIC
    )
    noise = rng.normal(size=(height, width, 1)) * rng.choice([0, 2, 6, 15])
    pixels = np.uint8(np.clip(np.asarray(smooth).astype(float) + noise, 0, 255))
    pixels = np.ascontiguousarray(pixels[..., 0]) if seed % 2 else pixels
    data = encoded(Image.fromarray(pixels), "JPEG", quality=quality, progressive=True)
    start, end = data.rfind(b"\xff\xda") + 10, data.rfind(b"\xff\xd9")
    assert not is_told(data)
    assert is_told(data[: start + int(share * (end - start))] + bytes(count) + b"\xff\xd9")
    pixels[height // 8 :] = 200  # one that is whole, and flat there, has no zeros
    assert not is_told(encoded(Image.fromarray(pixels), "JPEG", quality=quality, progressive=True))


def test_of_a_jpeg_with_a_long_header_only_the_header_is_read(tmp_path, monkeypatch):
    """As of telephones, with a preview in it."""
    file = tmp_path / "long.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (600, 800, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file, comment=b"x" * 60_000, quality=95)
    read = []
    real = reading.open_file

    @contextmanager
    def counted(*arguments):
        with real(*arguments) as opened:
            yield opened
            read.append(opened.tell())

    monkeypatch.setattr(reading, "open_file", counted)
    assert image_header(file).displayed == (600, 800)
    assert sum(read) < 140_000 < file.stat().st_size


def test_a_program_that_refuses_large_images_goes_on_to_refuse_them(tmp_path):
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    program = """
import sys, warnings
from PIL import Image
warnings.simplefilter("error", Image.DecompressionBombWarning)
import fcos.data.images.reading
try:
    Image.open(sys.argv[1])
except Image.DecompressionBombWarning:
    print("refused")
"""
    words = [sys.executable, "-c", program, tmp_path / "large.png"]
    assert subprocess.run(words, capture_output=True, text=True).stdout == "refused\n"
