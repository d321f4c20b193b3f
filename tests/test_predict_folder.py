"""A folder of pictures: batches and background writing change neither results nor order nor errors."""

import numpy as np
import pytest
import torch
from PIL import Image
from tiny import NAMES, tiny_config

from fcos import zoo
from fcos.detector import Detector
from fcos.errors import FcosError, ImageError
from fcos.predict import Writer, run
from fcos.types import Classes


@pytest.fixture(scope="module")
def detector():
    torch.manual_seed(1)
    config = tiny_config(decode={"threshold": 0.0, "max_detections": 5})
    return Detector(zoo.build(config, 2).eval(), config, Classes(NAMES))


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    paths = []
    for i in range(11):
        path = tmp_path / f"{i}.png"
        if i == 4:
            path.write_bytes(b"no picture")
        else:
            Image.fromarray(rng.integers(0, 255, (64, 64 + 32 * (i % 2), 3), dtype=np.uint8)).save(path)
        paths.append(path)
    return paths


def test_batches_keep_order_results_and_errors(detector, pictures):
    scores = torch.zeros(2)
    single = list(run(detector, pictures, scores))
    assert [path for path, _, _ in single] == pictures
    assert [i for i, (_, _, found) in enumerate(single) if isinstance(found, ImageError)] == [4]
    for batch in (3, 20):
        for (path, pixels, found), (same_path, same_pixels, expected) in zip(
            run(detector, pictures, scores, batch), single, strict=True
        ):
            assert path == same_path
            assert np.array_equal(pixels, same_pixels)
            if not isinstance(expected, ImageError):
                torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)
                assert found.source == str(path)
    assert list(run(detector, [], scores)) == []


def test_what_is_written_is_there_at_the_end(detector, pictures, tmp_path):
    writer = Writer(tmp_path / "out", tmp_path / "yolo", tmp_path / "coco.json", (0, 1))
    for path, pixels, found in run(detector, pictures, torch.zeros(2)):
        if not isinstance(found, ImageError):
            writer.add(path.name, path, pixels, found)
    writer.close()
    assert len(list((tmp_path / "out").glob("*.png"))) == len(list((tmp_path / "yolo").glob("*.txt"))) == 10
    assert (tmp_path / "coco.json").is_file()


def test_what_cannot_be_written_is_an_error(detector, pictures, tmp_path):
    (tmp_path / "file").touch()
    writer = Writer(tmp_path / "file", None, None, (0, 1))
    path, pixels, found = next(run(detector, pictures[:1], torch.zeros(2)))
    writer.add(path.name, path, pixels, found)
    with pytest.raises(FcosError, match="cannot write"):
        writer.close()
