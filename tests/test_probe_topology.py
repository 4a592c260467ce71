"""What nvidia-smi and npu-smi print, in the forms that nodes in use print it, and what happens where they do not."""

import os
import signal
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import pytest

from planner.probe import asking, topology
from planner.probe import measure as measuring
from planner.probe.accelerator import Accelerator
from planner.probe.asking import Unsaid, ask, one_line
from planner.probe.clock import Spread
from planner.probe.memory import Memory
from planner.probe.products import Products
from planner.probe.profile import profile_of
from planner.probe.topology import Topology, find_topology, parse_npu, parse_npu_matrix, parse_nvidia

TINY = measuring.Effort(2**22, 2**22, (1, 2), 3, 2, 0.02, True)
LEGEND = "\nLegend:\n\n  X    = Self\n  SYS  = Connection traversing PCIe as well as the SMP interconnect\n"


def matrix(names: list[str], way: dict[tuple[int, int], str], other: str, *, cards: int = 0, ends: str = "0-47\t0\t\tN/A") -> str:
    """As ``nvidia-smi topo -m``: GPUs, then network cards in rows and columns of their own, then affinities."""
    nics = [f"NIC{number}" for number in range(cards)]
    lines = ["\t\x1b[4m" + "\t".join([*names, *nics, "CPU Affinity", "NUMA Affinity", "GPU NUMA ID"]) + "\x1b[0m"]
    for i, name in enumerate(names):
        row = [" X " if i == j else way.get((min(i, j), max(i, j)), other) for j in range(len(names))]
        lines.append("\t".join([name, *row, *("PXB" if i == j else "SYS" for j in range(cards)), ends]))
    for i, nic in enumerate(nics):
        lines.append("\t".join([nic, *("PXB" if i == j else "SYS" for j in range(len(names))), *(" X " for _ in nics)]))
    return "\n".join(lines) + "\n" + LEGEND


def gpus(count: int) -> list[str]:
    return [f"GPU{number}" for number in range(count)]


PAIRS = {(n, n + 1): "NV4" for n in (0, 2, 4, 6)} | {(0, 2): "PIX", (0, 3): "PXB", (1, 2): "PXB", (1, 3): "NODE"}
NVIDIA = {
    "an HGX node with ten cards": (matrix(gpus(8), {}, "NV18", cards=10), 8, "NV18"),
    "the same without colours": (matrix(gpus(8), {}, "NV18").replace("\x1b[4m", "").replace("\x1b[0m", ""), 8, "NV18"),
    "with other escapes": (matrix(gpus(2), {}, "NV18").replace("GPU1\t", "\x1b[1;32mGPU1\x1b[K\x1b(B\t", 1), 2, "NV18"),
    "sixteen": (matrix(gpus(16), {}, "NV6", cards=2), 16, "NV6"),
    "bridged pairs": (matrix(gpus(8), PAIRS, "SYS"), 8, "SYS or NODE or PXB or PIX or NV4"),
    "a cube of unequal links": (matrix(gpus(4), {(0, 1): "NV1", (2, 3): "NV1"}, "NV2"), 4, "NV1 or NV2"),
    "PCIe alone, affinities unknown": (matrix(gpus(2), {}, "PHB", ends="N/A\tN/A\t\tN/A"), 2, "PHB"),
    "spaces for tabs": (matrix(gpus(4), {}, "NODE", cards=1).replace("\t", "    "), 4, "NODE"),
    "indented, and named cards": (
        matrix(gpus(2), {}, "SYS", cards=1).replace("NIC0", "mlx5_0").replace("\n", "\n    "),
        2,
        "SYS",
    ),
    "one": (matrix(gpus(1), {}, "", cards=2), 1, ""),
    "one lost": (matrix(["GPU0", "GPU2"], {}, "NV18"), 2, "NV18"),
    "a second matrix below": (matrix(gpus(2), {}, "PHB") + "\n \tGPU0\tGPU1\t\n GPU0\tX\tGNS\t\n GPU1\tGNS\tX\t\n", 2, "PHB"),
    "lines ended as on Windows": (matrix(gpus(2), {}, "SYS").replace("\n", "\r\n"), 2, "SYS"),
}
FULL = matrix(gpus(4), {}, "NV18", cards=2)
NOT_NVIDIA = {
    "nothing": "",
    "a failure": "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver.\n",
    "no GPU": "No devices were found\n",
    "a way not known": FULL.replace("NV18", "NVX", 1),
    "one way": FULL.replace("NV18", "SYS", 1),
    "a GPU that is itself twice": FULL.replace("NV18", " X ", 1),
    "a diagonal that is none": FULL.replace(" X ", "SYS", 1),
    "a row missing": "\n".join(line for line in FULL.splitlines() if not line.startswith("GPU2")),
    "rows in another order": FULL.replace("\nGPU1\t", "\nGPU9\t").replace("\nGPU2\t", "\nGPU1\t").replace("\nGPU9\t", "\nGPU2\t"),
    "a row cut off": FULL[: FULL.index("GPU3\t", 60)] + "GPU3\tNV18\tNV18",
    "columns mixed with cards": FULL.replace("GPU1\tGPU2", "NIC9\tGPU1\tGPU2", 1),
    "a name twice": FULL.replace("GPU0\tGPU1", "GPU0\tGPU0", 1),
    "binary": "\0\xff" * 400,
}


