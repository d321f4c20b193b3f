"""What the machine has, by made-up files of the system."""

import os

import pytest

from fcos.system import threads
from fcos.system.cgroups import UNKNOWN
from fcos.system.machine import free_memory, is_out_of_memory
from fcos.system.threads import cpu_cores, limited_threads

GB = 10**9


@pytest.fixture
def root(tmp_path):
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text("MemTotal: 90000000 kB\nMemAvailable: 50000000 kB\n")
    return tmp_path


def group(root, path, limit, used, dropped, version=2):
    """The files of a control group. `dropped`: bytes of files that it may drop."""
    folder = root / "sys/fs/cgroup" / path
    folder.mkdir(parents=True, exist_ok=True)
    names = ("max", "current", "") if version == 2 else ("limit_in_bytes", "usage_in_bytes", "total_")
    (folder / f"memory.{names[0]}").write_text(f"{limit}\n")
    (folder / f"memory.{names[1]}").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file 1\n{names[2]}inactive_file {dropped}\n")


def test_a_machine_without_groups(root):
    assert free_memory(root) == 50_000_000 * 1024
    assert free_memory(root / "nowhere") == UNKNOWN


def test_a_container_sees_its_own_group_at_the_top(root):
    (root / "proc/self/cgroup").write_text("0::/\n")
    group(root, "", 8 * GB, 5 * GB, GB)
    assert free_memory(root) == 4 * GB
    group(root, "", "max", 5 * GB, GB)
    assert free_memory(root) == 50_000_000 * 1024


def test_the_smallest_limit_around_a_process_counts(root):
    """A job of SLURM, a unit of systemd: groups in groups."""
    (root / "proc/self/cgroup").write_text("0::/system.slice/job_7/step_0\n")
    group(root, "", "max", 60 * GB, GB)
    group(root, "system.slice/job_7", 6 * GB, 5 * GB, GB)
    group(root, "system.slice/job_7/step_0", "max", 5 * GB, GB)
    assert free_memory(root) == 2 * GB
    group(root, "system.slice/job_7/step_0", 9 * GB, 8 * GB, 0)
    assert free_memory(root) == GB
    group(root, "system.slice/other", GB, GB, 0)
    assert free_memory(root) == GB


def test_version_1_of_control_groups(root):
    (root / "proc/self/cgroup").write_text("12:cpu,cpuacct:/x\n7:memory:/docker/abc\n1:name=systemd:/y\n0::/z\n")
    group(root, "memory", 2**63 - 4096, 60 * GB, GB, version=1)  # no limit
    assert free_memory(root) == 50_000_000 * 1024
    group(root, "memory/docker/abc", 4 * GB, 3 * GB, 2 * GB, version=1)
    assert free_memory(root) == 3 * GB
    (root / "proc/self/cgroup").unlink()
    group(root, "memory", 3 * GB, 2 * GB, GB, version=1)  # as a container has it
    assert free_memory(root) == 2 * GB


def test_the_groups_of_version_1_are_each_of_what_they_limit(root):
    """A process lies in one group for its memory and in another for its time."""
    (root / "proc/self/cgroup").write_text("7:memory:/small\n12:cpu,cpuacct:/wide\n")
    group(root, "memory/small", 4 * GB, 3 * GB, 0, version=1)
    group(root, "memory/wide", 2 * GB, 2 * GB, 0, version=1)
    assert free_memory(root) == GB
    for name in ("small", "wide"):
        folder = root / "sys/fs/cgroup/cpu" / name
        folder.mkdir(parents=True)
        (folder / "cpu.cfs_period_us").write_text("100000\n")
        (folder / "cpu.cfs_quota_us").write_text("10000\n" if name == "small" else "-1\n")
    assert cpu_cores(root) == threads._given()


@pytest.mark.parametrize(
    ("given", "time", "cores"),
    [
        *((64, "200000 100000", 2), (64, "150000 100000", 2), (64, "50000 100000", 1), (1, "400000 100000", 1)),
        *((8, "max 100000", 8), (8, "", 8), (8, "many", 8), (8, "1 0", 8)),
    ],
)
def test_a_container_with_the_time_of_some_cores(root, monkeypatch, given, time, cores):
    """docker run --cpus 1.5"""
    monkeypatch.setattr(threads, "_given", lambda: given)
    (root / "proc/self/cgroup").write_text("0::/a/b\n")
    (root / "sys/fs/cgroup/a/b").mkdir(parents=True)
    (root / "sys/fs/cgroup/a/cpu.max").write_text(f"{time}\n")
    assert cpu_cores(root) == cores
    monkeypatch.setattr(threads, "cpu_cores", lambda: cores)
    monkeypatch.setattr(threads._Limit, "told", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert limited_threads() == (cores if cores < given else 0)
    threads.limit_threads()  # as the command line does, for torch; other runtimes still ask
    assert limited_threads() == (cores if cores < given else 0)
    assert os.environ.get("OMP_NUM_THREADS") == (str(cores) if cores < given else None)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert limited_threads() == 0


def test_the_time_of_cores_in_version_1(root, monkeypatch):
    monkeypatch.setattr(threads, "_given", lambda: 64)
    (root / "proc/self/cgroup").write_text("3:cpu,cpuacct:/docker/abc\n7:memory:/x\n")
    folder = root / "sys/fs/cgroup/cpu/docker/abc"
    folder.mkdir(parents=True)
    for quota, cores in (("250000", 3), ("-1", 64)):
        (folder / "cpu.cfs_quota_us").write_text(quota)
        (folder / "cpu.cfs_period_us").write_text("100000")
        assert cpu_cores(root) == cores


@pytest.mark.parametrize("broken", ["", "x", "0::/../..", ":::", "7:memory"])
def test_what_cannot_be_read_sets_no_limit(root, broken):
    (root / "proc/self/cgroup").write_text(broken)
    (root / "sys/fs/cgroup").mkdir(parents=True)
    (root / "sys/fs/cgroup/memory.max").write_text("many")
    assert free_memory(root) == 50_000_000 * 1024


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
            True,
        ),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), True),
        (RuntimeError("could not create a primitive"), True),
        (
            RuntimeError("could not create a primitive descriptor for a convolution"),
            False,
        ),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes"), True),
        (RuntimeError("CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate(handle)"), True),
        (ImportError("libgomp.so.1: cannot allocate memory in static TLS block"), False),
        (TypeError("cannot allocate an object of abstract type"), False),
        (RuntimeError("Failed to allocate memory for requested buffer of size 12"), True),
        (OSError(12, "Cannot allocate memory"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_what_says_that_there_is_no_memory(error, expected):
    assert is_out_of_memory(error) == expected
