"""The cores that a process may use, on made-up machines: mounts and groups as the kernel writes them."""

from pathlib import Path

import pytest

from modeling.images import cores
from modeling.images.cores import cpu_quota, limit_threads, num_affine_cores, num_cores

V2 = "30 23 0:26 {root} {mount} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1 = "33 24 0:29 {root} {mount} rw,relatime - cgroup cgroup rw,{controllers}"


class Machine:
    """A folder for the cgroups, and the two files of a process about them."""

    def __init__(self, folder: Path) -> None:
        self.proc, self.mount = folder / "proc", folder / "sys fs"
        self.proc.mkdir()
        self.mount.mkdir()
        self._mounts: list[str] = []

    def mounted(self, line: str, **facts: str) -> None:
        at = str(self.mount).replace(" ", "\\040")
        self._mounts.append(line.format(mount=at, **({"root": "/"} | facts)))
        (self.proc / "mountinfo").write_text("\n".join(self._mounts) + "\n")

    def group(self, *lines: str) -> None:
        (self.proc / "cgroup").write_text("\n".join(lines) + "\n")

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
    monkeypatch.setattr(cores.os, "sched_getaffinity", lambda _: range(affine))
    monkeypatch.setattr(cores, "cpu_quota", lambda: quota)

    assert (num_affine_cores(), num_cores()) == (affine, expected)
    limited = {} if expected == affine else {"OMP_NUM_THREADS": str(expected)}
    assert limit_threads({}) == limited
    assert limit_threads({"OMP_NUM_THREADS": "7"}) == {}
