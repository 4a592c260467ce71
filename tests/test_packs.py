"""Packs: profiles, workloads, runtimes, prices, exporters and executors that other packages bring, sound and broken."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

import planner
from planner.catalogue import Catalogue
from planner.errors import InputError
from planner.hardware import folders, list_hardware, load_hardware
from planner.hardware.lint import lint
from planner.hardware.loader import builtin_folder, check_packs
from planner.hardware.source import ProfileSource
from planner.plugins import BUILTIN, Registry, registry
from planner.prices import PRICES, OwnedPrices
from planner.runtimes import RUNTIMES, Runtime
from planner.workload import WORKLOADS, Workload

TOP = Path(__file__).resolve().parents[1]
EXAMPLE = TOP / "docs" / "example-pack"
MINE = 'schema = 1\nkind = "node"\nid = "{}"\nextends = "h100-node"\n'

Install = Callable[..., Registry]


def write_package(site: Path, name: str, code: str, **groups: str) -> None:
    """An installed package: a module, and metadata with one entry point ``name`` in each group."""
    module = name.replace("-", "_")
    (site / module).mkdir(parents=True, exist_ok=True)
    (site / module / "__init__.py").write_text(f"from pathlib import Path\nHERE = Path(__file__).parent\n{code}\n")
    info = site / f"{module}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    lines = [f"[planner.{group}]\n{name} = {module}:{offer}" for group, offer in groups.items()]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Install:
    """Install packages on the path; planner then looks with registries that have not looked yet."""
    site = tmp_path / "site"
    site.mkdir()
    fresh = {group: Registry(group, builtin) for group, builtin in BUILTIN.items()}
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setattr("planner.catalogue.registry", fresh.get)
    monkeypatch.setattr("planner.hardware.folders.registry", fresh.get)
    monkeypatch.setattr("planner.export.exporters.registry", fresh.get)
    monkeypatch.setattr("planner.sweep.executors.registry", fresh.get)

    def run(name: str, code: str, files: dict[str, str] | None = None, **groups: str) -> Registry:
        write_package(site, name, code, **groups)
        monkeypatch.delitem(sys.modules, name.replace("-", "_"), raising=False)
        for path, text in (files or {}).items():
            target = site / name.replace("-", "_") / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, encoding="utf-8")
        importlib.invalidate_caches()
        return fresh[f"planner.{next(iter(groups))}"]

    return run


def reasons(packs: Registry) -> dict[str, str]:
    return {fault.name: fault.reason for fault in packs.faults()}


# --- the built-in catalogues are packs ------------------------------------------------------------------------------


def test_the_built_in_catalogues_come_through_the_door() -> None:
    assert registry("planner.hardware").folder("builtin") == builtin_folder() == ProfileSource(()).folders[0]
    for catalogue, group in ((WORKLOADS, "workloads"), (RUNTIMES, "runtimes"), (PRICES, "prices")):
        assert registry(f"planner.{group}").folder("builtin") == catalogue.folder


def test_a_built_in_name_never_looks_for_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: looked.append(group) or ())
    monkeypatch.setattr(folders, "registry", lambda name: Registry(name, BUILTIN[name]))
    assert load_hardware("h800-node").devices == 8
    assert Catalogue("planner.workloads", Workload, "workload").load("chat").id == "chat"
    assert looked == []
    with pytest.raises(InputError, match="unknown hardware"):
        load_hardware("no-such-node")
    assert looked == ["planner.hardware"]


# --- hardware -------------------------------------------------------------------------------------------------------


def test_profiles_of_other_packages(install: Install) -> None:
    install("one", 'HARDWARE = HERE / "profiles"', {"profiles/deep/mine.toml": MINE.format("mine")}, hardware="HARDWARE")
    packs = install(
        "two",
        "def hardware(): return str(HERE)",
        {"yours.toml": MINE.format("yours").replace("h100-node", "mine")},
        hardware="hardware",
    )
    assert load_hardware("mine").devices == load_hardware("yours").devices == 8
    assert {"mine", "yours", "h100-node"} <= {row.id for row in list_hardware()}
    check_packs()
    assert reasons(packs) == {}


def test_a_folder_of_the_user_comes_before_the_catalogue_and_that_before_packs(install: Install, tmp_path: Path) -> None:
    text = MINE.format("h200-node") + 'name = "{}"\n'
    install("pack", "HERE = HERE", {"h200-node.toml": text.format("of the pack")}, hardware="HERE")
    assert load_hardware("h200-node").system.name not in ("of the pack", "of the user")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "h200-node.toml").write_text(text.format("of the user"))
    assert load_hardware("h200-node", folders=[tmp_path / "mine"]).system.name == "of the user"


BROKEN = {
    "raises": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "leaves": ("raise SystemExit(3)", "SystemExit: 3"),
    "fails-late": ("def offer(): return 1 / 0", "ZeroDivisionError"),
    "leaves-late": ("def offer(): raise SystemExit(0)", "SystemExit: 0"),
    "interrupts": ("raise KeyboardInterrupt", "KeyboardInterrupt"),
    "dies": ("class Death(BaseException): pass\ndef offer(): raise Death('now')", "Death: now"),
    "mute": (
        "class Mute(Exception):\n    def __str__(self): raise SystemExit(9)\ndef offer(): raise Mute",
        "Mute: its message cannot be read",
    ),
    "colours": ("raise ValueError('\\x1b[31mred')", "ValueError: [31mred"),
    "empty": ("", "AttributeError"),
    "number": ("offer = 7", "offers no folder but '7'"),
    "nowhere": ("offer = HERE / 'nowhere'", "offers no folder but"),
    "faulty": ("offer = HERE / 'profiles'", "unknown key"),
    "torn": ("offer = HERE / 'torn'", "is not TOML"),
}
FILES = {
    "faulty": {"profiles/faulty-node.toml": MINE.format("faulty-node") + "colour = 3\n"},
    "torn": {"torn/torn-node.toml": "schema = [\n"},
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_pack_is_reported_and_stops_nothing_else(name: str, install: Install) -> None:
    code, reason = BROKEN[name]
    install("sound", "HERE = HERE", {"mine.toml": MINE.format("mine")}, hardware="HERE")
    packs = install(name, code, FILES.get(name), hardware="offer")
    assert load_hardware("mine").devices == load_hardware("h800-node").devices == 8
    assert "mine" in {row.id for row in list_hardware()}
    check_packs()
    assert set(reasons(packs)) == {name}
    assert reason in reasons(packs)[name]
    with pytest.raises(InputError, match="unknown hardware"):
        load_hardware("no-such-node")


def test_a_pack_cannot_take_standard_output(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    code = "import sys\nprint('loaded')\ndef offer():\n    print('asked')\n    sys.stdout = None\n    return HERE"
    before = sys.stdout
    packs = install("loud", code, {"mine.toml": MINE.format("mine")}, hardware="offer")
    assert load_hardware("mine").devices == 8
    assert sys.stdout is before
    seen = capsys.readouterr()
    assert (seen.out, seen.err.split()) == ("", ["loaded", "asked"])
    assert reasons(packs) == {}


def test_ctrl_c_passes_through_a_pack(install: Install) -> None:
    code = "import os, signal, time\ndef offer():\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(5)"
    packs = install("slow", code, hardware="offer")
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        packs.folder("slow")
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_pack_of_too_many_profiles_is_passed_over(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    most = len(ProfileSource(()).files)
    monkeypatch.setattr(folders, "MAX_PROFILES", most)
    packs = install("huge", "HERE = HERE", {f"p{i}.toml": "" for i in range(most + 1)}, hardware="HERE")
    assert "p1" not in {row.id for row in list_hardware()}
    assert f"more than {most} profiles" in reasons(packs)["huge"]


# --- workloads, runtimes, prices ------------------------------------------------------------------------------------


def copy_of(catalogue: Catalogue[Workload] | Catalogue[Runtime] | Catalogue[OwnedPrices], name: str, new: str) -> str:
    return (catalogue.folder / f"{name}.toml").read_text(encoding="utf-8").replace(f'id = "{name}"', f'id = "{new}"', 1)


@pytest.mark.parametrize(
    ("group", "entry", "source"),
    [("workloads", Workload, WORKLOADS), ("runtimes", Runtime, RUNTIMES), ("prices", OwnedPrices, PRICES)],
    ids=["workloads", "runtimes", "prices"],
)
def test_entries_of_other_packages(install: Install, group: str, entry: type, source: Catalogue[Workload]) -> None:
    own = sorted(path.stem for path in source.folder.glob("*.toml"))
    base = own[0]
    packs = install("theirs", "FILES = HERE", {"theirs.toml": copy_of(source, base, "theirs")}, **{group: "FILES"})
    install("takes", "FILES = HERE", {f"{base}.toml": copy_of(source, base, base) + "colour = 3\n"}, **{group: "FILES"})
    install("renamed", "FILES = HERE", {"other.toml": copy_of(source, base, "another")}, **{group: "FILES"})
    install("torn", "FILES = HERE", {"torn.toml": "schema = ["}, **{group: "FILES"})
    install("twice", "FILES = HERE", {"theirs.toml": "schema = ["}, **{group: "FILES"})
    catalogue: Catalogue[Workload] = Catalogue(f"planner.{group}", entry, "entry")
    assert catalogue.load("theirs").id == "theirs"
    assert catalogue.load(base) == source.load(base)
    assert [item.id for item in catalogue] == sorted([*own, "theirs"])
    for pack, words in {
        "takes": "the name belongs to a built-in",
        "renamed": "id: is not the name of the file",
        "torn": "is not TOML",
        "twice": "the name belongs to theirs",
    }.items():
        assert words in reasons(packs)[pack]
    assert "theirs" not in reasons(packs)
    with pytest.raises(InputError, match="id: is not the name of the file"):
        catalogue.load("other")
    with pytest.raises(InputError, match="is not TOML"):
        catalogue.load("torn")
    with pytest.raises(InputError, match="did you mean .*theirs"):
        catalogue.load("their")


def test_a_broken_pack_of_workloads_stops_nothing_else(install: Install) -> None:
    packs = install("broken", "raise RuntimeError('no')", workloads="FILES")
    catalogue = Catalogue("planner.workloads", Workload, "workload")
    assert [item.id for item in catalogue] == WORKLOADS.ids
    with pytest.raises(InputError, match="unknown workload"):
        catalogue.load("nothing")
    assert "RuntimeError: no" in reasons(packs)["broken"]


# --- exporters and executors ----------------------------------------------------------------------------------------

EXPORTER = """
from planner.export import Export, ExportFile
class Mine:
    engine = "mine"
    def applies(self, deployment): {applies}
    def export(self, deployment, values, command): {export}
