"""How long the first image takes as a process of its own: from the shell to the boxes and back.

    python benchmarks/startup.py [--rounds 7]

`fcos predict` of a photograph in the package with the default model, beside processes that only import. Rounds
alternate; the first of each is left out (files come from the disk). Medians.
"""

import os
import subprocess
import sys
import tempfile
import time
from statistics import median

from common import options, parser, print_heading

from fcos.system.files import ASSETS


def seconds(code: list[str], threads: int) -> float:
    began = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    subprocess.run([sys.executable, *code], check=True, env=environment, capture_output=True)
    return time.perf_counter() - began


def main() -> None:
    chosen = options(parser(__doc__, rounds=7))
    photo = str(sorted(ASSETS.glob("photos/*.jpg"))[0])
    with tempfile.TemporaryDirectory() as folder:
        load = "import fcos; fcos.load('fcos-lite0')"
        ways = {
            "fcos predict photo.jpg": ["-m", "fcos", "predict", photo, "--out", folder],
            "fcos.load(...)('photo.jpg')": ["-c", f"{load}({photo!r})"],
            "fcos.load(...)": ["-c", load],
            "import torch": ["-c", "import torch"],
            "import torch, torchvision": ["-c", "import torch, torchvision"],
            "import torch, torchvision, timm": ["-c", "import torch, torchvision, timm"],
            "fcos --help": ["-m", "fcos", "--help"],
        }
        times: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(chosen.rounds + 1):
            for name, code in ways.items():
                times[name].append(seconds(code, chosen.threads))
    print_heading()
    print(f"{'process':<36}{'s':>6}")
    for name, values in times.items():
        print(f"{name:<36}{median(values[1:]):>6.2f}")


if __name__ == "__main__":
    main()
