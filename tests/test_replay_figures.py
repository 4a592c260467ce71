"""Figures of a replay against counts by hand: price of a token, goodput, shares of time, hits by memory, wear, reloads; and the
bar, Ctrl-C and the limit of requests of `planner simulate`."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import small
from terminals import ENVIRONMENT, in_terminal, left_clean

from planner.cli.progress import Work
from planner.plans import Plan
from planner.replay import session
from planner.replay.caches import BlockCache
from planner.replay.engine import Replay
from planner.replay.measure import Asked, Bound, measure
from planner.replay.parts import Memory, Request, Site
from planner.replay.run import Served, new_environment, run
from planner.replay.schema import Replayed
from planner.replay.timing import Timing
from planner.search import solve

Run = Callable[..., tuple[int, str, str]]


def figures(served: Served, *, usd: float = 1.0, disk_bytes: float = 0.0, **asked: Any) -> Replayed:
    """What is measured of a replay, with a plan of which only price and disks are looked at. ``ssd`` is a disk."""
    tiers = (SimpleNamespace(id="host", role="host"), SimpleNamespace(id="ssd", role="disk"))
    pool = SimpleNamespace(pool=SimpleNamespace(rates=SimpleNamespace(tiers=tiers)))
    time_of = SimpleNamespace(expected=1.0)
    deployment: Any = SimpleNamespace(
        plan=SimpleNamespace(
            model="m", hardware="h", prediction=SimpleNamespace(requests_per_s=1.0, ttft_ms=time_of, tpot_ms=time_of)
        ),
        operation=SimpleNamespace(usd_per_hour=usd, pools=(pool,)),
        context=SimpleNamespace(inputs=SimpleNamespace(workload=SimpleNamespace(prefix_hit=0.25))),
        disk_bytes=disk_bytes,
        notes=(),
    )
    return measure(deployment, served, Asked(source="by hand", kind="trace", **asked))


def steady(*, fill: float = 0.5, step: float = 0.1, **changes: Any) -> Site:
    """Passes of half a second and steps of a tenth, whatever is in them."""
    timing = Timing(step=lambda _batch, _context: step, fill=lambda _tokens, _requests, _context: fill)
    given = {"replicas": 1, "dp": 1, "pp": 1, "sequences": 8, "chunk": 1000, "kv_tokens": math.inf, "timing": timing}
    return Site(**{"name": "mixed", **given, **changes})


def filling(**changes: Any) -> Site:
    """The same, without decode."""
    return steady(**{"timing": Timing(fill=lambda _tokens, _requests, _context: 0.5), "sequences": 0, **changes})


# -- five requests on one instance ---------------------------------------------------------------------------------------
#      arrives  in  out   pass          first  steps end at                              end
#   A     0    100    6   0    .. 0.5    0.5   0.6 0.7 0.8 0.9 1.0                       1.0
#   B     2    200    1   2    .. 2.5    2.5                                             2.5
#   C     3    300   11   3    .. 3.5    3.5   3.6 3.7 3.8 3.9 4.0 | 4.6 4.7 4.8 4.9 5.0 5.0
#   D     3.95 400    3   4    .. 4.5    4.5   4.6 4.7                                   4.7
#   E    10    500    2   10   .. 10.5  10.5   10.6                                     10.6
FIVE = ((0.0, 100, 6), (2.0, 200, 1), (3.0, 300, 11), (3.95, 400, 3), (10.0, 500, 2))


def five() -> Served:
    requests = [Request(i, *row) for i, row in enumerate(FIVE)]
    return run(Replay(new_environment(), (steady(),)), iter(requests))


def test_five_requests_are_served_as_by_hand() -> None:
    served = five()
    times = {r.number: (r.first_s, r.end_s) for r in served.requests}
    by_hand = {0: (0.5, 1.0), 1: (2.5, 2.5), 2: (3.5, 5.0), 3: (4.5, 4.7), 4: (10.5, 10.6)}
    for number, found in times.items():
        assert found == pytest.approx(by_hand[number])
    assert served.seconds == pytest.approx(10.6)


def test_price_of_a_token_is_of_those_served_between_first_and_last_arrival() -> None:
    """From 0 to 10 s A to D end: 4 requests of 1000 and 21 tokens. 36.756 USD/h are 0.01021 USD/s, or 100 USD for a million of
    102.1 tokens/s."""
    found = figures(five(), usd=36.756)
    assert found.requests_per_s == pytest.approx(0.4) and found.output_tokens_per_s == pytest.approx(2.1)
    assert found.usd_per_million_tokens == pytest.approx(100.0)
    assert found.usd_per_million_output == pytest.approx(0.01021 / 2.1 * 1e6)
    assert (found.usd_per_hour, found.traffic.duration_s) == (36.756, 10.0)


def test_what_ends_after_the_last_arrival_is_not_paid_for() -> None:
    """Nothing ended in time: no rate, and no price instead of one that is infinite."""
    served = run(Replay(new_environment(), (steady(),)), iter([Request(0, 0.0, 100, 5), Request(1, 0.1, 100, 5)]))
    found = figures(served)
    assert found.requests_per_s == 0.0 and found.usd_per_million_tokens is None and found.usd_per_million_output is None


def test_the_warm_up_counts_neither_tokens_nor_times() -> None:
    """Without the first two of five: from 3 to 10 s C and D end, of 700 and 14 tokens, in 7 s."""
    found = figures(five(), usd=3600.0, warm_up=0.4)
    assert found.traffic.counted == 3 and found.requests_per_s == pytest.approx(2 / 7)
    assert found.usd_per_million_tokens == pytest.approx(7 / 714 * 1e6)
    assert found.ttft_ms.mean == pytest.approx((500 + 550 + 500) / 3)


def test_goodput_counts_who_keeps_every_limit() -> None:
    """TTFT 500 ms but D's 550; TPOT 100 ms but C's 150, and none of B. Within 520 and 120 ms are A, B and E, of which A and B
    end in the 10 s; limits on percentiles hold for each request all the same."""
    found = figures(five(), ttft=(Bound(0.52, 95.0),), tpot=(Bound(0.12),))
    assert found.goodput_share == pytest.approx(3 / 5) and found.goodput_requests_per_s == pytest.approx(0.2)
    ttft, tpot = found.limits
    assert ttft.found_ms == pytest.approx(500 + 0.8 * 50) and not ttft.met  # 0.95 * 4 = 3.8: between the fourth and the fifth
    assert tpot.found_ms == pytest.approx((100 + 150 + 100 + 100) / 4) and tpot.met and not found.limits_met
    assert figures(five(), ttft=(Bound(0.551),), tpot=(Bound(0.151),)).goodput_share == 1.0
    assert figures(five(), tpot=(Bound(0.09),)).goodput_share == pytest.approx(1 / 5)  # B, which has no time between tokens


def test_shares_of_time_are_those_of_the_clock() -> None:
    """5 passes and 5 + 10 + 1 steps in 10.6 s; C and D decode together for two of them; 1500 tokens in 5 passes of 1000."""
    (use,) = figures(five()).pools
    assert use.prefill_share == pytest.approx(2.5 / 10.6) and use.decode_share == pytest.approx(1.6 / 10.6)
    assert use.idle_share == pytest.approx(6.5 / 10.6) and use.sequences_mean == pytest.approx(1.8 / 10.6)
    assert use.pass_fill == pytest.approx(0.3) and (use.instances, use.sequences_room) == (1, 8)


@pytest.mark.parametrize("changes", [{}, {"replicas": 3}, {"dp": 2}, {"pp": 2}, {"replicas": 2, "dp": 2, "pp": 2}])
@pytest.mark.parametrize("rate", [0.5, 5.0])
def test_shares_of_time_are_one_together(changes: dict[str, int], rate: float) -> None:
    random = np.random.default_rng(3)
    arrivals = np.cumsum(random.exponential(1 / rate, 120))
    sizes = random.integers(1, 3000, 120), random.integers(1, 30, 120)
    requests = [Request(i, float(a), int(x), int(y)) for i, (a, x, y) in enumerate(zip(arrivals, *sizes, strict=True))]
    served = run(Replay(new_environment(), (steady(**changes),)), iter(requests))
    (use,) = figures(served).pools
    assert use.prefill_share + use.decode_share + use.idle_share == pytest.approx(1.0, abs=1e-9)
    assert min(use.prefill_share, use.decode_share) > 0.0 and served.seconds == max(r.end_s for r in served.requests)
    passes, room = use.prefill_share * served.seconds * use.instances / 0.5, 1000 * changes.get("dp", 1)
    assert passes == pytest.approx(round(passes))
    assert use.pass_fill == pytest.approx(sum(r.input_tokens for r in requests) / passes / room)


# -- a cache over three memories, block by block --------------------------------------------------------------------------
MEMORIES = (Memory("hbm", 4.0), Memory("host", 2.0, 1e-4, 1000.0), Memory("ssd", 3.0, 1e-3, 1000.0, 0.25))
#   blocks asked  found         hbm           host           ssd            down to host, ssd, out (oldest first everywhere)
#   1 2 3 4                     4 3 2 1
#   5 6 7                       1 7 6 5       3 2            4              4 3 2        4
#   1 2 3 4       1 | 2 3 | 4   4 3 2 1       6 5            7              7 6 5        7
#   5 6 7 8       | 5 6 | 7     8 7 6 5       2 1            4 3            4 3 2 1      4 3
#   9 10 11 12                  12 11 10 9    6 5            1 8 7          8 7 6 5      2 1 8 7      4 3 2
#   1 2 3 4       | | 1         4 3 2 1       10 9           5 12 11        12 11 10 9   6 5 12 11    8 7 6
ASKED = ((1, 2, 3, 4), (5, 6, 7), (1, 2, 3, 4), (5, 6, 7, 8), (9, 10, 11, 12), (1, 2, 3, 4))
INPUTS = (400, 300, 400, 350, 400, 400)


def cached() -> tuple[Served, Replay]:
    """One after the other, ten seconds apart; blocks of 100 tokens, the last of the fourth request half full."""
    replay = Replay(new_environment(), (filling(),), MEMORIES, 100)
    requests = [Request(i, 10.0 * i, tokens, 1, blocks) for i, (tokens, blocks) in enumerate(zip(INPUTS, ASKED, strict=True))]
    return run(replay, iter(requests)), replay


def test_which_blocks_come_down() -> None:
    _, replay = cached()
    assert [list(layer) for layer in replay.cache.layers] == [[4, 3, 2, 1], [10, 9], [5, 12, 11]]
    assert (replay.cache.written, replay.cache.dropped) == ([0, 18, 12], 6)


def test_hits_by_memory() -> None:
    """The third request finds all, of which one token is computed all the same; tokens of 2250."""
    served, _ = cached()
    assert [r.found for r in served.requests] == [(0, 0, 0), (0, 0, 0), (100, 200, 99), (0, 200, 100), (0, 0, 0), (0, 0, 100)]
    caches = figures(served, block_tokens=100).caches
    assert [tier.hit_rate for tier in caches.tiers] == pytest.approx([100 / 2250, 400 / 2250, 299 / 2250])
    assert caches.hit_rate == pytest.approx(799 / 2250) and caches.planned_hit_rate == 0.25
    assert caches.block_hit_rate == pytest.approx((4 + 3 + 1) / 23)
    assert [(tier.tier, tier.blocks) for tier in caches.tiers] == [("hbm", 4.0), ("host", 2.0), ("ssd", 3.0)]


def test_wear_is_what_came_down_to_the_disk() -> None:
    """18 blocks to host memory and 12 to the disk, of 100 kB, in the 50.85 s until the last is served; a disk of 2.4 MB."""
    served, _ = cached()
    assert served.seconds == pytest.approx(50.85)
    caches = figures(served, block_tokens=100, disk_bytes=2.4e6).caches
    assert [tier.written_bytes for tier in caches.tiers] == pytest.approx([0.0, 1.8e6, 1.2e6])
    assert caches.drive_writes_per_day == pytest.approx(0.5 * 86400 / 50.85)
    assert figures(served, block_tokens=100).caches.drive_writes_per_day is None
    assert figures(served, disk_bytes=2.4e6).caches.drive_writes_per_day is None  # without hashes nothing is known


def test_reloads_take_the_slower_path() -> None:
    """Third: 200 tokens of host memory in 0.02 s beside 99 of the disk in 0.349; fourth: 0.02 and 0.35; sixth: 0.35."""
    served, _ = cached()
    by_number = sorted(served.requests, key=lambda r: r.number)
    ttft = [r.first_s - r.arrival_s for r in by_number]
    assert ttft == pytest.approx([0.5, 0.5, 0.849, 0.85, 0.5, 0.85])
    caches = figures(served, block_tokens=100).caches
    assert caches.reload_s == pytest.approx(0.02 + 0.349 + 0.02 + 0.35 + 0.35) and caches.longest_reload_wait_ms == 0.0


def test_the_queue_of_a_disk_is_that_of_one_rank() -> None:
    """Two ranks, three prompts known on disk that come at once: 1.099 s each; the third waits for the first, on its rank, and
    not for the second, on the other."""
    memories = (Memory("hbm", 0.0), Memory("ssd", 100.0, 1e-3, 1000.0, 0.1))
    replay = Replay(new_environment(), (filling(dp=2),), memories, 100)
    prompts = [tuple(range(10 * i, 10 * i + 10)) for i in range(3)]
    requests = [Request(i, 10.0 * i, 1000, 1, prompts[i]) for i in range(3)]
    requests += [Request(3 + i, 100.0, 1000, 1, prompts[i]) for i in range(3)]
    served = run(replay, iter(requests))
    ttft = [r.first_s - 100.0 for r in sorted(served.requests, key=lambda r: r.number)[3:]]
    assert ttft == pytest.approx([1.599, 1.599, 2.698])
    caches = figures(served, block_tokens=100, disk_bytes=3e6).caches
    assert caches.longest_reload_wait_ms == pytest.approx(1099.0) and caches.reload_s == pytest.approx(3 * 1.099)
    # each block goes down when it is made, and comes back up and goes down again when it is found and when it is used
    assert caches.tiers[1].written_bytes == 1e5 * replay.cache.written[1] and replay.cache.written[1] == 30 + 2 * 30


def test_paths_of_two_memories_do_not_wait_for_each_other() -> None:
    """Two requests at once: one finds its blocks on disk, the other in host memory."""
    memories = (Memory("hbm", 0.0), Memory("host", 5.0, 1e-4, 1000.0), Memory("ssd", 9.0, 1e-3, 1000.0))
    replay = Replay(new_environment(), (filling(fill=0.0),), memories, 100)
    old, young = (1, 2, 3, 4, 5), (6, 7, 8, 9, 10)
    requests = [Request(0, 0.0, 501, 1, old), Request(1, 10.0, 501, 1, young)]
    requests += [Request(2, 20.0, 501, 1, old), Request(3, 20.0, 501, 1, young)]
    served = sorted(run(replay, iter(requests)).requests, key=lambda r: r.number)
    assert [r.found for r in served[2:]] == [(0, 0, 500), (0, 0, 500)]  # who asked first took the room of host memory
    assert replay.peaks.reload_wait_s == pytest.approx(0.5)
    again = Replay(new_environment(), (filling(),), memories, 100)
    requests = [Request(0, 0.0, 501, 1, old), Request(1, 10.0, 501, 1, young)]
    requests += [Request(2, 20.0, 501, 1, young), Request(3, 20.0, 501, 1, old)]
    served = sorted(run(again, iter(requests)).requests, key=lambda r: r.number)
    assert [r.found for r in served[2:]] == [(0, 500, 0), (0, 0, 500)] and again.peaks.reload_wait_s == 0.0
    # the first pass is over when the blocks of the second, which take 0.5 s, have been there for 0.05 s
    assert [r.first_s - 20.0 for r in served[2:]] == pytest.approx([0.05 + 0.5, 0.55 + 0.5])


def test_without_hashes_hits_lie_where_the_plan_has_them() -> None:
    """400 of 800 tokens are found: half in device memory, a quarter in host memory (0.01 s) and on disk (0.1 + 0.25 s)."""
    replay = Replay(new_environment(), (filling(),), MEMORIES, 1, found_by_share=(0.5, 0.25, 0.25))
    served = run(replay, iter([Request(0, 0.0, 800, 1, hit_tokens=400)]))
    assert served.requests[0].found == (200, 100, 100) and served.requests[0].first_s == pytest.approx(0.35 + 0.5)
    caches = figures(served, disk_bytes=1e6).caches
    assert [tier.hit_rate for tier in caches.tiers] == pytest.approx([0.25, 0.125, 0.125]) and caches.hit_rate == 0.5
    assert caches.drive_writes_per_day is None and caches.reload_s == pytest.approx(0.36)


def test_running_requests_take_the_room_of_blocks() -> None:
    """1000 tokens for both: 4 blocks of the first lie there until the second takes 800; of those only 1 and 2 have room, and then
    the first two of its own; when it has gone they are found again."""
    replay = Replay(new_environment(), (steady(),), (Memory("hbm", 10.0),), 100, spare_tokens=1000.0)
    first, second = (1, 2, 3, 4), (5, 6, 7, 8, 9)
    requests = [Request(0, 0.0, 400, 100, first), Request(1, 100.0, 500, 300, second)]
    requests += [Request(2, 200.0, 500, 100, second), Request(3, 300.0, 400, 100, first)]
    served = run(replay, iter(requests))
    assert [r.hit_tokens for r in served.requests] == [0, 0, 200, 0] and replay.cache.rooms == [10.0]


@pytest.mark.parametrize("rooms", [(10, 15, 25), (0, 20, 20), (3, 1, 40), (40, 5)])
def test_writes_are_crossings_of_one_stack(rooms: tuple[int, ...]) -> None:
    """One list by last use: what crosses the edge of a memory is written to the next."""
    random, stack, cache = np.random.default_rng(11), list[int](), BlockCache([float(room) for room in rooms])
    edges, written, dropped = np.cumsum(rooms), np.zeros(len(rooms), dtype=int), 0
    for _ in range(500):
        story = int(random.integers(20)) * 1000
        used = [story + i for i in range(int(random.integers(1, 12)))]
        before = {block: int(np.searchsorted(edges, at, side="right")) for at, block in enumerate(stack)}
        stack = used + [block for block in stack if block not in set(used)]
        for at, block in enumerate(stack):
            here, there = 0 if block in used else before[block], int(np.searchsorted(edges, at, side="right"))
            written[here + 1 : there + 1] += 1
            dropped += there == len(rooms)
        stack = stack[: edges[-1]]
        cache.use(used)
    assert (cache.written, cache.dropped) == (written.tolist(), dropped)
    assert [block for layer in cache.layers for block in reversed(layer)] == stack


# -- the command ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def plan() -> Plan:
    software = small.runtime(256, (256, 1024), disaggregated=False)
    return solve(small.instance(small.llama(), small.node(memory_bytes=4e9), 1, small.workload(isl=700, osl=300), software))


@pytest.fixture(scope="module")
def file(plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("figures") / "plan.json"
    path.write_text(plan.to_json())
    return path


def plain(folder: Path, count: int, every_s: float = 0.5) -> Path:
    path = folder / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{i * every_s},{100 + i % 7},9\n" for i in range(count)))
    return path


def test_as_served_is_the_plans_price_over_the_tokens_of_the_trace(run: Run, file: Path, plan: Plan, tmp_path: Path) -> None:
    """All but the last of 200 equal requests end before the last comes: 199 of 130 tokens in 99.5 s."""
    path = tmp_path / "trace.csv"
    path.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{i * 0.5},100,30\n" for i in range(200)))
    code, out, _ = run("simulate", file, "--trace", path, "--format", "json")
    found = json.loads(out)
    assert code == 0 and found["requests_per_s"] == pytest.approx(2.0)
    price = plan.cost.usd_per_hour
    assert found["usd_per_hour"] == pytest.approx(price)
    assert found["usd_per_million_tokens"] == pytest.approx(price / 3600.0 / (2.0 * 130) * 1e6)
    assert found["goodput_share"] == 1.0 and found["goodput_requests_per_s"] == pytest.approx(2.0)


def test_more_requests_than_a_replay_takes_are_told(
    run: Run, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "MOST_REQUESTS", 40)
    path = plain(tmp_path, 60)
    code, out, _ = run("simulate", file, "--trace", path, "--format", "json")
    found = json.loads(out)
    assert code == 0 and found["traffic"]["requests"] == 40
    assert any("only the first 40 requests" in note for note in found["notes"])
    assert "only the first 40 requests" in run("simulate", file, "--trace", path)[1]
    assert "only the first" not in run("simulate", file, "--trace", path, "--requests", "30")[1]
    assert "--requests" in run("simulate", file, "--trace", path, "--requests", "1000001")[2]


@pytest.mark.parametrize(
    "options",
    [("--trace", "TRACE", "--scale-rate", "1e-320"), ("--trace", "TRACE", "--scale-rate", "1e-10"), ("--rate", "1e-9")],
)
def test_times_that_a_clock_cannot_tell_are_refused(run: Run, file: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    path = str(plain(tmp_path, 60))
    code, out, err = run("simulate", file, *(path if o == "TRACE" else o for o in options))
    assert (code, out) == (2, "") and err.count("\n") == 1 and "--scale-rate" in err, err


class Seen:
    """A display that keeps what it was told."""

    def __init__(self) -> None:
        self.shown: list[tuple[float | None, str]] = []

    def show(self, share: float | None, text: str) -> None:
        self.shown.append((share, text))


def test_work_of_unknown_size_is_counted_alone() -> None:
    """As of a trace that is replayed to its end, also by ``planner plan --trace``."""
    work, seen = Work("replaying"), Seen()
    work.display = seen  # type: ignore[assignment]
    work.part(1256, 0, "requests")
    work.part(3, 4, "requests")
    assert seen.shown == [(None, "1,256 requests"), (0.75, "3 of 4 requests")]


# -- the terminal ---------------------------------------------------------------------------------------------------------
SLOW = """
import time
from planner.replay.engine import Replay
submit = Replay.submit
def slowly(self, request):
    time.sleep(0.01)
    submit(self, request)