OFFER = Mine()
"""
GOOD = 'return Export("mine", (ExportFile("mine.conf", command.encode()),))'
WRONG = {
    "fails-to-load": ("raise RuntimeError('no licence')", "no licence"),
    "is-none": ("OFFER = 7", "is no exporter"),
    "fails-to-look": (EXPORTER.format(applies="1 / 0", export=GOOD), "ZeroDivisionError"),
    "fails-to-write": (EXPORTER.format(applies="return None", export="raise SystemExit(0)"), "SystemExit"),
    "writes-nothing": (EXPORTER.format(applies="return None", export="return 3"), "returned no Export"),
    "writes-text": (EXPORTER.format(applies="return None", export=GOOD.replace(".encode()", "")), "returned no Export"),
    "writes-none": (EXPORTER.format(applies="return None", export='return Export("mine", None)'), "returned no Export"),
    "breaks-out": (
        EXPORTER.format(applies="return None", export=GOOD.replace("mine.conf", "../mine.conf")),
        "outside the output",
    ),
}


def test_broken_exporters_are_told_and_stop_nothing_else(install: Install) -> None:
    from exported import skewed

    from planner.cli.list_command import _check_packs
    from planner.export import Values, export_plan

    packs = install("mine", EXPORTER.format(applies="return None", export=GOOD), exporters="OFFER")
    for name, (code, _) in WRONG.items():
        install(name, code, exporters="OFFER")
    (file,) = export_plan(skewed(), "mine", Values(), "a command").files
    assert (file.name, file.content) == ("mine.conf", b"a command")
    for name, (_, words) in WRONG.items():
        with pytest.raises(InputError, match=words):
            export_plan(skewed(), name, Values(), "a command")
    assert export_plan(skewed(), "vllm", Values(), "a command").files
    with pytest.raises(InputError, match="did you mean.*vllm"):
        export_plan(skewed(), "vlm", Values(), "a command")
    _check_packs()
    assert set(reasons(packs)) == {"fails-to-load", "is-none"}


def test_executors_of_other_packages(install: Install) -> None:
    from planner.sweep.executors import Serial, workers

    packs = install(
        "mine", "from planner.sweep.executors import Serial\ndef make(count, scheduler): return Serial()", executors="make"
    )
    install("torn", "def make(count, scheduler): raise OSError('no queue')", executors="make")
    install("other", "make = lambda count, scheduler: 7", executors="make")
    install("plain", "make = 7", executors="make")
    install("example", (EXAMPLE / "planner_example_pack" / "executor.py").read_text(), executors="OneThread")
    example = workers("example", 4, None)
    assert example.count == 1 and example.submit(None).exception() is not None  # type: ignore[arg-type]
    example.close(now=True)
    assert isinstance(workers("mine"), Serial) and isinstance(workers("serial"), Serial)
    for name, words in {
        "torn": "no queue",
        "other": "made no",
        "plain": "cannot be called",
        "proces": "did you mean process",
    }.items():
        with pytest.raises(InputError, match=words):
            workers(name)
    assert set(reasons(packs)) == {"torn", "other", "plain"}


# --- the example ----------------------------------------------------------------------------------------------------


def test_the_example_passes_lint() -> None:
    folder = EXAMPLE / "planner_example_pack" / "hardware"
    source = ProfileSource([folder])
    files = sorted(folder.rglob("*.toml"))
    assert len(files) == 2
    assert [str(fault) for path in files for fault in lint(path, source=source, today=date(2026, 11, 22))] == []


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment in which planner can be imported and the example pack, built as a wheel, is installed."""
    top = tmp_path_factory.mktemp("fresh")
    source = shutil.copytree(EXAMPLE, top / "source")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(top)]
    subprocess.run(build, cwd=source, check=True, capture_output=True, timeout=120)
    (wheel,) = top.glob("*.whl")
    venv.create(top / "env", with_pip=True, symlinks=os.name != "nt")
    python = top / "env" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    command = [str(python), "-m", "pip", "install", "--no-index", "--no-deps", "--no-build-isolation", str(wheel)]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    where = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip())
    others = [str(Path(planner.__file__).parents[1]), *(path for path in sys.path if path.endswith("-packages"))]
    (site / "planner-and-what-it-needs.pth").write_text("\n".join(others) + "\n")
    return python


