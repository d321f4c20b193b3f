"""Everything outside the network: from a decoded image to its input, and from its output to boxes.

    python benchmarks/postprocess.py [--rounds 15] [--candidates 300 3000 35000]

An image of 480x640 becomes 800x1066 (padded to 800x1088, 18,134 points, 80 classes); the output is made up so that
so many scores pass the threshold. Ours and torchvision's GeneralizedRCNNTransform + FCOS.postprocess_detections
alternate in one process; CPU time of one thread counts. Under torchvision's rules both give the same detections,
which is checked.
"""

from statistics import median
from time import process_time

import cv2
import numpy as np
import torch
from common import options, parser, print_heading
from torch import nn
from torchvision.models.detection.fcos import FCOS as TorchvisionFCOS

from fcos.bench.timing import alternate
from fcos.inference.detector import Detector
from fcos.presets import preset, with_dialect
from fcos.types import Classes, Predictions

CLASSES = 80
NAMES = Classes(tuple(f"class {i}" for i in range(CLASSES)))


class NoBody(nn.Module):
    out_channels = 32


def outputs(points, candidates: int, threshold: float, seed: int = 0) -> Predictions:
    """Predictions of one image of which `candidates` have a class probability over `threshold`."""
    g = torch.Generator().manual_seed(seed)
    count = len(points.xy)
    logits = torch.randn(count * CLASSES, generator=g)
    limit = logits.topk(candidates).values[-1]
    logits = logits - limit + float(torch.logit(torch.tensor(threshold))) + 1e-4
    distances = (0.5 + torch.rand(1, count, 4, generator=g) * 3) * points.stride[None, :, None]
    return Predictions(logits.view(1, count, CLASSES), distances, torch.full((1, count), 6.0))


def main() -> None:
    made = parser(__doc__, rounds=15, threads=1)
    made.add_argument("--candidates", type=int, nargs="+", default=[300, 3000, 35000])
    chosen = options(made)
    cv2.setNumThreads(1)
    print_heading()
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    preset_config = preset("fcos-r50")
    ours = Detector(lambda images: None, preset_config, NAMES)
    same = Detector(lambda images: None, with_dialect(preset_config, "torchvision"), NAMES)
    theirs = TorchvisionFCOS(NoBody(), CLASSES, min_size=800, max_size=1333).eval()

    blank = torch.empty(1, 3, 800, 1088, dtype=torch.uint8)  # stands for the input; no network looks at it

    def their_input():
        return theirs.transform([torch.from_numpy(image).permute(2, 0, 1).float() / 255])[0]

    print(f"{'candidates':>10}  {'way':<34}{'before ms':>10}{'after ms':>10}{'together':>10}{'ratio':>8}")
    for candidates in chosen.candidates:
        ready = their_input()
        size = ready.image_sizes[0]
        points = same.points(ready.tensors.shape[-2:])
        cells = [grid.cells for grid in points.grids]
        maps = [torch.zeros(1, 32, grid.height, grid.width) for grid in points.grids]
        anchors = [list(a.split(cells)) for a in theirs.anchor_generator(ready, maps)]
        # sqrt(class * centerness) > 0.2 for theirs, class > 0.05 for ours: as many of both
        strict = outputs(points, candidates, 0.04 / float(torch.sigmoid(torch.tensor(6.0))))
        loose = outputs(points, candidates, 0.05)
        head = {
            "cls_logits": list(strict.logits.split(cells, dim=1)),
            "bbox_regression": list((strict.distances / points.stride[None, :, None]).split(cells, dim=1)),
            "bbox_ctrness": list(strict.centerness[..., None].split(cells, dim=1)),
        }

        def ours_after(detector, size=size):
            found = detector.forward(blank, [size])
            return detector.finish(found[0], image.shape[:2], None, 0.0)

        def theirs_after(head=head, anchors=anchors, size=size):
            found = theirs.postprocess_detections(head, anchors, [size])
            return theirs.transform.postprocess(found, [size], [image.shape[:2]])[0]

        says_strict = same.replace(network=lambda images, strict=strict: strict)
        says_loose = ours.replace(network=lambda images, loose=loose: loose)
        ways = {
            ("torchvision", 0): their_input,
            ("torchvision", 1): theirs_after,
            ("ours, torchvision's rules", 0): lambda: same.prepare(image),
            ("ours, torchvision's rules", 1): lambda d=says_strict: ours_after(d),
            ("ours, the presets' rules", 0): lambda: ours.prepare(image),
            ("ours, the presets' rules", 1): lambda d=says_loose: ours_after(d),
        }
        with torch.inference_mode():
            times = {k: 1e3 * median(v) for k, v in alternate(ways, chosen.rounds, warm=2, clock=process_time).items()}
            mine, other = ours_after(same, strict), theirs_after()
        base = times["torchvision", 0] + times["torchvision", 1]
        for name in dict.fromkeys(name for name, _ in ways):
            before, after = times[name, 0], times[name, 1]
            total = before + after
            print(f"{candidates:>10}  {name:<34}{before:>10.1f}{after:>10.1f}{total:>10.1f}{base / total:>8.1f}")
        equal = len(mine) == len(other["scores"]) and torch.allclose(mine.scores, other["scores"], atol=1e-5)
        print(f"{'':>10}  the same {len(mine)} scores under torchvision's rules: {'yes' if equal else 'NO'}")


if __name__ == "__main__":
    main()