@pytest.mark.parametrize("name", NVIDIA)
def test_matrices_of_nvidia_smi(name: str) -> None:
    text, count, joined = NVIDIA[name]
    found = parse_nvidia(text)
    assert len(found.names) == len(found.ways) == count and found.joined == joined
    assert all(len(row) == count and row[at] == "X" for at, row in enumerate(found.ways))


@pytest.mark.parametrize("name", NOT_NVIDIA)
def test_what_is_no_matrix_is_not_taken_for_one(name: str) -> None:
    with pytest.raises(Unsaid) as caught:
        parse_nvidia(NOT_NVIDIA[name])
    assert len(str(caught.value)) < 200 and str(caught.value).isprintable()


# -- Ascend --------------------------------------------------------------------------------------------------------------
RULE = "+===========================+===============+====================================================+\n"


def table(rows: list[tuple[str, str]], memory: str = "HBM-Usage(MB)", chip: str = "Chip") -> str:
    """As ``npu-smi info``: two rows of each chip, and the processes below."""
    text = "+----------------------------------------+\n| npu-smi 24.1.0        Version: 24.1.0 |\n"
    text += "+---------------------------+---------------+----------------------------------------------------+\n"
    text += "| NPU   Name                | Health        | Power(W)    Temp(C)           Hugepages-Usage(page)|\n"
    text += f"| {chip:26}| Bus-Id        | AICore(%)   Memory-Usage(MB)  {memory:21}|\n{RULE}"
    for first, second in rows:
        text += f"| {first} |\n| {second} |\n{RULE}"
    text += "| NPU     Chip              | Process id    | Process name             | Process memory(MB)      |\n" + RULE
    return text + "| 0       0                 | 4711          | python                   | 3300                    |\n"


def chips(count: int, name: str = "910B3", health: str = "OK") -> list[tuple[str, str]]:
    return [
        (
            f"{n}     {name}             | {health}            | 94.2        37                0    / 0            ",
            f"0                         | 0000:C{n}:00.0  | 0           0    / 0          3387 / 65536        ",
        )
        for n in range(count)
    ]


TWO_CHIPS = [
    (
        f"{n // 2}     Ascend910           | OK            | {'-    ' if n % 2 else '178.5'}       36           0    / 0  ",
        f"{n % 2}     {n}                   | 0000:9D:00.0  | 0           0    / 0          {3195 + n}/ 65536            ",
    )
    for n in range(16)
]
DUO = [
    (
        f"3       310P3                 | OK              | NA           39                0     / 0    {n}",
        f"{n}       {n}                   | 0000:01:00.0    | 0            1755 / 44280                    ",
    )
    for n in range(2)
]


def test_tables_of_npu_smi() -> None:
    found = parse_npu(table(chips(8)))
    assert len(found.names) == 8 and found.names[7] == "NPU7 910B3 chip 0" and set(found.memory_bytes) == {65536 * 2**20}
    pairs = parse_npu(table(TWO_CHIPS, chip="Chip  Phy-ID"))
    assert len(pairs.names) == len(set(pairs.names)) == 16 and pairs.names[3] == "NPU1 Ascend910 chip 1"
    duo = parse_npu(table(DUO, memory="", chip="Chip    Device"))
    assert duo.names == ("NPU3 310P3 chip 0", "NPU3 310P3 chip 1") and duo.memory_bytes == (44280 * 2**20,) * 2


@pytest.mark.parametrize("health", ["Warning", "Alarm", "Critical", "UNKNOWN", "Offline", "NA"])
def test_an_accelerator_that_is_not_well_counts(health: str) -> None:
    assert len(parse_npu(table([*chips(1), *chips(3, health=health)[1:]])).names) == 3


NOT_NPU = {
    "nothing": "",
    "a failure": "dcmi module initialize failed. ret is -8005\n",
    "cut between rows": table(chips(2))[: table(chips(2)).index("| 0                         | 0000:C1")],
    "a row of another form": table([*chips(1), ("1  vNPU", "0")]),
    "a chip without a bus": table([(chips(1)[0][0], "0 | here | 0 ")]),
    "one twice": table([*chips(1), *chips(1)]),
    "none": table([]),
    "no sizes that can be": table([("0 910B3 | OK | 1", "x")]),
}


