"""What a probe may take of a machine, by stand-ins for its files: control groups, file systems, slow processors."""

import errno
import os
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from planner.errors import InputError
from planner.hardware import load_hardware
from planner.hardware.writer import to_toml
from planner.probe import disk, limits, products
from planner.probe import measure as measuring
from planner.probe.disk import default_folder, file_system, measure_disk, scratch
from planner.probe.limits import core_bound, cores, memory_bound
from planner.probe.products import measure_products

DAY = date(2026, 11, 22)
TINY = measuring.Effort(2**22, 2**22, (1, 2), 3, 2, 0.02, True)
GIB = 2**30
Run = Callable[..., tuple[int, str, str]]


class Machine:
    """A folder that stands for ``/proc`` and the control groups of a host with 512 GiB and 64 processors."""

    def __init__(self, top: Path) -> None:
        self.proc, self.groups = top / "proc", top / "cgroup"
        (self.proc / "self").mkdir(parents=True)
        self.groups.mkdir()
        (self.proc / "meminfo").write_text(f"MemTotal: {600 * 2**20} kB\nMemAvailable: {512 * 2**20} kB\n")

    def mounted(self, kind: str, root: str, own: str, controllers: str = "") -> Path:
        """A hierarchy mounted from ``root`` on, in which this process is in the group ``own``; its folder."""
        at = self.groups / (controllers or "unified")
        at.mkdir(exist_ok=True)
        with open(self.proc / "self" / "mountinfo", "a") as table:
            table.write(f"30 23 0:26 {root} {at} rw,nosuid shared:4 - {kind} {kind} rw,{controllers or 'nsdelegate'}\n")
        with open(self.proc / "self" / "cgroup", "a") as table:
            table.write(f"{3 if controllers else 0}:{controllers}:{own}\n")
        return at

    @staticmethod
    def group(at: Path, **values: object) -> None:
        at.mkdir(parents=True, exist_ok=True)
        for name, value in values.items():
            (at / name.replace("__", ".")).write_text(f"{value}\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    found = Machine(tmp_path)
    monkeypatch.setattr(limits, "PROC", found.proc)
    monkeypatch.setattr(limits.os, "cpu_count", lambda: 64)
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    return found


# -- control groups ------------------------------------------------------------------------------------------------------
def test_without_groups_the_machine_is_what_there_is(machine: Machine) -> None:
    assert memory_bound().value == 512 * GIB and not memory_bound().binds
    assert cores() == 64 and not core_bound().binds


def test_memory_where_linux_does_not_say_what_is_free(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    (machine.proc / "meminfo").unlink()
    assert memory_bound().value == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    monkeypatch.delattr(limits.os, "sysconf")
    with pytest.raises(InputError, match="does not say how much memory"):
        memory_bound()


@pytest.mark.parametrize("seen", [True, False], ids=["own namespace", "the host's path"])
def test_a_container_of_version_2_has_what_its_group_leaves(machine: Machine, seen: bool) -> None:
    own = "/" if seen else "/kubepods/pod1/c1"
    at = machine.mounted("cgroup2", "/" if seen else own, own)
    machine.group(at, memory__max=4 * GIB, memory__high="max", memory__current=3 * GIB, cpu__max="250000 100000")
    machine.group(at, memory__stat=f"anon 1\ninactive_file {2 * GIB}\nactive_file 7")
    found = memory_bound()
    assert found.value == 3 * GIB and found.said == "memory.max of the control group" and found.of == 512 * GIB
    assert core_bound().value == 2.5 and cores() == 2 and core_bound().said == "cpu.max of the control group"


def test_a_container_of_version_1_has_what_its_group_leaves(machine: Machine) -> None:
    docker = "/docker/0123"
    memory = machine.mounted("cgroup", docker, docker, "memory")
    machine.group(memory, memory__limit_in_bytes=8 * GIB, memory__usage_in_bytes=GIB, memory__stat="total_inactive_file 0")
    both = machine.mounted("cgroup", docker, docker, "cpu,cpuacct")
    machine.group(both, cpu__cfs_quota_us=50_000, cpu__cfs_period_us=100_000)
    assert memory_bound().value == 7 * GIB and "limit_in_bytes" in memory_bound().said
    assert core_bound().value == 0.5 and cores() == 1
    machine.group(memory, memory__limit_in_bytes=9223372036854771712)
    machine.group(both, cpu__cfs_quota_us=-1)
    assert not memory_bound().binds and cores() == 64


def test_every_level_above_binds_as_well(machine: Machine) -> None:
    at = machine.mounted("cgroup2", "/", "/slurm/job/step")
    machine.group(at / "slurm/job/step", memory__max="max", cpu__max="max 100000", memory__current=GIB)
    machine.group(at / "slurm/job", memory__max=6 * GIB, memory__high=5 * GIB, memory__current=GIB)
    machine.group(at / "slurm", cpu__max="300000 100000")
    assert memory_bound().value == 4 * GIB and memory_bound().said == "memory.high of the control group"
    assert cores() == 3


@pytest.mark.parametrize("text", ["", "garbage", "-4", "max", "1e9", "9" * 40, "\0\xff", "0 0", "100000 0"])
def test_limits_that_are_none_bind_nothing(machine: Machine, text: str) -> None:
    at = machine.mounted("cgroup2", "/", "/../../outside")
    machine.group(at, memory__max=text, cpu__max=text, memory__current=text, memory__stat=text)
    (machine.proc / "self" / "cgroup").open("a").write("one:two\n\n::\n")
    (machine.proc / "self" / "mountinfo").open("a").write("a b c\n - \n - cgroup2\n")
    assert not memory_bound().binds and cores() == 64


def test_a_group_that_is_full_leaves_nothing(machine: Machine) -> None:
    at = machine.mounted("cgroup2", "/", "/")
    machine.group(at, memory__max=GIB, memory__current=2 * GIB)
    assert memory_bound().value == 0
    with pytest.raises(InputError, match=r"0.00 GB of memory is free \(memory.max of the control group\), too little"):
        measuring.probe(TINY, None, 1)


def test_affinity_binds(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda _: {3, 5})
    assert cores() == 2 and core_bound().said == "the processors that this process may run on"
    with pytest.raises(InputError, match="3 is more than the 2 cores here"):
        measuring.probe(TINY, None, 3)


def test_the_profile_says_which_bound_was_used(machine: Machine, tmp_path: Path, run: Run) -> None:
    at = machine.mounted("cgroup2", "/", "/")
    machine.group(at, memory__max=4 * GIB, memory__current=0, cpu__max="50000 100000")
    file = tmp_path / "small.toml"
    found = measuring.probe(TINY, None)
    assert found.threads == 1 and found.memory.usable == 4 * GIB
    assert any("0.5 of a core" in note for note in found.notes) and any("1 of 64 cores count" in note for note in found.notes)
    assert any("4.29 GB of 549.76 GB of free memory count: memory.max" in note for note in found.notes)
    profile = found.profile("small", DAY)
    assert profile.tiers[0].usable.value == pytest.approx(4 * GIB, rel=1e-3)
    assert "memory.max of the control group" in profile.tiers[0].usable.note
    assert "1 cores of 64 (cpu.max of the control group)" in profile.device.compute["fp32"].peak.note
    assert "quick look" in profile.name
    file.write_text(to_toml(profile))
    assert load_hardware(str(file)).system == profile and run("lint", file)[0] == 0


def test_arrays_shrink_to_what_there_is(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    at = machine.mounted("cgroup2", "/", "/")
    machine.group(at, memory__max=GIB, memory__current=0)
    shrunk, notes = measuring._within(measuring.FULL)
    assert shrunk.array_bytes == GIB // 4 and "in place of 537 MB" in notes[1]
    machine.group(at, memory__max=2**28)
    assert measuring._within(measuring.FULL)[0].array_bytes == 2**26
    machine.group(at, memory__max=2**28 - 1)
    with pytest.raises(InputError, match="too little to measure it"):
        measuring._within(measuring.FULL)
    machine.group(at, memory__max="max")
    assert measuring._within(measuring.FULL) == (measuring.FULL, [])


# -- slow processors -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("gflops", "whole"), [(100.0, True), (0.3, False)])
def test_a_slow_processor_gets_less_to_do(gflops: float, whole: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock that products move on, nothing is computed and nothing depends on this machine."""
    now, longest = [0.0], [0.0]

    def work(flop: float) -> None:
        took = flop / (gflops * 1e9)
        now[0] += took
        longest[0] = max(longest[0], took)

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(products, "product", lambda given, weights, out: work(2.0 * len(given) * weights.size))
    monkeypatch.setattr(np, "matmul", lambda a, b, out: work(2.0 * len(a) ** 3))
    found = measure_products("fp32", quick=False, runs=9)
    assert found.peak.value == pytest.approx(gflops * 1e9) and found.peak.runs >= 3
    assert (found.left_out == 0) == whole and (len(found.by_rows) == len(products.ROWS)) == whole
    assert whole or (found.left_out > found.by_rows[-1][0] and longest[0] <= 2 * products.SLOW_S and now[0] < 100)


# -- file systems --------------------------------------------------------------------------------------------------------
def test_direct_access_that_is_refused_after_opening_goes_another_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    real, flag = os.pwritev, getattr(os, "O_DIRECT", 0)

    def refuse(descriptor: int, buffers: list[memoryview], offset: int) -> int:
        if fcntl.fcntl(descriptor, fcntl.F_GETFL) & flag:
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(descriptor, buffers, offset)

    monkeypatch.setattr(disk.os, "pwritev", refuse)
    with scratch(tmp_path, 1) as file:
        assert not file.direct
    found = measure_disk(tmp_path, size=2**20, depths=(1,), runs=1, seconds=0.01)
    assert not found.direct and any("page cache" in note for note in found.notes)


def test_a_folder_in_memory_is_no_disk_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    device = os.stat(tmp_path).st_dev
    table = tmp_path / "mountinfo"
    number = f"{os.major(device)}:{os.minor(device)}"
    table.write_text(f"1 1 0:0 / /x rw - ext4 none rw\ncut\n2 1 {number} / / rw shared:1 - tmpfs none rw\n")
    monkeypatch.setattr(disk, "MOUNTS", table)
    assert file_system(tmp_path) == "tmpfs" and file_system(tmp_path / "none") == "unknown"
    found = measure_disk(tmp_path, size=2**20, depths=(1,), runs=1, seconds=0.01)
    assert found.notes == ("the folder lies in memory (tmpfs): this is no disk; name another folder with --disk",)
    tier = measuring.probe(TINY, tmp_path, 1).profile("h", DAY).tiers[1]
    assert "this is no disk" in tier.read.note and tier.iops is not None and "this is no disk" in tier.iops.note
    monkeypatch.setattr(disk, "memory_bound", lambda: limits.Bound(2.0**21, "memory.max of the control group", 1e12))
    with pytest.raises(InputError, match="too little room for a scratch file"):
        measure_disk(tmp_path, size=2**21, depths=(1,), runs=1, seconds=0.01)
    table.unlink()
    assert file_system(tmp_path) == "unknown"


def test_the_folder_of_choice_is_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.tempfile, "gettempdir", lambda: str(tmp_path))
    kinds = {tmp_path: "tmpfs", Path("/var/tmp"): "tmpfs"}
    monkeypatch.setattr(disk, "file_system", lambda folder: kinds.get(folder, "ext4"))
    monkeypatch.chdir(tmp_path.parent)
    assert default_folder() == tmp_path.parent
    kinds[tmp_path] = "ext4"
    assert default_folder() == tmp_path
    kinds |= {tmp_path: "tmpfs", tmp_path.parent: "tmpfs"}
    assert default_folder() == tmp_path


def test_a_folder_that_vanishes_is_told_or_not_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    with scratch(folder, 1) as file:
        folder.rmdir()
        file.read(disk.aligned(disk.GRANULE), 0)
    folder.mkdir()
    real = disk.shutil.disk_usage

    def late(path: Path) -> object:
        found = real(path)
        folder.rmdir()
        return found

    monkeypatch.setattr(disk.shutil, "disk_usage", late)
    with pytest.raises(InputError, match="gone: cannot be written"), scratch(folder, 1):
        pass
    folder.mkdir()
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
    with pytest.raises(InputError, match=r"cannot be used \(Permission denied\)"):
        measure_disk(folder, size=1, depths=(1,), runs=1, seconds=0.01)


def test_a_large_disk_need_not_stay_free_by_a_twentieth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = disk.shutil._ntuple_diskusage(100 * 10**12, 99 * 10**12, 10**12)
    monkeypatch.setattr(disk.shutil, "disk_usage", lambda path: usage)
    disk.check_room(tmp_path, 900 * 10**9)
    with pytest.raises(InputError, match="10.0 GB of its 1000.0 GB free stay so"):
        disk.check_room(tmp_path, 995 * 10**9)
