"""The cores and the memory that a process may use, on made-up machines: mounts and groups as the kernel writes them.

Then in real control groups, where root may make some.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modeling.images import quotas
from modeling.images.budget import decode_bytes
from modeling.images.quotas import (
    cpu_quota,
    limit_threads,
    memory_left,
    memory_quota,
    memory_total,
    num_affine_cores,
    num_cores,
)

V2 = "30 23 0:26 {root} {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 24 0:29 {root} {mount} rw,relatime - cgroup cgroup rw,{controllers}"


class Machine:
    """A folder for the cgroups, and the two files of a process about them."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.mount = folder / "proc", folder / "sys fs"
        (self.proc / "self").mkdir(parents=True)
        (self.proc / "meminfo").write_text("MemTotal: 8000 kB\nMemFree: 1 kB\nMemAvailable: 5000 kB\n")
        self.mount.mkdir()
        self._mounts: list[str] = []

    def mounted(self, line: str, **facts: str) -> None:
        at = str(self.mount).replace(" ", "\\040")
        self._mounts.append(line.format(mount=at, **({"root": "/"} | facts)))
        (self.proc / "self/mountinfo").write_text("\n".join(self._mounts) + "\n")

    def group(self, *lines: str) -> None:
        (self.proc / "self/cgroup").write_text("\n".join(lines) + "\n")

    def limit(self, group: str, **files: str) -> None:
        folder = self.mount / group
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            (folder / name.replace("__", ".")).write_text(f"{text}\n")

    @property
    def quota(self) -> float | None:
        return cpu_quota(self.proc)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_version_2_the_least_of_all_parents_counts(machine: Machine):
    machine.mounted(V2)
    machine.group("0::/a/b/c")
    machine.limit("a", cpu__max="150000 100000")
    machine.limit("a/b", cpu__max="50000 100000")
    machine.limit("a/b/c", cpu__max="max 100000")
    machine.limit("other", cpu__max="1000 100000")

    assert machine.quota == 0.5


def test_version_1_the_least_of_all_parents_counts(machine: Machine):
    machine.mounted(V1, controllers="cpu,cpuacct")
    machine.group("5:cpuset:/elsewhere", "4:cpu,cpuacct:/a/b", "0::/")
    machine.limit("a", cpu__cfs_quota_us="250000", cpu__cfs_period_us="100000")
    machine.limit("a/b", cpu__cfs_quota_us="-1", cpu__cfs_period_us="100000")

    assert machine.quota == 2.5


def test_a_container_sees_its_own_group_at_the_top_of_the_mount(machine: Machine):
    machine.mounted(V1, controllers="cpu", root="/docker/1234")
    machine.group("4:cpu:/docker/1234/inner")
    machine.limit("", cpu__cfs_quota_us="100000", cpu__cfs_period_us="50000")

    assert machine.quota == 2


def test_a_group_outside_of_what_is_mounted_is_that_of_the_top(machine: Machine):
    machine.mounted(V2, root="/")
    machine.group("0::/../sibling")
    machine.limit("", cpu__max="30000 20000")

    assert machine.quota == 1.5


@pytest.mark.parametrize("text", ["max 100000", "", "nonsense", "0 0"])
def test_no_limit_is_none(machine: Machine, text: str):
    machine.mounted(V2)
    machine.group("0::/a")
    machine.limit("a", cpu__max=text)

    assert machine.quota is None


def test_a_machine_without_cgroups_has_no_limit(tmp_path: Path):
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("affine", "quota", "expected"), [(4, None, 4), (4, 0.5, 1), (4, 2.5, 3), (4, 2.0, 2), (2, 16.0, 2)]
)
def test_threads_are_those_of_the_affinity_that_the_quota_allows(monkeypatch, affine: int, quota, expected: int):
    monkeypatch.setattr(quotas.os, "sched_getaffinity", lambda _: range(affine))
    monkeypatch.setattr(quotas, "cpu_quota", lambda: quota)

    assert (num_affine_cores(), num_cores()) == (affine, expected)
    limited = {} if expected == affine else {"OMP_NUM_THREADS": str(expected)}
    assert limit_threads({}) == limited
    assert limit_threads({"OMP_NUM_THREADS": "7"}) == {}


def memory(machine: Machine) -> tuple[int | None, int, int]:
    """In units of 1024 bytes: quota, total and left."""
    quota = memory_quota(machine.proc)
    return quota and quota >> 10, memory_total(machine.proc) >> 10, memory_left(machine.proc) >> 10


