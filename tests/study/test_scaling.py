"""The estimate for more GPUs, against cases worked by hand, and as a command."""

import json
from itertools import pairwise

import pytest
from tiny import fcos

from fcos.errors import DataError
from fcos.study.scaling import BUCKET, Cluster, estimate, measured_step, scaling_study

# 128 MB of gradients, 0.6 s a step of 16 images, 4 GPUs a machine, 8 Gbit/s = 1 GB/s between machines, ten times that
# inside one
CASE = Cluster(0.6, 16, 128_000_000, machine=4, network=8.0, inside=80.0, total=160_000)


def test_one_gpu_is_the_measurement():
    row = estimate(CASE, 1)
    assert (row.step, row.reduce, row.shown, row.waiting, row.efficiency) == (0.6, 0, 0, 0, 1)
    assert row.rate == pytest.approx(16 / 0.6)
    assert row.hours == pytest.approx(160_000 / 16 * 0.6 / 3600)


def test_inside_a_machine_by_hand():
    row = estimate(CASE, 4)
    # each of four sends 2 * 3/4 of 128 MB = 192 MB at 10 GB/s = 19.2 ms; 6 messages wait 10 us each
    assert row.reduce == pytest.approx(0.0192 + 60e-6)
    assert row.shown == pytest.approx(
        (0.0192 + 60e-6) * BUCKET / 128e6
    )  # 0.4 s of backward hide all but the last 25 MB
    assert row.step == pytest.approx(0.6 + row.shown)
    assert row.efficiency == pytest.approx(0.6 / row.step)


def test_over_a_slow_network_by_hand():
    slow = estimate(Cluster(0.15, 16, 128_000_000, machine=4, network=8.0, inside=80.0), 8)
    # 2 * 7/8 * 128 MB = 224 MB at 1 GB/s and 14 messages; 0.1 s of it hide behind the backward pass
    assert slow.reduce == pytest.approx(0.224 + 140e-6)
    assert slow.shown == pytest.approx(0.124 + 140e-6)
    assert slow.step == pytest.approx(0.274 + 140e-6)
    assert slow.rate == pytest.approx(128 / (0.274 + 140e-6))
    assert slow.hours is None


def test_data_that_comes_slowly_limits():
    row = estimate(Cluster(0.6, 16, 128_000_000, machine=4, loading=40.0), 8)
    assert row.step == pytest.approx(1.6)  # four GPUs of a machine want 64 images, of which it decodes 40 a second
    assert row.waiting == pytest.approx(1.6 - 0.6 - row.shown)
    assert row.rate == pytest.approx(80)  # two machines


def test_more_gpus_are_never_slower_in_all_and_never_better_each():
    rows = scaling_study(CASE).rows
    assert all(b.rate > a.rate for a, b in pairwise(rows))
    assert all(b.efficiency <= a.efficiency for a, b in pairwise(rows))


def test_the_step_of_a_run(tmp_path):
    (tmp_path / "metrics.csv").write_text(
        "step,epoch,loss,images_per_second,data_wait,AP\n"
        "10,1,1,2,0,\n20,2,1,16,0.2,\n30,3,1,8,0.5,\n30,3,1,,,0.3\n40,4,1,10,0,\n50,5,1,5,"
    )
    assert measured_step(tmp_path, 16) == pytest.approx(1.5)  # of 0.8, 1.5 and 1.6 s; the first row warms up
    with pytest.raises(DataError, match="--step SECONDS"):
        measured_step(tmp_path / "none", 16)


def test_as_a_command(capsys, tmp_path):
    words = ["study", "scaling", "--model", "fcos-lite0", "--set", "train.batch=16", "--step", "0.5"]
    code, out, err = fcos(capsys, *words, "--json", "--network", "25", "--out", tmp_path)
    assert code == 0, err
    report = json.loads(out)
    assert [row["gpus"] for row in report["rows"]] == [1, 2, 4, 8, 16, 32, 64]
    assert report["cluster"]["network"] == 25
    code, out, err = fcos(capsys, *words)
    assert code == 0, err
    assert "an estimate, not a measurement" in out
    assert "100 Gbit/s" in out
    slow = ["train.iterations=5", "--step", "1e308", "--loading", "1e-308"]  # no image a second at all
    for bad, said in (
        *((["--step", "0"], "--step 0"), (["--network", "nan"], "--network nan"), (slow, "--step 1e+308")),
        (["--gpus-per-machine", "9" * 400], f"--gpus-per-machine {'9' * 400}"[:100]),
    ):
        code, _, err = fcos(capsys, *words, *bad)
        assert (code, err.count("\n")) == (2, 1)
        assert said in err
    code, _, err = fcos(capsys, *words[:6])
    assert code == 2
    assert "is no run" in err
    assert "--step SECONDS" in err


@pytest.mark.parametrize(("processes", "images"), [(4, 4), (1, 16), (None, 16)])
def test_a_run_of_several_gpus_is_not_one_of_one(capsys, tmp_path, processes, images):
    """Four GPUs that see 16 images a second and 16 a step in all take a second for 4 images each."""
    from tiny import make_shapes, tiny_config

    from fcos.network import weights
    from fcos.training.output.folder import COLUMNS
    from fcos.types import Classes

    data, folder = make_shapes(tmp_path / "shapes", {"val": 2}), tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(tiny_config(train={"batch": 16}).dump())
    config = tiny_config(train={"batch": 16})
    state = weights.build(config, 2).state_dict()
    weights.save(folder / "last.safetensors", state, config, Classes(("disc", "square")))
    rows = [{"step": k, "loss": 1, "images_per_second": 16, "data_wait": 0} for k in (1, 2)]
    lines = [",".join(str(row.get(name, "")) for name in COLUMNS) for row in rows]
    (folder / "metrics.csv").write_text("\n".join([",".join(COLUMNS), *lines, ""]))
    told = {"classes": ["disc", "square"], **({} if processes is None else {"processes": processes})}
    (folder / "environment.json").write_text(json.dumps(told))
    words = ("study", "scaling", "--model", folder, "--data", data / "instances_val.json", "--json")
    code, out, err = fcos(capsys, *words, "--out", tmp_path / "out")
    assert code == 0, err
    report = json.loads(out)
    assert (report["cluster"]["images"], report["cluster"]["step"]) == (images, 1)
    assert ("does not tell how many GPUs" in report["source"]) == (processes is None)