@pytest.mark.parametrize("name", NOT_NPU)
def test_what_is_no_table_is_not_taken_for_one(name: str) -> None:
    with pytest.raises(Unsaid):
        parse_npu(NOT_NPU[name])


@pytest.mark.parametrize("usage", ["0 / 0", "99999 / 65536", f"1 / {2**40}", "NA"])
def test_sizes_that_cannot_be_are_left_out(usage: str) -> None:
    found = parse_npu(table(chips(2)).replace("3387 / 65536", usage, 1))
    assert len(found.names) == 2 and found.memory_bytes == ()


HCCS = """\t   NPU0       NPU1       CPU Affinity
NPU0       X          HCCS       144-167
NPU1       HCCS       X          0-23

Legend:
"""
A3 = """           Phy-ID12   Phy-ID13   Phy-ID14
Phy-ID12   X          SIO        HCCS_SW
Phy-ID13   SIO        X          HCCS_SW
Phy-ID14   HCCS_SW    HCCS_SW    X
"""


def test_matrices_of_npu_smi() -> None:
    assert parse_npu_matrix(HCCS).joined == "HCCS"
    assert parse_npu_matrix(A3).names[0] == "Phy-ID12" and parse_npu_matrix(A3).joined == "HCCS_SW or SIO"
    with pytest.raises(Unsaid, match="not understood"):
        parse_npu_matrix(HCCS.replace("HCCS ", "NA   "))


# -- the tools themselves ------------------------------------------------------------------------------------------------
@pytest.fixture
def tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs, the only ones that are found by name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(topology.shutil, "which", lambda name: str(folder / name) if (folder / name).exists() else None)
    return folder


def tool(folder: Path, name: str, body: str) -> None:
    file = folder / name
    file.write_text(f"#!/bin/sh\n{body}\n")
    file.chmod(0o755)


def printing(folder: Path, text: str) -> str:
    file = folder / f"text{len(list(folder.iterdir()))}"
    file.write_text(text)
    return f"cat {file}"


def test_without_tools_there_is_nothing_to_say(tools: Path) -> None:
    assert find_topology() == (None, ())


def test_tools_are_asked_in_turn(tools: Path) -> None:
    tool(tools, "nvidia-smi", "echo 'Failed to initialize NVML: Driver/library version mismatch'; exit 18")
    info, ways = printing(tools, table(chips(2))), printing(tools, HCCS)
    tool(tools, "npu-smi", f'if [ "$2" = -t ]; then {ways}; else {info}; fi')
    found, notes = find_topology()
    assert found is not None and found.tool == "npu-smi" and found.joined == "HCCS" and len(found.memory_bytes) == 2
    assert notes == (
        "nvidia-smi topo -m failed (18): Failed to initialize NVML: Driver/library version mismatch; nothing was taken from it",
    )
    tool(tools, "npu-smi", f'if [ "$2" = -t ]; then {printing(tools, A3)}; else {info}; fi')
    found, notes = find_topology()
    assert found is not None and found.joined == "" and "shows 3 accelerators, npu-smi info 2" in notes[-1]


def test_a_tool_that_does_not_answer_is_ended_with_all_it_started(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "LIMIT_S", 0.3)
    mark = tools / "child"
    tool(tools, "nvidia-smi", f"sleep 600 & echo $! > {mark}; wait")
    start = time.monotonic()
    found, notes = find_topology()
    assert found is None and "was not done after 0.3 s" in notes[0] and time.monotonic() - start < 10.0
    child = int(mark.read_text())
    ends = time.monotonic() + 10.0
    while time.monotonic() < ends and _runs(child):
        time.sleep(0.02)
    assert not _runs(child)


def _runs(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state != "Z"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("exec yes", "printed more than"),
        ("sleep 600 & exit 0", "was not done after"),
    ],
)
def test_tools_that_misbehave_are_told(body: str, told: str, tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "LIMIT_S", 20.0 if "yes" in body else 0.5)
    monkeypatch.setattr(asking, "MOST_BYTES", 1 << 16)
    tool(tools, "nvidia-smi", body)
    with pytest.raises(Unsaid, match=told):
        ask([str(tools / "nvidia-smi")])


@pytest.mark.parametrize(("end", "code"), [("exit 3", 3), ("kill -9 $$", -9)])
def test_tools_that_fail_are_told(end: str, code: int, tools: Path) -> None:
    tool(tools, "nvidia-smi", rf"printf '\033[31mout\001 of\nluck'; {end}")
    assert find_topology() == (None, (f"nvidia-smi topo -m failed ({code}): out of luck; nothing was taken from it",))
    tool(tools, "nvidia-smi", f"echo 'WARNING: infoROM is corrupted' >&2; {printing(tools, FULL)}; {end}")
    found, notes = find_topology()
    assert found is not None and len(found.names) == 4
    assert notes == (f"nvidia-smi topo -m ended with {code}, though what it printed was whole",)


