"""Profiles made to break ``planner lint`` and ``planner list``, and figures that only look true."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from planner.errors import InputError, PlannerError
from planner.hardware import folders, list_hardware, load_hardware, source
from planner.hardware.lint import MAX_FAULTS, Fault, lint
from planner.hardware.source import ProfileSource

TODAY = date(2026, 11, 22)
NODE = 'schema = 1\nkind = "node"\nid = "mine"\nextends = "h100-node"\n'
DEVICE = 'schema = 1\nkind = "device"\nid = "mine"\nextends = "h100-sxm"\n'
SURE = 'source = "s", as_of = 2026-01-01, grade = "A"'

Check = Callable[[str], list[Fault]]


@pytest.fixture
def check(tmp_path: Path) -> Check:
    def run(text: str) -> list[Fault]:
        (tmp_path / "mine.toml").write_text(text, encoding="utf-8")
        return lint(tmp_path / "mine.toml", today=TODAY)

    return run


def planner(*arguments: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "planner", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


# --- size ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        NODE + "".join(f"[t{i}]\n" for i in range(100_000)),
        NODE + "".join(f"k{i} = 1\n" for i in range(20_000)),
        NODE + '[[tier]]\nid = "t"\n' * 20_000,
        NODE + "".join(f'[[link]]\nid = "l{i}"\n' for i in range(20_000)),
        DEVICE + "".join(f"[compute.x{i}]\n" for i in range(20_000)),
        NODE + "aliases = [" + '"A",' * 20_000 + "]",
    ],
)
def test_a_file_of_faults_is_one_fault(text: str, check: Check) -> None:
    start = time.process_time()
    (fault,) = check(text)
    assert "at most 256" in fault.mend
    assert time.process_time() - start < 10.0


def test_no_more_than_two_hundred_faults_of_a_file_are_told(check: Check) -> None:
    text = NODE + "".join(f'[[link]]\nid = "l{i}"\nkind = "x"\n' for i in range(250))
    faults = check(text)
    assert len(faults) == MAX_FAULTS + 1
    assert faults[-1].what.startswith("and ") and faults[-1].what.endswith(" more faults")


def test_names_and_signatures_of_a_folder_are_put_together_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = """schema = 1
kind = "interconnect"
id = "ID"
name = "n"
vendor = "VENDOR"
origin = "western"
status = "shipping"
as_of = 2026-11-20
network = "mine"
direction = "one-way"
duplex = "full"
topology = "switch"
"""
    part += f'bandwidth = {{ value = "10 GB/s", {SURE} }}\nlatency = {{ value = "1 us", {SURE} }}\n'
    for number in range(40):
        (tmp_path / f"p{number}.toml").write_text(part.replace("ID", f"p{number}").replace("VENDOR", f"v{number}"))
    (tmp_path / "twin.toml").write_text(part.replace("ID", "twin").replace("VENDOR", "v7"))
    read: list[Path] = []
    text_of = source.read_text
    monkeypatch.setattr(source, "read_text", lambda path, **limits: read.append(path) or text_of(path, **limits))
    passes: list[str] = []
    names_of = ProfileSource.names
    monkeypatch.setattr(ProfileSource, "names", lambda self, sort: passes.append(sort) or names_of(self, sort))
    profiles = ProfileSource([tmp_path])
    faults = [str(fault) for path in sorted(tmp_path.glob("*.toml")) for fault in lint(path, source=profiles, today=TODAY)]
    assert len(faults) == 2 and all("one part twice" in fault for fault in faults)
    mine = [path for path in read if path.parent == tmp_path]
    assert len(mine) <= 2 * 41 and len(passes) <= 4


def test_few_raw_tables_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "KEPT_CHARACTERS", 1000)
    for number in range(20):
        (tmp_path / f"n{number}.toml").write_text(NODE.replace("mine", f"n{number}") + "#" * 200)
    profiles = ProfileSource([tmp_path])
    for path in tmp_path.iterdir():
        assert profiles.raw(path)["kind"] == "node"
    assert len(profiles._documents) <= 5


def test_a_folder_is_searched_with_a_limit_and_links_stay_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "mine.toml").write_text(NODE)
    (tmp_path / "secret.toml").write_text("secret = 1")
    (inside / "link.toml").symlink_to(tmp_path / "secret.toml")
    done = planner("lint", str(inside))
    assert "1 profile checked" in done.stdout and "secret" not in done.stdout
    monkeypatch.setattr(folders, "MAX_ENTRIES", 1)
    with pytest.raises(InputError, match="more than 1 files and folders"):
        load_hardware("mine", folders=[inside])


def test_an_empty_folder_name_is_refused() -> None:
    done = planner("list", "hardware", "--profiles", "")
    assert done.returncode == 2 and "is empty" in done.stderr


def test_a_graph_of_too_many_devices_is_refused() -> None:
    system = load_hardware("h100-node").system.model_copy(update={"devices": 1_000_000, "devices_per_node": 1_000_000})
    with pytest.raises(InputError, match="1000000 devices is too large for a graph"):
        system.graph()


@pytest.mark.parametrize(("key", "value"), [("usable", "1 B"), ("efficiency", "1e-300"), ("read", "1e300 B/s")])
def test_an_extreme_figure_is_named_at_once(key: str, value: str, tmp_path: Path) -> None:
    (tmp_path / "dev.toml").write_text(
        DEVICE.replace("mine", "dev") + f'[[memory]]\nid = "hbm"\n{key} = {{ value = "{value}", note = "n", {SURE} }}\n'
    )
    (tmp_path / "mine.toml").write_text(NODE + 'device = "dev.toml"\n')
    with pytest.raises(InputError, match=f"hbm.{key}: value: .* is too (little|much)"):
        load_hardware(str(tmp_path / "mine.toml"))


def test_a_solver_without_digits_blames_the_figures() -> None:
    from planner.search.tier_lp import unsolved

    far = unsolved("stopped", np.array([[1e-9, 0.0], [1.0, 1e9]]))
    assert isinstance(far, InputError) and far.exit_code == 2 and "from 1e-09 to 1e+09" in str(far)
    near = unsolved("stopped", np.array([[1.0, 2.0]]))
    assert type(near) is PlannerError and str(near) == "stopped"


# --- dates, kinds, text -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("as_of", "what"),
    [
        ("2026-11-20T10:00:00", "no plain date"),
        ("2026-11-20T00:00:00Z", "no plain date"),
        ("4080000000", "no plain date"),
        ("true", "no plain date"),
        ('"20 November"', "no plain date"),
        ("2099-01-01", "lies in the future"),
        ('"2099-01-01"', "lies in the future"),
    ],
)
def test_dates_are_plain_and_past(as_of: str, what: str, check: Check) -> None:
    assert any(fault.key == "as_of" and what in fault.what for fault in check(NODE + f"as_of = {as_of}\n"))
    figure = f'capex = {{ value = "300 kUSD", source = "s", as_of = {as_of}, grade = "A" }}\n'
    assert any(fault.key == "capex.as_of" and what in fault.what for fault in check(NODE + figure))


def test_a_future_date_of_what_is_extended_is_found(tmp_path: Path) -> None:
    (tmp_path / "base.toml").write_text(NODE.replace("mine", "base") + "as_of = 2099-01-01\n")
    (tmp_path / "mine.toml").write_text(NODE.replace("h100-node", "base"))
    faults = lint(tmp_path / "mine.toml", source=ProfileSource([tmp_path]), today=TODAY)
    assert any("lies in the future" in fault.what for fault in faults)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (('kind = "node"', 'kind = "nod"'), "got 'nod'"),
        (('kind = "node"', "kind = []"), "got []"),
        (("schema = 1", "schema = 2"), "expected 1, got 2"),
        (("schema = 1", "schema = true"), "expected 1, got True"),
        (('id = "mine"', 'id = "mine"\nname = "\\u001b[31mred"'), "unprintable character U+001B"),
        (('id = "mine"', 'id = "mine"\n"\\u202e" = 1'), "unprintable character U+202E"),
    ],
)
def test_what_cannot_be_used_is_listed_with_its_fault(change: tuple[str, str], what: str, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(NODE.replace(*change))
    (row,) = (row for row in list_hardware(folders=[tmp_path], packs=False) if row.id == "mine")
    assert what in row.fault
    faults = lint(tmp_path / "mine.toml", today=TODAY)
    assert faults and (what in str(faults[0]) or "schema" in str(faults[0]))


@pytest.mark.parametrize("text", ["x &lt b", "x &#60script", "x &amp; y", "<b>"])
def test_markup_is_found_without_its_semicolon(text: str, check: Check) -> None:
    assert any("markup" in fault.what for fault in check(NODE + f'name = "{text}"\n'))
    assert check(NODE + 'name = "R&D at AT&T, https://a.b/?x=1&lt=2"\n') == []


# --- figures that only look true ----------------------------------------------------------------------------------

DOMAIN, LINK, TIER, MEMORY = (f"[[{name}]]\n" for name in ("domain", "link", "tier", "memory"))


def figure(key: str, value: str, note: str = "") -> str:
    return f'{key} = {{ value = "{value}", note = "{note}", {SURE} }}\n'


LOOKS = {
    "Gb for GB": (NODE + DOMAIN + 'id = "scale-out"\n' + figure("bandwidth", "400 GB/s"), "above the 50 GB/s one-way of ib-400g"),
    "spelling of NVLink": (NODE + DOMAIN + 'id = "nvlink"\nnetwork = "nvlink-4"\n', "write 'nvlink4'"),
    "spelling of PCIe": (NODE + LINK + 'id = "pcie"\ngeneration = "PCIe 5.0 x16"\n', "write 'pcie5-x16'"),
    "PCIe without": (NODE + LINK + 'id = "pcie"\ngeneration = ""\n' + figure("bandwidth", "128 GB/s"), "generation: is missing"),
    "fp4 of bf16": (DEVICE + '[compute.fp4]\ncounting = "dense"\n' + figure("peak", "20 PFLOP/s"), "times that of bf16"),
    "not dense": (
        DEVICE + '[compute.fp8]\ncounting = "dense"\n' + figure("peak", "3958 TFLOP/s", "not dense"),
        "looks like a sparse",
    ),
    "says sparse": (
        DEVICE + '[compute.bf16]\ncounting = "dense"\n' + figure("peak", "989 TFLOP/s", "2:4 sparsity"),
        "no dense peak",
    ),
    "all doubled": (
        DEVICE
        + "".join(
            f'[compute.{dtype}]\ncounting = "dense"\n' + figure("peak", f"{peak} TFLOP/s")
            for dtype, peak in (("bf16", 1979), ("fp8", 3958), ("int8", 3958))
        ),
        "every peak is twice that of h100-sxm",
    ),
    "MiB of a label": (DEVICE + MEMORY + 'id = "hbm"\n' + figure("usable", "81920 MiB", "n"), "binary units"),
    "not GiB": (DEVICE + MEMORY + 'id = "hbm"\n' + figure("usable", "80 GiB", "not GiB at all"), "binary units"),
    "no width": (
        NODE
        + 'capex = { value = "300 kUSD", low = "300 kUSD", high = "300 kUSD", source = "s", as_of = 2026-01-01, grade = "D" }\n',
        "are the same",
    ),
    "nearly twice": (
        NODE
        + TIER
        + 'id = "host2"\nkind = "ddr"\nrole = "host"\nowner = "cpu"\ndevices_sharing = 4\nvia = ["pcie"]\ngranule_bytes = 64\n'
        + figure("usable", "1.0001 TB")
        + figure("read", "307 GB/s")
        + figure("latency", "1 us"),
        "one memory listed twice",
    ),
    "a million units": (NODE + TIER + 'id = "host"\npart = "ddr5-rdimm-64gb"\nunits = 1000000\n', "is no count"),
}


@pytest.mark.parametrize("name", LOOKS)
def test_a_figure_that_only_looks_true(name: str, check: Check) -> None:
    text, what = LOOKS[name]
    assert any(what in str(fault) for fault in check(text)), [str(fault) for fault in check(text)]


def test_what_tools_print_and_true_steps_pass(check: Check) -> None:
    assert check(DEVICE + MEMORY + 'id = "hbm"\n' + figure("usable", "81559 MiB", "nvidia-smi")) == []
    assert check(DEVICE + '[compute.fp8]\ncounting = "dense"\n' + figure("peak", "1979 TFLOP/s", "dense, not sparse")) == []
    assert check(NODE + DOMAIN + 'id = "scale-out"\n' + figure("bandwidth", "50 GB/s")) == []


def test_an_estimate_is_as_old_as_its_oldest_part(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(NODE + TIER + 'id = "host"\npart = "ddr5-rdimm-64gb"\nunits = 32\nchannels = 24\n')
    capex = load_hardware(str(tmp_path / "mine.toml")).system.capex
    base = load_hardware("h100-node").system.capex
    assert capex.as_of is not None and base.as_of is not None
    days = {
        base.as_of,
        *(date.fromisoformat(word.strip("(),;")) for word in capex.note.split() if word[:3] == "202" and word[4:5] == "-"),
    }
    assert len(days) > 1 and capex.as_of == min(days)


def test_figures_say_where_they_were_measured() -> None:
    h100, h200 = (load_hardware(name).system for name in ("h100-node", "h200-node"))
    for system, grade in ((h100, "B"), (h200, "A")):
        found = [system.domains[0].p2p_efficiency, system.link("pcie").efficiency, system.link("pcie").reverse_efficiency]
        assert [part.grade for part in found if part] == [grade] * 3
    assert "H200" in h100.domains[0].p2p_efficiency.note


# --- Ctrl-C -------------------------------------------------------------------------------------------------------


def test_ctrl_c_while_the_command_line_loads_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import planner.cli as cli
    from planner.__main__ import run

    def stopped() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "main", stopped)
    with pytest.raises(SystemExit) as caught:
        run()
    assert caught.value.code == 130
    assert capsys.readouterr().err == "planner: stopped\n"
