"""What a newcomer to the hardware catalogue has to be told: slips, estimates, assumptions, gaps, names taken."""

from __future__ import annotations

import importlib.util
import json
import re
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from planner.errors import InputError, nearest
from planner.hardware import list_hardware, load_device, load_hardware, load_part
from planner.hardware.given import estimated_capex
from planner.hardware.lint import lint
from planner.hardware.loader import builtin_folder, builtin_profiles
from planner.hardware.plausible import FILE, derived, strange, table
from planner.hardware.source import ProfileSource
from planner.quantities import parse_quantity, plain, readable

TODAY = date(2026, 11, 22)
TOP = Path(__file__).resolve().parents[1]
EVIDENCE = 'source = "s", as_of = 2026-01-01, grade = "A"'
NODE = 'schema = 1\nkind = "node"\nid = "mine"\nextends = "h800-node"\n'
DEVICE = 'schema = 1\nkind = "device"\nid = "mine"\nextends = "h800-sxm"\n'
READ = "ascend-950dt.memory.hbm.read"
Run = Callable[..., tuple[int, str, str]]


def flat(text: str) -> str:
    return " ".join(text.split())


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


# --- figures far from all others --------------------------------------------------------------------------------


def test_the_table_of_ranges_is_that_of_the_catalogue() -> None:
    found = importlib.util.spec_from_file_location("ranges", TOP / ".ci" / "ranges.py")
    assert found and found.loader
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    assert FILE.read_text(encoding="utf-8") == module.text(), "run PYTHONPATH=. python .ci/ranges.py"
    ranges = table()["range"]
    hbm = [load_device(row.id).memory[0] for row in list_hardware(kinds=("device",))]
    rates = [end for tier in hbm if tier.kind == "hbm" and tier.read.known for end in (tier.read.lowest, tier.read.highest)]
    ends = [parse_quantity(text, "bytes_per_s") for text in ranges["memory.hbm"]["read"]]
    assert ends == pytest.approx([min(rates), max(rates)], rel=1e-3)


def test_nothing_of_the_catalogue_is_strange() -> None:
    assert [(profile.id, found) for profile in builtin_profiles() for found in strange(profile)] == []
    assert len(derived(builtin_profiles())) >= 20


SLIPS = {
    "a peak": (DEVICE, '[compute.bf16]\npeak = { value = "800 GFLOP/s", %s }\n', "compute.bf16.peak"),
    "a size": (DEVICE, '[[memory]]\nid = "hbm"\nusable = { value = "128 TB", note = "read", %s }\n', "memory.hbm.usable"),
    "bits for bytes": (DEVICE, '[[memory]]\nid = "hbm"\nread = { value = "4 Gbit/s", %s }\n', "memory.hbm.read"),
    "power": (NODE, 'power = { value = "11 MW", %s }\n', "power"),
    "a price": (NODE, 'capex = { value = "265 USD", %s }\n', "capex"),
    "host memory": (NODE, '[[tier]]\nid = "host"\nusable = { value = "150 MB", %s }\n', "tier.host.usable"),
    "a link": (NODE, '[[link]]\nid = "pcie"\nbandwidth = { value = "6.3 kB/s", %s }\n', "link.pcie.bandwidth"),
    "a network": (NODE, '[[domain]]\nid = "scale-out"\nbandwidth = { value = "50 kB/s", %s }\n', "domain.scale-out.bandwidth"),
}


@pytest.mark.parametrize("name", SLIPS)
def test_a_slip_of_a_unit_is_a_fault_until_it_is_confirmed(name: str, tmp_path: Path) -> None:
    head, row, key = SLIPS[name]
    found = lint(written(tmp_path / "mine.toml", head + row % EVIDENCE), today=TODAY)
    assert [fault.key for fault in found] == [key], found
    assert "more than 10 times outside" in found[0].what and 'begin its note with "confirmed: "' in found[0].mend
    row = row.replace('note = "read", ', "")
    confirmed = row % f'{EVIDENCE}, note = "confirmed: by its maker"'
    assert lint(written(tmp_path / "mine.toml", head + confirmed), today=TODAY) == []


def test_rates_are_counted_per_device(tmp_path: Path) -> None:
    """A rack of 72 has 72 times the power of a device, and no device is strange for it."""
    assert list(strange(load_hardware("gb200-nvl72").system)) == []
    one = NODE + f'power = {{ value = "120 kW", {EVIDENCE} }}\n'
    assert lint(written(tmp_path / "mine.toml", one), today=TODAY) == []
    each = [found.value for found in strange(load_hardware(written(tmp_path / "a.toml", one.replace("120 kW", "1.2 MW"))).system)]
    assert each == ["150 kW a device"]


