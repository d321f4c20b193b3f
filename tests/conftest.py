import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import hypothesis
import pytest
import torch

# a busy machine is no fault of the code
hypothesis.settings.register_profile("shared", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("shared")
torch.set_num_threads(1)
_cache = tempfile.TemporaryDirectory(prefix="fcos-tests-")
os.environ["FCOS_CACHE"] = _cache.name  # nothing of the person's own decides, and nothing is left behind
os.environ["FCOS_RUNTIME"] = "torch"  # no graph takes over by itself, except where that is tested

pytest_plugins = ["judging", "scripted"]  # their fixtures
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _torch_as_before() -> Iterator[None]:
    """No test leaves its threads or inductor's settings to the next one."""
    yield
    torch.set_num_threads(1)
    if "torch._inductor.config" in sys.modules:
        sys.modules["torch._inductor.config"].freezing = False


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The packs of real images, where this checkout has them."""
    folder = SHARED / "data"
    if not folder.is_dir():
        pytest.skip("the real-picture packs are not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def golden() -> Path:
    """What other implementations computed, where this checkout has it."""
    folder = SHARED / "golden"
    if not folder.is_dir():
        pytest.skip("the golden tensors are not beside this checkout")
    return folder
