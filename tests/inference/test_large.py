"""Large files in windows: the same pixels, the same detections, and memory that stays small."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from fcos.data.images.reading import read_image
from fcos.data.records import Window
from fcos.detections import Detections
from fcos.errors import ImageError
from fcos.inference import large
from fcos.inference.tiles import Held

rasterio = pytest.importorskip("rasterio", reason="large TIFF needs rasterio: pip install 'fcos-detector[tiff]'")


def write(path, pixels, **options):
    bands = pixels if pixels.ndim == 3 else pixels[..., None]
    with rasterio.open(
        path, "w", driver="GTiff", height=bands.shape[0], width=bands.shape[1], count=bands.shape[2],
        dtype=bands.dtype, tiled=True, blockxsize=64, blockysize=64, **options,
    ) as file:  # fmt: skip
        file.write(np.moveaxis(bands, 2, 0))


def pixels(size=(200, 300), bands=3, dtype=np.uint8):
    high = np.iinfo(dtype).max
    return np.random.default_rng(0).integers(0, high, (*size, bands), dtype=dtype, endpoint=True)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(("bands", "dtype"), [(3, np.uint8), (1, np.uint8), (1, np.uint16)])
def test_windows_are_the_pixels_of_the_whole(tmp_path, bands, dtype):
    path = tmp_path / "a.tif"
    write(path, pixels(bands=bands, dtype=dtype))
    whole = read_image(str(path))
    raster = large.Raster(path)
    assert raster.size == (200, 300)
    part = raster.read(Window(30, 40, 130, 290))
    assert np.abs(part.astype(int) - whole[30:130, 40:290]).max() <= (1 if dtype == np.uint16 else 0)
    for window, shape in ((Window(0, 0, 200, 300), (50, 75)), (Window(40, 60, 140, 260), (25, 50))):
        small = raster.read(window, shape)
        assert np.abs(small.astype(int) - Held(whole).read(window, shape)).max() <= 2


def test_small_files_are_read_whole_and_large_ones_in_windows(tmp_path, monkeypatch):
    path = tmp_path / "a.tif"
    write(path, pixels())
    assert isinstance(large.open_windows(path), Held)
    monkeypatch.setattr(large, "_HELD", 1000)
    assert isinstance(large.open_windows(path), large.Raster)
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    assert isinstance(large.open_windows(tmp_path / "a.png"), Held)


@pytest.mark.parametrize("content", [b"", b"II*\0nonsense", b"text"])
def test_what_is_no_tiff_is_one_line(tmp_path, content):
    path = tmp_path / "a.tif"
    path.write_bytes(content)
    with pytest.raises(ImageError, match=r"a\.tif") as error:
        large.open_windows(path)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize(
    "content",
    [
        '<VRTDataset rasterXSize="512" rasterYSize="512"><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        "<SourceFilename>{other}</SourceFilename></SimpleSource></VRTRasterBand></VRTDataset>",
        '<GDAL_WMS><Service name="TMS"><ServerUrl>file://{other}</ServerUrl></Service><DataWindow><SizeX>512</SizeX>'
        "<SizeY>512</SizeY></DataWindow><BandsCount>1</BandsCount></GDAL_WMS>",
    ],
)
def test_a_file_that_names_others_is_no_image(tmp_path, content):
    """GDAL opens what such a file names, other files and addresses, whatever the file itself is called."""
    write(tmp_path / "other.tif", pixels(bands=1))
    path = tmp_path / "a.tif"
    path.write_text(content.format(other=tmp_path / "other.tif"))
    assert rasterio.open(path).width == 512
    with pytest.raises(ImageError):
        large.open_windows(path)


def test_what_gdal_thinks_of_a_file_is_not_told(tmp_path, capfd):
    """A plain image lies on no map, and one of its tags is odd; both are warnings of GDAL's, the second to stderr."""
    path = tmp_path / "a.tif"
    Image.fromarray(pixels()).save(path)
    rgb = b"\x06\x01\x03\x00\x01\x00\x00\x00"  # how three values make a colour: a short, once
    data = path.read_bytes()
    assert data.count(rgb + b"\x02\x00") == 1
    path.write_bytes(data.replace(rgb + b"\x02\x00", rgb + b"\x01\x00"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        raster = large.Raster(path)
    assert np.array_equal(raster.read(Window(0, 0, 200, 300)), pixels())
    assert capfd.readouterr().err == ""


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_floats_are_refused_by_name(tmp_path):
    write(tmp_path / "a.tif", np.zeros((64, 64, 1), np.float32))
    with pytest.raises(ImageError, match="its pixels are float32"):
        large.Raster(tmp_path / "a.tif")


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("bits", [1, 2, 4, 12])
def test_few_bits_are_refused_by_name(tmp_path, bits):
    """GDAL gives their numbers as they are: 0 to 15 for black to white."""
    kind = np.uint16 if bits > 8 else np.uint8
    write(tmp_path / "a.tif", np.full((64, 64, 1), 2**bits - 1, kind), nbits=bits)
    with pytest.raises(ImageError, match=rf"its pixels have {bits} bits?;"):
        large.Raster(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("mode", "reason"),
    [("CMYK", "CMYK"), ("LAB", "CIELab"), ("1", "1 bit"), ("P", "numbers of a palette"), ("RGBA", "transparent")],
)
def test_other_colours_are_refused_by_name(tmp_path, mode, reason):
    image = Image.new("LAB", (64, 64)) if mode == "LAB" else Image.new("RGB", (64, 64)).convert(mode)
    image.save(tmp_path / "a.tif")
    with pytest.raises(ImageError, match=f"its pixels (are|have) {reason};"):
        large.Raster(tmp_path / "a.tif")


@pytest.mark.slow
def test_a_gigapixel_stays_under_two_gigabytes(tmp_path):
    """32,768 x 32,768 pixels, 3 GB when decoded."""
    path, side = tmp_path / "big.tif", 32768
    with rasterio.open(
        path, "w", driver="GTiff", height=side, width=side, count=3, dtype="uint8", tiled=True, blockxsize=512,
        blockysize=512, compress="deflate",
    ) as file:  # fmt: skip
        row = np.full((3, 512, side), 90, np.uint8)
        for top in range(0, side, 512):
            file.write(row, window=rasterio.windows.Window(0, top, side, 512))
    program = f"""
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
from fcos.cli import main
try: main(["predict", {str(path)!r}, "--tile", "4096", "--out", {str(tmp_path / "out")!r}])
except SystemExit as end: assert not end.code, end.code
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout.splitlines()[-1]) * 1024 < 2e9


def test_boxes_lie_where_they_belong_on_a_smaller_copy():
    """Drawing a large image's detections on its preview."""
    import torch

    found = Detections(
        torch.tensor([[100.0, 100, 300, 200]]), torch.ones(1), torch.zeros(1).long(), torch.zeros(1).long(),
        names=("a",), size=(400, 400),
    )  # fmt: skip
    small = np.zeros((100, 100, 3), np.uint8)
    rows, columns = np.nonzero(np.asarray(found.draw(small)).sum(axis=2))
    assert 24 <= columns.min() <= 26
    assert 74 <= columns.max() <= 76
    assert rows.max() <= 51


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"exif": {274: 6}}, "EXIF orientation"),
        ({"exif": {274: 6}, "big": True}, "EXIF orientation"),
        ({"mode": "RGBA"}, "transparent"),
        ({"mode": "P"}, "numbers of a palette"),
        ({"exif": {274: 1}}, ""),
    ],
)
def test_a_file_that_would_look_otherwise_in_windows_is_refused(tmp_path, made, words):
    path = tmp_path / "a.tif"
    image = Image.fromarray(pixels()).convert(made.get("mode", "RGB"))
    image.save(path, tiffinfo=made.get("exif", {}), big_tiff=made.get("big", False))
    if words:
        with pytest.raises(ImageError, match=words):
            large.Raster(path)
    else:
        assert large.Raster(path).size == (200, 300)


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
def test_a_tiff_whose_white_is_0_looks_as_it_does_whole(tmp_path, kind):
    rasterio = pytest.importorskip("rasterio")
    grey = pixels()[..., 0].astype(kind) * (1 if kind == "uint8" else 257)
    path = tmp_path / "a.tif"
    shape = {"height": grey.shape[0], "width": grey.shape[1], "count": 1, "dtype": kind}
    with rasterio.open(path, "w", driver="GTiff", photometric="MINISWHITE", **shape) as file:
        file.write(grey, 1)
    whole = read_image(path)
    assert kind == "uint16" or (whole[..., 0] == 255 - grey).all()
    np.testing.assert_array_equal(large.Raster(path).read(Window(0, 0, *grey.shape)), whole)