def test_a_memory_that_no_link_leads_to_is_a_fault(tmp_path: Path) -> None:
    found = lint(written(tmp_path / "mine.toml", NODE + '[[tier]]\nid = "host"\nvia = []\n'), today=TODAY)
    assert [fault.key for fault in found] == ["tier.host.via"] and 'via = ["pcie"]' in found[0].mend


# --- estimates and assumptions ------------------------------------------------------------------------------------


def test_a_cost_by_power_is_a_sentence_of_the_plan_and_of_show(run: Run, tmp_path: Path) -> None:
    gap = 'capex = { unknown = "nobody told", as_of = 2026-11-01 }\n'
    path = written(tmp_path / "mine.toml", NODE + gap)
    taken = estimated_capex(load_hardware(path).system)
    code, out, _ = run("plan", "llama-3.1-8b", path, "--quiet")
    said = f"capex of mine is an estimate: {readable(taken.value, 'usd', taken.lowest, taken.highest)}; "
    assert code == 0 and said in flat(out) and "of stated power at 24 USD a watt (14.5 to 33: median" in flat(out)
    shown = flat(re.sub("[|`]", " ", run("show", "hardware", path)[1]))
    assert (
        "price of the system unknown" in shown
        and f"a plan takes {taken.value:,.0f} USD ({taken.low:,.0f} to {taken.high:,.0f}): " in shown
    )
    assert "24 USD a watt" in shown


def test_a_cost_by_parts_is_a_sentence_of_the_plan_and_of_show(run: Run, tmp_path: Path) -> None:
    part = 'as_of = 2026-11-20\n[[tier]]\nid = "host"\npart = "ddr5-rdimm-64gb"\nunits = 16\n'
    path = written(tmp_path / "mine.toml", NODE + part)
    out = flat(run("plan", "llama-3.1-8b", path, "--quiet")[1])
    shown = flat(re.sub("[|`]", " ", run("show", "hardware", path)[1]))
    for key, figure in (("capex", load_hardware(path).system.capex), ("power", load_hardware(path).system.power)):
        assert f"{key} of mine is an estimate: " in out
        assert figure.note.removeprefix("estimate: ") in out and figure.note.removeprefix("estimate: ") in shown


def test_what_was_given_or_accepted_is_named(run: Run) -> None:
    base = ("plan", "qwen3.8-27b", "ascend-950dt-node", "--allow-announced", "--quiet")
    code, _, err = run(*base)
    assert code == 2 and f"{READ} (default 4 TB/s (2.7 to 4.2); " in err
    out = flat(run(*base, "--set", f"{READ}=default")[1])
    assert f"assumed: {READ} 4 TB/s (2.7 to 4.2), the profile's stated default, accepted with --set: " in out
    assert "assumed: ascend-950dt.memory.hbm.write 4 TB/s (2.7 to 4.2), the profile's stated default, taken without asking" in out
    out = flat(run(*base, "--set", f"{READ}=3.5..3.6..4.0 TB/s", "--set", "ascend-950dt-node.power=8 kW")[1])
    assert f"assumed: {READ} 3.6 TB/s (3.5 to 4), given with --set" in out
    assert "assumed: ascend-950dt-node.power 8 kW, given with --set, no interval given" in out
    assert "assumed" not in run("plan", "llama-3.1-8b", "h100-node", "--quiet")[1]


def test_explain_gives_units(run: Run, tmp_path: Path) -> None:
    plan = tmp_path / "plan.json"
    run("plan", "qwen3.8-27b", "ascend-950dt-node", "--allow-announced", "--set", f"{READ}=default", "-o", plan, "--quiet")
    line = next(line for line in run("explain", plan)[1].splitlines() if "tiers.hbm.read " in line)
    assert line.split()[1:] == ["D", "2.7", "TB/s", "4.2", "TB/s"]


