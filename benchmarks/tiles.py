"""What tiles gain on large images: AP by size with and without, and the time an image.

    python benchmarks/tiles.py DATA [--split test] [--model fcos-lite0] [--side 4000] [--tile auto] [--limit 8]

Large images with known boxes are rare, so some are made: images of a data set, at their own size, side by side on
a canvas of `--side` pixels. Nothing in them is larger than a tile, so this shows what is gained on small objects and
what is lost on the whole ones; it does not show what tiles do to an object larger than a tile.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from fcos.data.images.reading import read_image
from fcos.data.open import open_dataset
from fcos.evaluation.coco import evaluate
from fcos.inference.composite import Looks, compose
from fcos.inference.dataset import Progress, predict_dataset
from fcos.inference.load import load
from fcos.inference.tiles import parse_tile


def canvases(dataset, side, limit, folder):
    """Records of images put in rows on canvases [side, side], as many as `limit`."""
    records, rest = [], list(dataset.records)
    while rest and len(records) < limit:
        canvas = np.full((side, side, 3), 114, np.uint8)
        boxes, labels, ignore = [], [], []
        x = y = row = 0
        while rest:
            image = read_image(str(rest[0].path))
            height, width = image.shape[:2]
            if x + width > side:
                x, y, row = 0, y + row, 0
            if y + height > side:
                break
            record = rest.pop(0)
            canvas[y : y + height, x : x + width] = image
            boxes.append(record.boxes + np.array([x, y, x, y], np.float32))
            labels.append(record.labels)
            ignore.append(record.ignore)
            x, row = x + width, max(row, height)
        path = Path(folder) / f"{len(records):03d}.png"
        Image.fromarray(canvas).save(path, compress_level=1)
        joined = np.concatenate(boxes)
        areas = (joined[:, 2:] - joined[:, :2]).prod(axis=1).astype(np.float64)
        records.append(
            replace(
                dataset.records[0],
                id=len(records) + 1,
                path=path,
                size=(side, side),
                boxes=joined,
                labels=np.concatenate(labels),
                ignore=np.concatenate(ignore),
                areas=areas,
                file_name=path.name,
                xywh=None,
            )
        )
    return replace(dataset, records=tuple(records))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--split")
    parser.add_argument("--model", default="fcos-lite0")
    parser.add_argument("--side", type=int, default=4000)
    parser.add_argument("--tile", default="auto")
    parser.add_argument("--limit", type=int, default=8)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        dataset = canvases(open_dataset(options.data, options.split), options.side, options.limit, folder)
        detector = load(options.model, device="cpu", overrides=["decode.max_detections=1000"])
        print(f"{len(dataset)} images of {options.side}x{options.side}, {sum(dataset.counts())} objects")
        print("                  AP    AP50  small  medium  large   seconds an image")
        tile = parse_tile(options.tile, detector.config.data).tile
        scale = detector.config.data.size / tile
        full = round(options.side * scale)  # the whole at the scale of the tiles: what they are to come near to
        larger = detector.replace(config=detector.config.override({"data": {"size": full, "max_size": full}}))
        ways = {
            "whole": compose([detector], Looks()),
            "whole, large": larger,
            f"tiles of {tile}": compose([detector], Looks(tile)),
        }
        for name, way in ways.items():
            began = time.perf_counter()
            seen = predict_dataset(way, dataset, 4, progress=Progress(quiet=True))
            seconds = (time.perf_counter() - began) / len(dataset)
            m = evaluate(seen, dataset, max_detections=(1, 100, 1000))
            print(
                f"{name:<14}{m.ap:>8.3f}{m.ap50:>8.3f}{m.ap_small:>7.3f}{m.ap_medium:>8.3f}{m.ap_large:>7.3f}"
                f"{seconds:>12.2f}"
            )


if __name__ == "__main__":
    main()
