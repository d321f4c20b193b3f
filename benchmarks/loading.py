"""Images per CPU second: our reading and resizing against PIL + torchvision.transforms.v2, both with boxes.

    python benchmarks/loading.py [picture.jpg ...]

A 640x480 JPEG is read and brought to a shorter side of 800 px. Both sides run in this process on one thread,
in turn, and medians are compared, so the ratio hardly depends on the machine or its load. The pixel
difference is taken to torchvision's antialiased result, in grey levels of 0..255.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from pathlib import Path

import cv2
import numpy as np
import PIL
import torch
from common import print_heading
from PIL import Image
from torchvision import tv_tensors
from torchvision.transforms import v2

from fcos.data.images.reading import read_image, resized_shape
from fcos.data.loading.augment import Sample, fit

SIZE, LONGEST = 800, 1333
DATA = Path(__file__).parents[2] / "shared" / "data"


def images(paths: list[Path]) -> list[bytes]:
    """JPEG files of 640x480 as bytes: those given, else photographs and microscope images, else noise."""
    if not paths:
        for folder in ("bccd/images/test", "voc2007/images/test"):
            paths += sorted((DATA / folder).glob("*.jpg"))[:4]
    files = []
    for path in paths:
        with Image.open(path) as image:
            if image.size == (640, 480):
                files.append(path.read_bytes())
                continue
            resized = image.convert("RGB").resize((640, 480), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        resized.save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    if not files:
        noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=90)
        files.append(buffer.getvalue())
    return files


def ours(data: bytes, boxes: np.ndarray, labels: np.ndarray, ignore: np.ndarray) -> np.ndarray:
    image = read_image(data)
    sample = Sample(image, boxes, labels, ignore)
    return fit(sample, resized_shape(image.shape[:2], SIZE, LONGEST)).image


MEAN = torch.tensor([123.675, 116.28, 103.53]).view(1, 3, 1, 1)
SCALE = 1 / torch.tensor([58.395, 57.12, 57.375]).view(1, 3, 1, 1)


def normalised(pixels: np.ndarray) -> torch.Tensor:
    """What the network does with its uint8 input; on a GPU it costs nothing worth naming."""
    return (torch.from_numpy(pixels).permute(2, 0, 1)[None].float() - MEAN) * SCALE


RESIZE = v2.Compose([v2.ToImage(), v2.Resize(SIZE, max_size=LONGEST, antialias=True)])
FLOAT = v2.Compose([RESIZE, v2.ToDtype(torch.float32, scale=True)])  # what torchvision's detectors take
NORMAL = v2.Compose([FLOAT, v2.Normalize([0.485] * 3, [0.229] * 3)])


def reference(data: bytes, boxes: np.ndarray, labels: np.ndarray, transform: v2.Compose) -> torch.Tensor:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    frame = tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=(image.height, image.width))
    return transform(image, {"boxes": frame, "labels": torch.from_numpy(labels)})[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("images", nargs="*", type=Path)
    parser.add_argument("--rounds", type=int, default=25)
    options = parser.parse_args()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    files = images(options.images)
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, 300, (20, 2))
    boxes = np.hstack((corner, corner + rng.uniform(10, 150, (20, 2)))).astype(np.float32)
    labels, ignore = np.zeros(20, dtype=np.int64), np.zeros(20, dtype=bool)
    ways = {
        "fcos loader (uint8)": lambda f: ours(f, boxes, labels, ignore),
        "fcos loader and the network's normalisation": lambda f: normalised(ours(f, boxes, labels, ignore)),
        "PIL + transforms.v2, resized only (uint8)": lambda f: reference(f, boxes, labels, RESIZE),
        "PIL + transforms.v2, to float 0..1": lambda f: reference(f, boxes, labels, FLOAT),
        "PIL + transforms.v2, to normalised float": lambda f: reference(f, boxes, labels, NORMAL),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(options.rounds + 2):
        for name, way in ways.items():
            start = time.process_time()
            for file in files:
                way(file)
            if turn >= 2:  # the first rounds warm caches
                seconds[name].append((time.process_time() - start) / len(files))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    base = next(iter(medians.values()))
    for name, value in medians.items():
        print(f"{name:44s} {1 / value:7.0f} images per CPU second   the loader is {value / base:.2f} times as fast")
    last = list(medians)[-1]
    print(f"ratio to PIL + transforms.v2 delivering what its networks take: {medians[last] / base:.2f} (target 4)")
    differences = []
    for file in files:
        mine = ours(file, boxes, labels, ignore).astype(np.float32)
        # torchvision truncates the longer side (1066); the comparison needs the same frame.
        image = v2.functional.pil_to_tensor(Image.open(io.BytesIO(file)).convert("RGB"))
        other = v2.functional.resize(image, list(mine.shape[:2]), antialias=True).permute(1, 2, 0).numpy()
        differences.append(float(np.abs(mine - other.astype(np.float32)).mean()))
    print(f"mean absolute difference {np.mean(differences):.3f} grey levels, worst image {max(differences):.3f}")
    print(f"{len(files)} images, {options.rounds} rounds; opencv {cv2.__version__}, Pillow {PIL.__version__}")
    print_heading()


if __name__ == "__main__":
    main()