def test_the_message_on_many_gaps_is_whole(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a-rather-long-name-of-a-machine-of-our-own.toml"
    run("init", "hardware", path)
    gap = f'{{ unknown = "{"a long reason " * 20}", as_of = 2026-11-01 }}'
    path.write_text(re.sub(r"\{ unknown = .*\}", gap, path.read_text(encoding="utf-8")), encoding="utf-8")
    code, _, err = run("plan", "llama-3.1-8b", path)
    assert code == 2 and "…" not in err and "not known: 8 figures: " in err and err.count("--set") == 1
    assert re.search(r"--set \S+\.compute\.bf16\.peak=VALUE$", err.strip())


# --- lint -------------------------------------------------------------------------------------------------------


def test_a_huge_word_of_a_message_is_cut_and_its_rest_is_not(run: Run) -> None:
    err = run("plan", "llama-3.1-8b", "h100-node", "--gap", "x" * 5000)[2]
    assert len(err) < 720 and err.endswith("see planner plan --help\n")


def test_lint_counts_what_is_unknown(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "my-node.toml"
    run("init", "hardware", path)
    code, out, _ = run("lint", path)
    assert code == 0 and out.startswith("ok: 1 profile checked, 10 figures unknown: my-node-device.compute.bf16.peak, ")
    answer = json.loads(run("lint", path, "--format", "json")[1])
    assert len(answer["unknown"][str(path)]) == 10 and answer["ok"]
    assert run("lint", "thead-m890")[1].startswith("ok: 1 profile checked, ")


def test_a_name_taken_twice_is_one_fault_and_other_documents_are_named(run: Run, tmp_path: Path) -> None:
    for name in ("a", "b"):
        written(tmp_path / f"{name}.toml", NODE)
    for kind, name in (("workload", "chat"), ("prices", "owned"), ("runtimes", "generic")):
        text = (TOP / "planner" / kind / "catalogue" / f"{name}.toml").read_text(encoding="utf-8")
        written(tmp_path / f"{name}.toml", text)
    code, out, _ = run("lint", tmp_path)
    assert code == 4 and len(re.findall("is a name of", out)) == 1 and "1 fault in 2 checked" in out
    for name, what in (("chat", "a workload"), ("owned", "a price basis"), ("generic", "a runtime")):
        assert f"{name}.toml: {what}, not checked as hardware" in out
    answer = json.loads(run("lint", tmp_path, "--format", "json")[1])
    assert len(answer["faults"]) == 1 and len(answer["profiles"]) == 2 and len(answer["notes"]) == 3


def test_a_name_of_the_catalogue_may_be_taken_and_is_named(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = written(tmp_path / "own" / "h100-node.toml", NODE.replace("mine", "h100-node"))
    code, out, _ = run("lint", own)
    assert code == 0 and "hides h100-node of the catalogue" in out
    drive = (builtin_folder() / "parts" / "ymtc-pe321-7.68tb.toml").read_text(encoding="utf-8")
    assert run("lint", written(tmp_path / "own" / "drive.toml", drive))[0] == 0
    assert run("lint", "h100-node")[1] == "ok: 1 profile checked\n"
    monkeypatch.setenv("PLANNER_PROFILES", str(own.parent))
    assert f"h100-node read from {own}\n" in run("plan", "llama-3.1-8b", "h100-node", "--quiet")[2]
    assert run("show", "hardware", "h100-node", "--format", "json")[2] == f"h100-node read from {own}\n"
    assert run("show", "hardware", "h800-node", "--format", "json")[2] == ""
    assert run("plan", "llama-3.1-8b", "h800-node", "--quiet")[2] == ""


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ('[[tier]]\nid = "host"\nvia = "pcie"\n', 'write it as a list: via = ["pcie"]'),
        ('[compute.bf61]\ncounting = "dense"\n', "did you mean bf16?"),
        ('[[link]]\nid = "pcie"\nduplex = "ful"\n', "did you mean full?"),
    ],
)
def test_wording_of_wrong_values(text: str, mend: str, tmp_path: Path) -> None:
    path = written(tmp_path / "mine.toml", (DEVICE if "compute" in text else NODE) + text)
    assert any(mend in fault.mend for fault in lint(path, today=TODAY))
    with pytest.raises(InputError) as caught:
        ProfileSource(()).read_any(path)
    assert mend in str(caught.value) or "is missing" in str(caught.value)


def test_an_interval_is_refused_in_the_unit_of_the_file(tmp_path: Path) -> None:
    path = written(tmp_path / "mine.toml", NODE + f'power = {{ value = "9 kW", low = "11 kW", high = "12 kW", {EVIDENCE} }}\n')
    with pytest.raises(InputError, match="low 11 kW is above value 9 kW"):
        load_hardware(path)


# --- what is shown ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "dimension", "ends", "text"),
    [
        (30.72e12, "bytes", (), "30.72 TB"),
        (3.35e12, "bytes_per_s", (3.2e12, 3.4e12), "3.35 TB/s (3.2 to 3.4)"),
        (12e3, "w", (), "12 kW"),
        (8.2e6, "usd", (6.5e6, 11.3e6), "8.2 MUSD (6.5 to 11.3)"),
        (1e9, "bytes", (), "1 GB"),
        (0.0, "s", (0.0, 1e-6), "0 s (0 to 0.000001)"),
        (0.85, "fraction", (), "0.85"),
        (13_500e12, "flop_per_s", (), "13,500 TFLOP/s"),
    ],
)
def test_readable(value: float, dimension: str, ends: tuple[float, ...], text: str) -> None:
    assert readable(value, dimension, *ends) == text  # type: ignore[arg-type]


