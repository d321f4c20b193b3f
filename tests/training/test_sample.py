"""The run that is timed and thrown away."""

from pathlib import Path

import pytest
import torch
from tiny import make_shapes, tiny_config

from fcos.data.open import open_splits
from fcos.training.planning.sample import sample_run


@pytest.mark.parametrize("breaks", [False, True])
def test_a_sample_run_learns_and_leaves_nothing(tmp_path, breaks):
    data = {"train": open_splits(make_shapes(tmp_path / "data", {"train": 5}))["train"]}
    folders: list[Path] = []

    def look() -> None:
        with sample_run(tiny_config(), data, "none", "cpu") as (trainer, step):
            folders.append(trainer.folder.path)
            before = {k: v.clone() for k, v in trainer.network.state_dict().items()}
            step()
            changed = [k for k, v in trainer.network.state_dict().items() if not torch.equal(v, before[k])]
            assert any(k.endswith("weight") for k in changed)
            if breaks:
                raise KeyError

    if breaks:
        with pytest.raises(KeyError):
            look()
    else:
        look()
    assert not folders[0].exists()