Replay.submit = slowly
from planner.__main__ import run
run()
"""


@pytest.mark.parametrize(("options", "said"), [(("--requests", "600"), r"\d+ of 600 requests"), ((), r"\b\d+ requests")])
def test_the_bar_counts_requests_and_leaves_nothing(file: Path, tmp_path: Path, options: tuple[str, ...], said: str) -> None:
    arguments = ["simulate", str(file), "--trace", str(plain(tmp_path, 600)), *options]
    code, out = in_terminal(arguments, code=SLOW)
    assert code == 0 and left_clean(out, "replaying") and "replaying" in out and re.search(said, out), out[-2000:]
    assert out.rfind("as served") > out.rfind("replaying") and " of 0" not in out


@pytest.mark.parametrize("how", [b"\x03", b"TERM"], ids=["Ctrl-C", "SIGTERM"])
def test_a_signal_ends_a_replay(how: bytes, file: Path, tmp_path: Path) -> None:
    sent: list[bytes] = []

    def act(seen: bytes) -> bytes:
        if b"replaying" not in seen or sent:
            return b""
        sent.append(how)
        return how

    began = time.monotonic()
    code, out = in_terminal(["simulate", str(file), "--requests", "100000"], act, SLOW)
    assert code == 130 and sent and left_clean(out, "replaying"), out[-2000:]
    assert "planner: stopped" in out and "Traceback" not in out and "as served" not in out and time.monotonic() < began + 30.0


def test_no_bar_where_nobody_looks(file: Path, tmp_path: Path) -> None:
    arguments = [sys.executable, "-c", SLOW, "simulate", str(file), "--trace", str(plain(tmp_path, 150))]
    done = subprocess.run(arguments, env=ENVIRONMENT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "as served" in done.stdout and "\x1b" not in done.stdout + done.stderr
    assert "replaying" not in done.stderr and all(line.startswith("next: ") for line in done.stderr.splitlines())
