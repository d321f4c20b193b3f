"""Made images that look like photographs to a fingerprint, and their files."""

import cv2
import numpy as np


def photo(seed):
    """[128,128,3] uint8, smooth and unlike that of any other seed."""
    rng = np.random.default_rng(seed)
    return cv2.resize(rng.integers(0, 255, (9, 9, 3), np.uint8), (128, 128), interpolation=cv2.INTER_CUBIC)


def write(path, pixels, *flags):
    """Save `pixels`; `flags` are those of cv2.imwrite. Returns the path."""
    cv2.imwrite(str(path), pixels, list(flags))
    return path