def test_plain_numbers_have_no_exponent() -> None:
    assert [plain(x) for x in (24000.0, 999.96, 0.00004, 0.1234567, 2.5)] == ["24,000", "1,000", "0.00004", "0.1235", "2.5"]


@pytest.mark.parametrize("width", [60, 80, 140])
@pytest.mark.parametrize(
    "arguments", [("list", "models"), ("list", "hardware", "--kind", "memory"), ("plan", "llama-3.1-8b", "h100-node", "--quiet")]
)
def test_tables_keep_to_columns(width: int, arguments: tuple[str, ...], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    lines = [line.rstrip() for line in run(*arguments)[1].splitlines()]
    assert max(map(len, lines)) <= width


def test_addresses_of_a_part_stay_whole(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    out = run("show", "part", "ddr5-rdimm-64gb")[1]
    part = load_part("ddr5-rdimm-64gb")
    assert re.search(r"price, street +\S+ USD/GB .* C +2026-11-01 +\[\d+\]", out)
    for price in part.prices:  # type: ignore[union-attr]
        for address in re.findall(r"https?://[^\s:;()]+", price.usd_per_gb.source):
            assert address in out
    assert "68.72 GB" in out and "e+" not in out


def test_the_list_of_memories_has_size_and_newest_price(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = {row["id"]: row for row in json.loads(run("list", "hardware", "--kind", "memory", "--format", "json")[1])}
    dimm = rows["ddr5-rdimm-64gb"]
    part = load_part("ddr5-rdimm-64gb")
    newest = max(part.prices, key=lambda price: str(price.usd_per_gb.as_of))  # type: ignore[union-attr]
    assert (dimm["usable_bytes"], dimm["price_basis"]) == (part.usable.value, newest.basis)  # type: ignore[union-attr]
    assert dimm["price_as_of"] == str(newest.usd_per_gb.as_of)
    assert dimm["usd_per_gb"] == pytest.approx(newest.usd_per_gb.value, rel=1e-9)
    assert "usable_bytes" not in json.loads(run("list", "hardware", "--format", "json")[1])[0]
    monkeypatch.setenv("COLUMNS", "100")
    _, out, err = run("list", "hardware", "--kind", "memory")
    assert re.search(r"ddr5-rdimm-64gb +memory +68.72 GB +12.67 street 2026-11", out)
    assert err.startswith("left out for want of width: ") and "name" in err
    monkeypatch.setenv("COLUMNS", "400")
    assert run("list", "hardware", "--kind", "memory")[2] == ""
    assert "planner list hardware --kind memory" in run("list", "prices")[2]


def test_part_of_a_name_finds_it(run: Run) -> None:
    assert "did you mean ddr5-rdimm-64gb, " in run("show", "hardware", "ddr5")[2]
    assert nearest("h10", ["gb200", "h100-node", "my-h100"]) == "did you mean h100-node, my-h100?"
    assert "unknown part 'h100'" in run("show", "part", "h100")[2]
    assert run("show", "site", "cn-east")[1] == run("show", "hardware", "cn-east")[1]
    assert run("show", "device", "gb200")[0] == 0 and run("show", "site", "h100-node")[0] == 2


def test_a_drawing_is_written_and_nothing_else(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "x.dot"
    assert run("show", "hardware", "gb200-nvl72", "--dot", file) == (0, "", f"wrote {file}\n")
    text = file.read_text(encoding="utf-8")
    assert "one node of 18, 4 devices" in text and text.count("one Blackwell GPU of the superchip") == 4


def test_the_page_has_the_catalogue_alone_and_links_repositories(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from planner.hardware import source

    found = importlib.util.spec_from_file_location("hardware_page", TOP / ".ci" / "hardware_page.py")
    assert found and found.loader
    page = importlib.util.module_from_spec(found)
    found.loader.exec_module(page)
    path = written(tmp_path / "mine.toml", NODE)
    monkeypatch.setattr(source, "packs", lambda: {"pack": [path]})
    assert "mine" in {row.id for row in list_hardware()} and "mine" not in {row.id for row in page.own("node", "rack")}
    assert page.NAMED.sub(r"<\1>", "as in FlagOpen/FlagPerf. Or stas00/ml-engineering@744d01e") == (
        "as in <FlagOpen/FlagPerf>. Or stas00/ml-engineering@744d01e"
    )
    assert not page.NAMED.search("https://github.com/FlagOpen/FlagPerf and/or TOP/s")


def test_the_readme_leads_to_the_pages() -> None:
    text = (TOP / "README.md").read_text(encoding="utf-8")
    assert all(f"]({page})" in text for page in ("docs/index.md", "docs/hardware.md", "docs/example-pack/README.md"))