def test_version_2_the_least_memory_of_all_parents_counts_and_cached_files_are_free(machine: Machine):
    machine.mounted(V2)
    machine.group("0::/a/b")
    machine.limit("a", memory__max=f"{2000 << 10}", memory__current=f"{1900 << 10}", memory__stat="anon 1\nfile 2")
    machine.limit("a/b", memory__max=f"{3000 << 10}", memory__high="max", memory__current=f"{1000 << 10}")
    machine.limit("a", memory__stat=f"anon 1\ninactive_anon 5\ninactive_file {300 << 10}")

    assert memory(machine) == (2000, 2000, 400)


def test_version_2_what_slows_a_group_down_counts_as_its_limit(machine: Machine):
    machine.mounted(V2)
    machine.group("0::/a")
    machine.limit("a", memory__max=f"{2000 << 10}", memory__high=f"{1000 << 10}", memory__current="0")

    assert memory(machine) == (1000, 1000, 1000)


def test_version_1_has_no_word_for_no_limit(machine: Machine):
    machine.mounted(V1, controllers="memory")
    machine.group("8:memory:/a/b", "0::/")
    machine.limit("", memory__limit_in_bytes=f"{(1 << 63) - 4096}", memory__usage_in_bytes="0")
    assert memory(machine) == (None, 8000, 5000)

    facts = {"memory__usage_in_bytes": f"{900 << 10}", "memory__stat": f"cache 1\ntotal_inactive_file {100 << 10}"}
    machine.limit("a", memory__limit_in_bytes=f"{1000 << 10}", **facts)
    assert memory(machine) == (1000, 1000, 200)


def test_a_group_that_is_over_its_limit_has_nothing_left(machine: Machine):
    machine.mounted(V2)
    machine.group("0::/a")
    machine.limit("a", memory__max="1000", memory__current="2000")

    assert memory_left(machine.proc) == 0


def test_where_the_figures_of_the_machine_are_hidden_the_system_is_asked(machine: Machine):
    (machine.proc / "meminfo").unlink()

    assert memory_total(machine.proc) > memory_left(machine.proc) > 1 << 20


@pytest.mark.parametrize(("allowed", "expected"), [(1 << 30, 1 << 28), (64 << 30, 24 * 89_478_485)])
def test_decoding_gets_a_share_of_little_memory_and_no_more_than_the_largest_image_takes(allowed, expected):
    assert decode_bytes(allowed) == expected


@contextlib.contextmanager
def real_group(controller: str, *limits: tuple[str, str]) -> Iterator[Path]:
    """A control group of its own with these files written; skips where none can be made."""
    top = Path("/sys/fs/cgroup")
    folder = (top / controller if (top / controller).is_dir() else top) / f"pigeonhole-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as err:
        pytest.skip(f"no control group can be made: {err}")
    try:
        for name, text in limits:
            if (folder / name).exists():
                (folder / name).write_text(text)
        yield folder
    except OSError as err:
        pytest.skip(f"no limit can be set: {err}")
    finally:
        folder.rmdir()


@pytest.mark.parametrize(
    ("controller", "limits", "question", "expected"),
    [
        (
            "cpu", (("cpu.cfs_quota_us", "50000"), ("cpu.max", "50000 100000")),
            "cpu_quota(), num_cores(), limit_threads({})", (0.5, 1, {"OMP_NUM_THREADS": "1"}),
        ),
        (
            "memory", (("memory.limit_in_bytes", f"{1 << 30}"), ("memory.max", f"{1 << 30}")),
            "memory_quota(), BUDGET.total, memory_left() < 1 << 30", (1 << 30, 1 << 28, True),
        ),
    ],
)  # fmt: skip
def test_a_process_in_a_real_control_group_finds_its_quota(controller, limits, question, expected):
    code = f"from modeling.images.quotas import *; from modeling.images.budget import BUDGET; print(({question}))"
    with real_group(controller, *limits) as folder:
        if not any((folder / name).exists() for name, _ in limits):
            pytest.skip(f"the controller {controller} is not available")
        script = 'echo $$ > "$0/cgroup.procs"; exec "$@"'
        command = ["sh", "-c", script, str(folder), sys.executable, "-c", code]
        environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
        answer = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)

    if controller == "cpu" and num_affine_cores() == 1:
        pytest.skip("one core cannot be limited further")
    assert answer.stdout.strip() == str(expected)