def run(python: Path, *arguments: str, code: int = 0) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PLANNER_PROFILES")}
    done = subprocess.run(
        [str(python), "-c", "from planner.cli import main; main()", *arguments],
        cwd=python.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == code, done.stderr
    return done.stdout


def test_the_example_pack_built_and_installed_is_planned_on(fresh: Path) -> None:
    listed = {row["id"]: row for row in json.loads(run(fresh, "list", "hardware", "--format", "json"))}
    assert listed["example-x1-node"]["vendor"] == listed["example-x1"]["vendor"] == "Example"
    assert "example-mail" in run(fresh, "list", "workloads")
    assert run(fresh, "lint", "example-node", "example-x1") == "ok: 2 profiles checked\n"
    more = ("--runtime", "example-engine", "--price-basis", "example-site", "--format", "json", "-o", "plan.json")
    plan = json.loads(run(fresh, "plan", "llama-3.1-8b", "example-node", "--workload", "example-mail", *more))
    assert plan["certificate"]["proved"] and "example-x1-node" in json.dumps(plan["hardware"])
    assert plan["inputs"]["runtime"]["id"] == "example-engine" and plan["cost"]["basis"] == "example-site"
    run(fresh, "export", "plan.json", "--to", "example", "-o", "engine")
    pool = plan["pools"][0]
    line = f"{pool['phase']} = {pool['replicas']} x {pool['devices'] // pool['replicas']}\n"
    assert line in (fresh.parent / "engine" / "example.conf").read_text()
    offers = [row for row in json.loads(run(fresh, "list", "plugins", "--format", "json")) if row["id"] == "example"]
    groups = ("executors", "exporters", "hardware", "prices", "runtimes", "workloads")
    assert offers == [{"id": "example", "group": f"planner.{group}", "status": "ready"} for group in groups]


def test_broken_packs_beside_it_stop_nothing(fresh: Path) -> None:
    where = [str(fresh), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    site = Path(subprocess.run(where, check=True, capture_output=True, text=True).stdout.strip())
    for name in ("raises", "nowhere", "faulty"):
        write_package(site, name, BROKEN[name][0], hardware="offer")
        for path, text in FILES.get(name, {}).items():
            (site / name / path).parent.mkdir(parents=True)
            (site / name / path).write_text(text)
    status = {row["id"]: row["status"] for row in json.loads(run(fresh, "list", "plugins", "--format", "json"))}
    for name in ("raises", "nowhere", "faulty"):
        assert status[name].startswith("broken: ") and BROKEN[name][1] in status[name]
    assert status["example"] == status["builtin"] == "ready"
    assert "example-x1-node" in run(fresh, "list", "hardware")
    run(fresh, "plan", "llama-3.1-8b", "example-node", "--quiet")