def test_a_tool_that_cannot_be_started_is_told(tools: Path) -> None:
    (tools / "nvidia-smi").write_bytes(b"\x7fELF not for this machine")
    (tools / "nvidia-smi").chmod(0o755)
    found, notes = find_topology()
    assert found is None and "cannot be started" in notes[0]
    assert one_line("a\x1b[1m\0b\n" * 100).isprintable() and len(one_line("x" * 999)) < 110


def test_accelerators_that_cannot_be_measured_are_told(tools: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(tools, "nvidia-smi", printing(tools, NVIDIA["bridged pairs"][0]))
    monkeypatch.setattr(measuring, "find_accelerator", lambda runs: None)
    found = measuring.probe(TINY, None, 1)
    told = "8 accelerators (nvidia-smi, SYS or NODE or PXB or PIX or NV4) are not measured"
    assert found.disk is None and any(told in note for note in found.notes)


def flat(value: float) -> Spread:
    return Spread(value, value * 0.9, value * 1.1, 3)


MEMORY = Memory(((1, flat(20e9)),), ((1, flat(10e9)),), flat(15e9), flat(1e-7), flat(1e-6), 16 * 10**9)
PRODUCTS = (Products("fp32", flat(100e9), ((1, flat(12e9)), (128, flat(90e9)))),)


def gpu(name: str, count: int, names: tuple[str, ...] = ()) -> Accelerator:
    rows = ((1, flat(1e12)), (4096, flat(600e12)))
    rate = flat(200e9) if count > 1 else None
    return Accelerator(name, count, 80 * 10**9, flat(3e12), flat(50e9), flat(45e9), {"bf16": rows}, flat(5e-6), rate, names)


def test_gpus_that_torch_does_not_see_say_nothing_of_those_it_does() -> None:
    whole = parse_nvidia(NVIDIA["bridged pairs"][0])
    notes = measuring._of_accelerators(gpu("H100", 2), whole)
    assert notes == ["nvidia-smi sees 8 accelerators, torch 2: how the latter are joined is not said"]
    day = date(2026, 11, 22)
    note = profile_of("h", day, 1, MEMORY, PRODUCTS, None, gpu("H100", 2), whole).domains[0].bandwidth.note
    assert "joined by what no tool said" in note
    pair = Topology("nvidia-smi", ("GPU0", "GPU1"), (("X", "SYS"), ("SYS", "X")))
    assert "joined by SYS" in profile_of("h", day, 1, MEMORY, PRODUCTS, None, gpu("H100", 2), pair).domains[0].bandwidth.note
    assert measuring._of_accelerators(gpu("H100", 2), pair) == []


def test_slices_and_mixtures_of_gpus_are_told() -> None:
    assert "a part of a GPU" in measuring._of_accelerators(gpu("H100 MIG 1g.10gb", 1), None)[0]
    assert "the GPUs differ (A, B)" in measuring._of_accelerators(gpu("A", 2, ("A", "B")), None)[0]


@pytest.mark.parametrize(
    "error", [ImportError("libcudart.so.12: no such file"), RuntimeError("CUDA error:\nout of memory"), OSError("x")]
)
def test_a_torch_that_fails_is_told(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(runs: int) -> None:
        raise error

    monkeypatch.setattr(measuring, "find_accelerator", fail)
    found, notes = measuring._accelerator(3)
    assert found is None and notes[0].startswith("torch measured no GPU: ") and "\n" not in notes[0]


READER = """
import sys
from planner.probe import asking
real = asking._until_closed
def reading(*arguments):
    print("reading", flush=True)
    return real(*arguments)
asking._until_closed = reading
asking.ask([sys.argv[1]], 300)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="asks by sessions")
def test_a_tool_does_not_outlive_a_probe_that_is_stopped(tools: Path) -> None:
    """Ctrl-C does not reach a session of its own: the reader ends it."""
    mark = tools / "child"
    tool(tools, "nvidia-smi", f"echo $$ > {mark}; exec sleep 600")
    top = Path(__file__).resolve().parents[1]
    command = [sys.executable, "-c", READER, str(tools / "nvidia-smi")]
    given = {**os.environ, "PYTHONPATH": str(top)}
    reader = subprocess.Popen(command, cwd=top, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=given)
    try:
        assert reader.stdout is not None and reader.stdout.readline() == b"reading\n"
        ends = time.monotonic() + 30.0
        while not (mark.exists() and mark.read_text().strip()) and time.monotonic() < ends:
            time.sleep(0.02)
        reader.send_signal(signal.SIGINT)
        reader.communicate(timeout=30)
    finally:
        reader.kill()
    assert not _runs(int(mark.read_text()))
