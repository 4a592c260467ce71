"""Traces of requests: the formats, what is refused and by which line, bounded memory, and `planner workload fit`.

The traces here are written by this file in the formats of https://github.com/kvcache-ai/Mooncake (FAST25-release/traces) and
https://github.com/Azure/AzurePublicDataset (AzureLLMInferenceDataset2023); none is copied.
"""

from __future__ import annotations

import gzip
import json
import os
import tomllib
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import small
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.cli.schema_command import schema_of
from planner.economics.hit_curve import Keeping, best_point, worth_of_points
from planner.errors import InputError
from planner.plans import verify_plan
from planner.search import solve
from planner.workload import Workload, load_workload, trace_lines
from planner.workload.fit import fit_requests, fit_trace, workload_of
from planner.workload.schema import Arrivals, Lengths
from planner.workload.text import to_toml
from planner.workload.traces import Requests, open_trace

Run = Callable[..., tuple[int, str, str]]
AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
PLAIN = "arrival_s,input_tokens,output_tokens\n"


def mooncake(*rows: tuple[int, int, int, list[int]]) -> str:
    names = ("timestamp", "input_length", "output_length", "hash_ids")
    return "".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows)


GOOD = mooncake((1000, 1100, 50, [1, 2, 3]), (1500, 600, 20, [1, 4]), (61_500, 1100, 90, [1, 2, 3]))


def read(path: Path, **options: Any) -> list[Requests]:
    return list(open_trace(path, **options).trace.chunks())


def written(folder: Path, content: str | bytes, name: str = "trace.jsonl") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# -- the formats ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("packed", [False, True])
def test_mooncake_is_read(tmp_path: Path, packed: bool) -> None:
    """Milliseconds become seconds from the first request; blocks of 512; gzip by content, whatever the name."""
    data = GOOD.encode()
    opening = open_trace(written(tmp_path, gzip.compress(data) if packed else data, "trace.txt"))
    assert (opening.trace.format, opening.trace.block_tokens, opening.day) == ("mooncake", 512, None)
    (chunk,) = opening.trace.chunks()
    assert chunk.arrival_s.tolist() == [0.0, 0.5, 60.5]
    assert chunk.input_tokens.tolist() == [1100, 600, 1100] and chunk.output_tokens.tolist() == [50, 20, 90]
    assert chunk.blocks is not None and chunk.starts is not None
    assert chunk.blocks.tolist() == [1, 2, 3, 1, 4, 1, 2, 3] and chunk.starts.tolist() == [0, 3, 5, 8]


def test_azure_is_read(tmp_path: Path) -> None:
    """Seven digits of a second, and what later traces add: a time zone, which must be UTC."""
    rows = ["2023-11-16 18:17:03.9799600,4808,10", "2023-11-16 18:17:04.0319600,3180,8", "2024-05-10 00:00:00.009930+00:00,5,0"]
    text = AZURE + "\n".join(rows)
    opening = open_trace(written(tmp_path, text))
    assert (opening.trace.format, opening.trace.block_tokens, opening.day) == ("azure", None, date(2023, 11, 16))
    (chunk,) = opening.trace.chunks()
    assert chunk.arrival_s.tolist()[:2] == [0.0, 0.052] and chunk.arrival_s[2] == pytest.approx(176 * 86400 - 65823.97003)
    assert chunk.input_tokens.tolist() == [4808, 3180, 5] and chunk.output_tokens.tolist() == [10, 8, 0] and chunk.blocks is None


def test_plain_csv_is_read(tmp_path: Path) -> None:
    """Columns in any order, others passed over, quotes, a byte-order mark, blank lines and CRLF."""
    text = '\ufeffuser,output_tokens,"input_tokens",arrival_s,hash_ids\r\n"a, b",5,32,10.25,7 8\r\n\r\nc,6,20,11,7\r\n'
    opening = open_trace(written(tmp_path, text), block_tokens=16)
    (chunk,) = opening.trace.chunks()
    assert opening.trace.format == "csv" and chunk.arrival_s.tolist() == [0.0, 0.75]
    assert chunk.blocks is not None and chunk.blocks.tolist() == [7, 8, 7]
    assert chunk.input_tokens.tolist() == [32, 20] and chunk.output_tokens.tolist() == [5, 6]


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.integers(0, 9999), st.integers(1, 3000), st.integers(0, 99)), min_size=1, max_size=40),
    st.integers(1, 41),
)
def test_pieces_make_the_whole(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, int, int]], size: int) -> None:
    """However the requests are cut into chunks, they are those of the file, and times count from the first."""
    times = np.cumsum([gap for gap, _, _ in rows]).tolist()
    folder = tmp_path_factory.mktemp("pieces")
    blocks = [[at * 100 + k for k in range(-(-tokens // 512))] for at, (_, tokens, _) in enumerate(rows)]
    path = written(folder, mooncake(*((t, i, o, b) for t, (_, i, o), b in zip(times, rows, blocks, strict=True))))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("planner.workload.traces.CHUNK_REQUESTS", size)
        chunks = read(path)
    assert all(len(chunk) <= size for chunk in chunks)
    assert np.concatenate([chunk.arrival_s for chunk in chunks]).tolist() == [t / 1e3 - times[0] / 1e3 for t in times]
    assert np.concatenate([chunk.input_tokens for chunk in chunks]).tolist() == [tokens for _, tokens, _ in rows]
    found = [chunk.blocks[a:b].tolist() for chunk in chunks for a, b in zip(chunk.starts, chunk.starts[1:], strict=False)]  # type: ignore[index, arg-type]
    assert found == blocks


def flipped(data: bytes, at: int) -> bytes:
    """A byte is another."""
    changed = bytearray(data)
    changed[at] ^= 0x55
    return bytes(changed)


# -- what is refused --------------------------------------------------------------------------------------------------------
LINE = '{"timestamp": 2, "input_length": 600, "output_length": 5, "hash_ids": [1, 2]}\n'
BROKEN: dict[str, tuple[str | bytes, str]] = {
    "empty": ("", "holds no request"),
    "blank": ("\n \n\n", "holds no request"),
    "header alone": (AZURE, "holds no request"),
    "no trace": ("hello\n", "line 1 begins no trace"),
    "not JSON": (LINE + "{]\n", "line 2 is not a JSON object"),
    "not an object": (LINE + "[1]\n", "line 2 is not a JSON object"),
    "nested": (LINE + "[" * 100_000 + "\n", "line 2 is not a JSON object"),
    "NaN": (LINE.replace("600", "NaN"), "line 1 is not a JSON object (NaN"),
    "a key is missing": (LINE + '{"timestamp": 3, "input_length": 5, "hash_ids": [1]}\n', "line 2 has no output_length"),
    "no hashes": ('{"timestamp": 3, "input_length": 5, "output_length": 5}\n', "line 1 has no hash_ids"),
    "text for a number": (LINE.replace("600", '"600"'), "line 1: timestamp, input_length, output_length are not all numbers"),
    "truth for a number": (LINE.replace("600", "true"), "are not all numbers"),
    "hashes are text": (LINE.replace("[1, 2]", '"12"'), "hash_ids is not a list"),
    "a hash is no number": (LINE.replace("[1, 2]", "[1, 2.5]"), "line 1: hash_ids are not all whole numbers"),
    "a hash is too large": (LINE + LINE.replace("[1, 2]", f"[1, {2**64}]"), "line 2: hash_ids are not all whole numbers of 64"),
    "unordered": (LINE + LINE + LINE.replace(": 2,", ": 1,"), "line 3: arrives before the request above it"),
    "before time": (LINE.replace(": 2,", ": -2,"), "line 1: arrives at -0.002 s"),
    "at no time": (LINE.replace(": 2,", ": 1e400,"), "line 1: arrives at inf s"),
    "huge number": (LINE.replace(": 2,", f": {'9' * 400},"), "line 1: the time of arrival is 'a number that is too large'"),
    "huger number": (LINE.replace(": 2,", f": {'9' * 5000},"), "line 1 is not a JSON object"),
    "negative input": (LINE + LINE.replace("600", "-600"), "line 2: -600 input tokens"),
    "no input": (LINE.replace("600", "0").replace("[1, 2]", "[]"), "line 1: 0 input tokens"),
    "half a token": (LINE.replace("600", "600.5"), "line 1: 600.5 input tokens"),
    "absurd input": (LINE.replace("600", "1e12"), "line 1: 1e+12 input tokens"),
    "negative output": (LINE.replace(": 5", ": -5"), "line 1: -5 output tokens"),
    "too many hashes": (LINE + LINE.replace("[1, 2]", "[1, 2, 3]"), "line 2: 3 hash_ids for 600 input tokens"),
    "too few hashes": (LINE.replace("600", "1600"), "line 1: 2 hash_ids for 1600 input tokens are not blocks of 512"),
    "not UTF-8": (LINE.encode() + b"\xff\xfe{}\n", "line 2 is not UTF-8"),
    "NUL": (LINE.encode() + b"\0\0\n", "line 2 holds a NUL"),
    "carriage returns alone": (PLAIN.replace("\n", "\r") + "1,2,3\r", "line 1 begins no trace"),
    "another column": ("arrival_s,input_tokens\n1,2\n", "line 1 begins no trace"),
    "a column twice": (
        "arrival_s,input_tokens,output_tokens,input_tokens\n1,2,3,4\n",
        "line 1: the column input_tokens is there twice",
    ),
    "short row": (PLAIN + "1,2,3\n1,2\n", "line 3 has 2 columns and the header 3"),
    "words": (PLAIN + "1,2,3\n1,two,3\n", "line 3: input tokens is 'two'"),
    "CSV NaN": (PLAIN + "1,nan,3\n", "line 2: input tokens is NaN"),
    "CSV infinity": (PLAIN + "inf,2,3\n", "line 2: arrives at inf s"),
    "CSV quotes": (PLAIN + '1,"2,3\n', "line 2 is not CSV"),
    "CSV field": (PLAIN + "1,2," + "3" * 200_000 + "\n", "line 2 is not CSV"),
    "no date": (AZURE + "2023-11-16 18:17:03.9799600,48,10\nyesterday,48,10\n", "line 3: 'yesterday' is no time"),
    "another zone": (AZURE + "2023-11-16 18:17:03+02:00,48,10\n", "line 2: '2023-11-16 18:17:03+02:00' is no time"),
    "no such month": (AZURE + "2023-13-16 18:17:03.9799600,48,10\n", "line 2: '2023-13-16 18:17:03.9799600' is no time"),
    "far year": (AZURE + "9023-11-16 18:17:03.9799600,48,10\n", "line 2: '9023"),
    "back in time": (AZURE + "2023-11-16 18:17:03,48,10\n2023-11-16 18:17:02,48,10\n", "line 3: arrives before"),
    "cut gzip": (gzip.compress(GOOD.encode() * 50)[:-20], "ends early"),
    "damaged gzip": (flipped(gzip.compress(GOOD.encode() * 50), -6), "is damaged gzip"),
    "damaged stream": (flipped(gzip.compress(GOOD.encode() * 50), 14), "gzip"),
    "not gzip": (b"\x1f\x8b\x07" + b"x" * 40, "is damaged gzip"),
    "gzip of nothing": (gzip.compress(b""), "holds no request"),
    "gzip in gzip": (gzip.compress(gzip.compress(LINE.encode())), "line 1 is not UTF-8"),
    "more behind gzip": (gzip.compress(LINE.encode()) + b"more", "is damaged gzip after line 1"),
    "gzip bomb": (gzip.compress(LINE.encode() * 100_000, 9), "expands to more than 200 times its size"),
    "zeros in gzip": (gzip.compress(bytes(2**23)), "line 1 is longer than 4194304 bytes"),
    "UTF-16": ((PLAIN + "1,2,3\n").encode("utf-16"), "line 1 is not UTF-8"),
    "Latin 1": ((PLAIN + "1,2,3\n1,2,\xe9\n").encode("latin-1"), "line 3 is not UTF-8"),
    "two byte-order marks": ("\ufeff\ufeff" + PLAIN + "1,2,3\n", "line 1 begins no trace"),
    "semicolons": (PLAIN.replace(",", ";") + "1;2;3\n", "line 1 begins no trace"),
    "header alone, plain": (PLAIN, "holds no request"),
    "long row": (PLAIN + "1,2,3\n1,2,3,4\n", "line 3 has 4 columns and the header 3"),
    "nothing for a number": (PLAIN + "1,,3\n", "line 2: input tokens is ''"),
    "CSV before time": (PLAIN + "0,2,3\n-1,2,3\n", "line 3: arrives at -1 s"),
    "CSV no time": (PLAIN + "1,2,3\nnan,2,3\n", "line 3: the time of arrival is NaN"),
    "CSV before all time": (PLAIN + "-inf,2,3\n", "line 2: arrives at -inf s"),
    "CSV far time": (PLAIN + "1e12,2,3\n", "line 2: arrives at 1e+12 s"),
    "CSV negative": (PLAIN + "1,2,-3\n", "line 2: -3 output tokens"),
    "CSV unordered": (PLAIN + "5,2,3\n6,2,3\n5.5,2,3\n", "line 4: arrives before the request above it"),
    "CSV one too many": (PLAIN + f"1,{2**24 + 1},3\n", "line 2: 16777217 input tokens"),
    "CSV huge": (PLAIN + f"1,{'9' * 100},3\n", "line 2: 1e+100 input tokens"),
    "CSV huger": (PLAIN + f"1,2,{'9' * 5000}\n", "line 2: inf output tokens"),
    "CSV with sizeless hashes": (PLAIN.strip() + ",hash_ids\n1,2,3,4\n", "--block-tokens"),
    "null": (LINE + LINE.replace("600", "null"), "line 2: timestamp, input_length, output_length are not all numbers"),
    "a list for a number": (LINE.replace("600", "[600]"), "line 1: timestamp, input_length, output_length are not all numbers"),
    "hashes are an object": (LINE.replace("[1, 2]", "{}"), "line 1: hash_ids is not a list"),
    "hashes are null": (LINE.replace("[1, 2]", "null"), "line 1: hash_ids is not a list"),
    "a hash is truth": (LINE.replace("[1, 2]", "[1, true]"), "line 1: hash_ids are not all whole numbers"),
    "a hash is a list": (LINE.replace("[1, 2]", "[1, [2]]"), "line 1: hash_ids are not all whole numbers"),
    "deep in another key": (LINE.replace("}", ', "x": ' + "[" * 100_000 + "]" * 100_000 + "}"), "line 1 is not a JSON object"),
}
COMMANDS = {
    "fit": ("workload", "fit", "TRACE", "--as-of", "2026-01-01", "-o", "MADE"),
    "simulate": ("simulate", "PLAN", "--trace", "TRACE"),
    "plan": ("plan", "llama-3.1-8b", "h100-node:1", "--trace", "TRACE", "--ttft", "2s@p95", "-o", "MADE"),
}


@pytest.fixture(scope="module")
def plan_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    path.write_text(solve(small.instance(small.llama(), small.node(1), 1, small.workload())).to_json(), encoding="utf-8")
    return path


def refused(run: Run, command: str, path: Path, folder: Path, plan: Path) -> str:
    """The one line that a command says of a trace; it ends with 2 and writes nothing."""
    made = folder / "made.toml"
    paths = {"TRACE": path, "MADE": made, "PLAN": plan}
    code, out, err = run(*(paths.get(word, word) for word in COMMANDS[command]))
    assert (code, out) == (2, "") and err.count("\n") == 1 and str(path) in err and "; " in err, err
    assert not made.exists() and "Traceback" not in err
    return err


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_trace_is_told_in_one_line(tmp_path: Path, run: Run, name: str, command: str, plan_file: Path) -> None:
    content, said = BROKEN[name]
    assert said in refused(run, command, written(tmp_path, content), tmp_path, plan_file)


@pytest.mark.parametrize("command", COMMANDS)
def test_files_that_are_none(tmp_path: Path, run: Run, command: str, plan_file: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    os.symlink("loop", tmp_path / "loop")
    for path, said in (
        (tmp_path / "absent", "no such file"),
        (tmp_path, "is a folder"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "loop", "cannot be read"),
        (tmp_path / ("x" * 300), "cannot be read"),
        (Path("/dev/zero"), "not a regular file"),
    ):
        assert said in refused(run, command, path, tmp_path, plan_file)


def test_a_name_of_a_file_is_no_text_of_the_terminal(tmp_path: Path, run: Run) -> None:
    path = written(tmp_path, PLAIN + "1,2,3\n1,x,3\n", "a\nb\x1b[31m.csv")
    code, out, err = run("workload", "fit", path)
    assert (code, out) == (2, "") and err.count("\n") == 1 and "\x1b" not in err and "line 3: input tokens is 'x'" in err


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff" + GOOD.replace("\n", "\r\n"),
        GOOD.replace("}", ', "user": {"a": [1, {"b": null}]}, "model": "m"}'),
        GOOD.replace(": ", ":").replace("{", "{ \t"),
        "\n\n" + GOOD.replace("\n", "\n\n"),
        GOOD.replace("600", "600.0"),
        GOOD.replace("[1, 4]", f"[{-(2**63)}, {2**63 - 1}]"),
    ],
    ids=["mark and CRLF", "other keys", "blanks", "blank lines", "whole floats", "widest hashes"],
)
@pytest.mark.parametrize("packed", [False, True])
def test_what_is_odd_but_right_is_read(tmp_path: Path, text: str, packed: bool) -> None:
    data = text.encode()
    (chunk,) = read(written(tmp_path, gzip.compress(data[:99]) + gzip.compress(data[99:]) if packed else data))
    assert chunk.arrival_s.tolist() == [0.0, 0.5, 60.5] and chunk.input_tokens.tolist() == [1100, 600, 1100]
    assert chunk.starts is not None and chunk.starts.tolist() == [0, 3, 5, 8]


def test_a_line_without_end_is_refused_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trace_lines, "MAX_LINE", 1000)
    with pytest.raises(InputError, match="line 2 is longer than 1000 bytes"):
        read(written(tmp_path, LINE + "{" + " " * 5000))


@pytest.mark.parametrize(("filling", "said"), [(b"\0" * 8192, "longer than"), (b" \n" * 4096, "expands to more than 20 times")])
def test_a_gzip_bomb_costs_neither_memory_nor_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, filling: bytes, said: str
) -> None:
    """Zeros are one line without end; blank lines expand too far. Neither is held, and reading stops early."""
    monkeypatch.setattr(trace_lines, "FREE_BYTES", 2**16)
    monkeypatch.setattr(trace_lines, "MAX_RATIO", 20)
    path = written(tmp_path, gzip.compress(LINE.encode() + filling * 1000), "bomb.gz")
    assert path.stat().st_size < 2**16
    seen = 0
    tracemalloc.start()
    with pytest.raises(InputError, match=said):
        for number, _ in trace_lines.lines_of(path):
            seen = number
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * trace_lines.MAX_LINE and seen == 1


def test_a_long_trace_is_read_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is held does not grow with the file: three times the requests, the same peak."""

    def lines(count: int) -> Iterator[str]:
        yield PLAIN
        for at in range(count):
            yield f"{at * 0.01:.2f},{at % 5000 + 1},{at % 700}\n"

    peaks = []
    monkeypatch.setattr("planner.workload.traces.CHUNK_REQUESTS", 2000)
    for count in (10_000, 30_000):
        path = tmp_path / f"{count}.csv"
        path.write_text("".join(lines(count)))
        tracemalloc.start()
        fit = fit_trace(open_trace(path))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert fit.requests == count
    assert peaks[1] < 1.1 * peaks[0] < 10e6


@pytest.mark.parametrize(
    ("options", "content", "said"),
    [
        ({"form": "azure"}, PLAIN + "1,2,3\n", "line 1: the column TIMESTAMP is missing"),
        ({"form": "csv"}, GOOD, "line 1: the column arrival_s is missing"),
        ({"form": "csv"}, PLAIN.replace("\n", "\r") + "1,2,3\r", "line 1 is not CSV"),
        ({"form": "mooncake"}, PLAIN, "line 1 is not a JSON object"),
        ({"block_tokens": 16}, GOOD, "3 hash_ids for 1100 input tokens are not blocks of 16"),
        ({"block_tokens": 16}, PLAIN + "1,2,3\n", "has no hash_ids"),
        ({}, "arrival_s,input_tokens,output_tokens,hash_ids\n1,2,3,4\n", "--block-tokens"),
        ({"block_tokens": 0}, GOOD, "blocks of 0 tokens"),
    ],
)
def test_options_that_do_not_fit_the_trace(tmp_path: Path, options: dict[str, Any], content: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(written(tmp_path, content), **options)


# -- the workload -------------------------------------------------------------------------------------------------------------
def conversation(seed: int = 1, sessions: int = 120) -> str:
    """Sessions in Mooncake's format: a common first block, rounds that grow, pauses of a minute."""
    random = np.random.default_rng(seed)
    rows, fresh = [], 1
    for begin in np.cumsum(random.exponential(3.0, sessions)).tolist():
        blocks, at = [0], begin
        for _ in range(int(random.integers(1, 7))):
            more = int(random.integers(1, 9))
            blocks = [*blocks, *range(fresh, fresh + more)]
            fresh += more
            rows.append(
                (int(at * 1000), len(blocks) * 512 - int(random.integers(512)), int(random.lognormal(5.0, 0.8)) + 1, blocks)
            )
            at += float(random.exponential(60.0))
    return mooncake(*sorted(rows, key=lambda row: row[0]))


def fitted(run: Run, *arguments: Any) -> Any:
    code, out, err = run("workload", "fit", *arguments, "--format", "json")
    assert code == 0, err
    data = json.loads(out)
    jsonschema.validate(data, schema_of("workload-fit"), jsonschema.Draft202012Validator)
    return data


def test_a_trace_becomes_a_workload(tmp_path: Path, run: Run) -> None:
    """Its statistics as counted here; the file reads back as the same workload (law 6), twice the same."""
    path, made = written(tmp_path, conversation(), "conversation.jsonl"), tmp_path / "Mine 1.toml"
    limits = ("--ttft", "2s", "--tpot", "50ms", "--points", "5")
    data = fitted(run, path, "--as-of", "2026-01-02", "--source", 'a "trace" of mine', "-o", made, *limits)
    found = load_workload(str(made))
    (chunk,) = read(path)
    assert found.id == "mine-1" and (found.ttft_s, found.tpot_s, found.grade, str(found.as_of)) == (2.0, 0.05, "A", "2026-01-02")
    for lengths, values, shown in (
        (found.input_tokens, chunk.input_tokens, data["input_tokens"]),
        (found.output_tokens, chunk.output_tokens, data["output_tokens"]),
    ):
        assert lengths.mean == pytest.approx(values.mean(), rel=1e-5) and shown["mean"] == pytest.approx(values.mean())
        assert lengths.median == pytest.approx(np.median(values), rel=1e-5)
        assert lengths.quantiles is not None
        for p, tokens in lengths.quantiles:
            assert tokens == pytest.approx(np.quantile(values, p), rel=1e-5)
    rate = len(chunk) / chunk.arrival_s[-1]
    assert found.arrivals is not None and found.arrivals.rate_per_s == pytest.approx(rate, rel=1e-5) == data["rate_per_s"]
    assert found.prefix_cache is not None and len(found.prefix_cache.curve) == 5
    caches = {round(row["tokens_per_request_per_s"], 3): row["prefix_hit"] for row in data["reuse"]["caches"]}
    for tokens, hit in found.prefix_cache.curve:
        near = min(caches, key=lambda size: abs(size - tokens))
        assert near == pytest.approx(tokens, rel=1e-5) and caches[near] == pytest.approx(hit, abs=1e-5)
    assert found.prefix_cache.curve[-1][1] == pytest.approx(data["reuse"]["infinite"]["prefix_hit"], abs=1e-5)

    assert Workload.model_validate(tomllib.loads(made.read_text())) == found
    assert Workload.model_validate(found.model_dump(mode="json"), context={"si": True}) == found
    again = tmp_path / "again" / made.name
    again.parent.mkdir()
    run("workload", "fit", path, "--as-of", "2026-01-02", "--source", 'a "trace" of mine', "-o", again, *limits)
    assert again.read_bytes() == made.read_bytes()


def test_lengths_of_a_lognormal_come_back() -> None:
    """The quantiles of the lognormal with the mean and median of lognormal lengths are theirs."""
    random = np.random.default_rng(3)
    tokens = np.round(random.lognormal(7.0, 0.9, 40_000)).astype(np.int64) + 1
    chunk = Requests(np.arange(len(tokens)) * 0.1, tokens, tokens)
    found = fit_requests([chunk], None).input_tokens
    for p in (0.1, 0.5, 0.9, 0.99):
        assert found.lognormal(p) == pytest.approx(found.at(p), rel=0.05)


def test_what_a_lognormal_cannot_be_is_constant(tmp_path: Path) -> None:
    """A mean below the median, as the outputs of Mooncake's conversations: planned as constant, and said."""
    path = written(tmp_path, PLAIN + "0,10,2\n1,20,90\n2,60,100\n", "t.csv")
    found = workload_of(fit_trace(open_trace(path)), workload_id="t", as_of=date(2026, 1, 1))
    assert found.output_tokens.median is None and "planned as constant" in found.note
    assert found.input_tokens.median == 20 and found.grade == "D" and found.prefix_cache is None


def test_all_at_once_has_no_rate(tmp_path: Path, run: Run) -> None:
    """No rate, no curve; still a workload, and a table."""
    path, made = written(tmp_path, mooncake((5, 700, 9, [1, 2]), (5, 700, 9, [1, 2]))), tmp_path / "made.toml"
    data = fitted(run, path, "--as-of", "2026-01-01", "-o", made)
    assert data["rate_per_s"] is None and data["variation"] is None and data["reuse"]["infinite"]["prefix_hit"] == 0.5
    found = load_workload(str(made))
    assert found.arrivals is None and found.prefix_cache is None
    code, out, _ = run("workload", "fit", path)
    assert code == 0 and "all at once" in out


def test_outputs_too_short_for_a_workload(tmp_path: Path, run: Run) -> None:
    code, _, err = run(
        "workload",
        "fit",
        written(tmp_path, PLAIN + "0,5,1\n1,5,1\n", "t.csv"),
        "--as-of",
        "2026-01-01",
        "-o",
        tmp_path / "m.toml",
    )
    assert code == 2 and "output_tokens.mean must be at least 2" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-o", "made.toml"), "--as-of: is needed with -o"),
        (("-o", "made.txt", "--as-of", "2026-01-01"), "does not end in .toml"),
        (("--points", "17"), "--points"),
        (("--block-tokens", "0"), "--block-tokens"),
        (("--as-of", "soon"), "is no date"),
        (("-o", "made.toml", "--as-of", "2026-01-01", "--source", "\x1b[2J"), "unprintable"),
    ],
)
def test_bad_options(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("workload", "fit", written(tmp_path, GOOD), *arguments)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1, err
    assert not (tmp_path / "made.toml").exists()


def test_the_table_says_what_is_counted(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = run("workload", "fit", written(tmp_path, conversation(), "c.jsonl"))
    assert code == 0 and "prefix, tokens" in out and "kept for" in out and "lognormal" in out and "--as-of" in err
    assert "infinite" in out and max(len(line) for line in out.splitlines() if "c.jsonl" not in line) <= 105


def test_new_fields_of_a_workload_are_checked() -> None:
    with pytest.raises(ValueError, match="do not rise"):
        Lengths(mean=5, quantiles=((0.5, 9.0), (0.4, 10.0)))
    with pytest.raises(ValueError, match="do not rise"):
        Lengths(mean=5, quantiles=((0.5, 9.0), (0.9, 8.0)))
    with pytest.raises(ValueError, match="rate_per_s"):
        Arrivals(rate_per_s=-1.0)


@settings(max_examples=40)
@given(
    st.floats(1, 1e6),
    st.floats(0.1, 1.0),
    st.lists(st.floats(0, 1e6), min_size=1, max_size=9, unique=True),
    st.text(st.characters(codec="utf-8", categories=("L", "N", "P", "S", "Zs")), max_size=30),
    st.booleans(),
)
def test_law_6_workload_to_text_and_back(mean: float, share: float, tokens: list[float], text: str, cached: bool) -> None:
    quantiles = tuple(zip(np.linspace(0.1, 1.0, len(tokens)).tolist(), sorted(tokens), strict=True))
    data: dict[str, Any] = {
        "id": "w",
        "name": text,
        "input_tokens": {"mean": mean, "median": max(mean * share, 1.0), "quantiles": quantiles},
        "output_tokens": {"mean": 2.0 + mean / 7.0},
        "arrivals": {"rate_per_s": mean, "variation": share, "dispersion": ((1.0, share),)},
        "source": text,
        "as_of": date(2026, 1, 1),
        "grade": "A",
    }
    if cached:
        data |= {
            "prefix_cache": {
                "curve": ((mean, share / 2), (mean * 2, share / 1.5)),
                "source": text,
                "as_of": "2026-01-01",
                "grade": "B",
            }
        }
        data |= {"experts": {"kind": "measured", "loads": ((1.0, 2.0), (mean, 4.0))}, "acceptance": (share, 0.5)}
    else:
        data |= {"prefix_hit": share / 2, "ttft_s": mean, "lookups": {"kind": "zipf", "exponent": share}}
    found = Workload.model_validate(data)
    assert Workload.model_validate(tomllib.loads(to_toml(found, "a comment"))) == found


# -- models and money ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "arguments",
    [
        ("sessions", "--rounds", "20", "--append", "400", "--answer", "300", "--pause", "60s", "--first", "2k"),
        (
            "documents",
            "--documents",
            "1000000",
            "--zipf",
            "0.9",
            "--document-tokens",
            "4k",
            "--question",
            "200",
            "--answer",
            "300",
            "--rate",
            "20/s",
        ),
    ],
)
def test_models_of_reuse_make_workloads(tmp_path: Path, run: Run, arguments: tuple[str, ...]) -> None:
    made = tmp_path / "made.toml"
    code, out, err = run("workload", *arguments, "--as-of", "2026-01-01", "-o", made, "--format", "json", "--points", "6")
    assert code == 0, err
    data = json.loads(out)
    jsonschema.validate(data, schema_of("workload-curve"), jsonschema.Draft202012Validator)
    found = load_workload(str(made))
    assert found.prefix_cache is not None and found.grade == "D"
    assert [list(point) for point in found.prefix_cache.curve] == [list(row.values()) for row in data["curve"]]
    assert found.input_tokens.mean == pytest.approx(data["input_tokens"], rel=1e-5)
    code, out, _ = run("workload", *arguments)
    assert code == 0 and "tokens kept per request/s" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("sessions", "--rounds", "0", "--append", "4", "--answer", "3", "--pause", "60s"), "--rounds"),
        (("sessions", "--rounds", "3", "--append", "0", "--answer", "3", "--pause", "60s"), "sessions without input"),
        (("sessions", "--rounds", "3", "--append", "4", "--answer", "3", "--pause", "-1s"), "--pause"),
        (("sessions", "--rounds", "3", "--append", "4", "--answer", "3", "--pause", "9s", "-o", "m.toml"), "--as-of"),
        (("sessions", "--rounds", "3"), "Missing option"),
        (("documents", "--documents", "0", "--zipf", "1"), "--documents"),
        (("nothing",), "No such command"),
    ],
)
def test_bad_models(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run("workload", *arguments)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1, err


def test_worth_of_a_point_by_hand() -> None:
    """2 requests/s of 1000 in and 100 out; 5e5 tokens kept a request/s find half: 1e6 tokens kept, 3.6e6 found and 4.32e6
    written an hour. Memory: 0.5 USD an hour for room; a drive: its wear of 0.432 USD is less; and more at twice the price."""
    load: dict[str, Any] = {"requests_per_s": 2.0, "input_tokens": 1000.0, "output_tokens": 100.0, "recompute_usd_per_mtok": 0.5}
    points = ((0.0, 0.0), (5e5, 0.5))
    none, some = worth_of_points(points, Keeping(0.5, 0.01, 0.1, 0.02), **load)
    assert (none.net_usd_per_hour, some.tokens) == (0.0, 1e6)
    assert some.saved_usd_per_hour == pytest.approx(1.8) and some.reload_usd_per_hour == pytest.approx(0.072)
    assert some.keep_usd_per_hour == pytest.approx(0.5 + 0.01) and best_point([none, some]) == 1
    worn = worth_of_points(points, Keeping(0.5, 0.01, 0.2, 0.02), **load)[1]
    assert worn.keep_usd_per_hour == pytest.approx(4.32 * 0.2 + 0.01)
    dear = worth_of_points(points, Keeping(2.0, 0.01, 0.1, 0.02), **load)
    assert best_point(dear) == 0 and dear[1].net_usd_per_hour < 0


def priced_curve(run: Run, *arguments: Any) -> Any:
    code, out, err = run("cost", "curve", "deepseek-v3", *arguments, "--format", "json")
    assert code == 0, err
    data = json.loads(out)
    jsonschema.validate(data, schema_of("cost-curve"), jsonschema.Draft202012Validator)
    return data


def test_what_the_next_gb_is_worth(run: Run) -> None:
    """Mooncake's conversations: what a further GB saves falls along the curve; HBM and DRAM stop where it costs more than that,
    a drive, a fortieth of the price, goes on to the end; a lower miss price stops earlier; the load changes nothing."""
    data = priced_curve(run, "--workload", "conversation", "--recompute", "0.138")
    each, rows = data["bytes_per_token"], {row["part"]: row for row in data["rows"]}
    assert each == pytest.approx(70_272, rel=0.01)  # 61 layers of 576 bf16, in whole pages
    assert set(rows) == {"hbm3e-36gb", "ddr5-rdimm-64gb", "nvme-tlc-gen5-30tb"}
    for row in rows.values():
        worths = [step["gb_saves_usd_per_hour"] for step in row["steps"]]
        assert worths == sorted(worths, reverse=True)
        total = 0.0
        for at, step in enumerate(row["steps"]):
            total += step["gain_usd_per_hour"]
            assert step["net_usd_per_hour"] == pytest.approx(total) and step["gb"] == pytest.approx(step["tokens"] * each / 1e9)
            if row["tier"] != "ssd":
                assert (at < row["best_point"]) == (step["gb_saves_usd_per_hour"] > step["gb_costs_usd_per_hour"])
    best = {name: row["best_point"] for name, row in rows.items()}
    assert 0 < best["ddr5-rdimm-64gb"] < best["nvme-tlc-gen5-30tb"] == len(rows["nvme-tlc-gen5-30tb"]["steps"])
    cheap = priced_curve(run, "--workload", "conversation", "--recompute", "0.01", "--rate", "50/s")["rows"]
    assert all(row["best_point"] <= best[row["part"]] for row in cheap) and sum(row["best_point"] for row in cheap) < sum(
        best.values()
    )
    code, out, _ = run("cost", "curve", "deepseek-v3", "--workload", "conversation", "--recompute", "0.138")
    assert code == 0 and "best at" in out and "pays" in out
    assert "not known, and not charged: electricity of hbm3e-36gb\n" in out
    out = run("cost", "curve", "deepseek-v3", "--workload", "conversation", "--recompute", "0.138", "--memory", "hbf1-512gb")[1]
    assert "not known, and not charged: electricity of hbf1-512gb, wear of hbf1-512gb, reload of hbf1-512gb\n" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("deepseek-v3", "--workload", "chat", "--recompute", "1"), "has no prefix cache"),
        (("deepseek-v3", "--workload", "conversation"), "--recompute"),
        (("deepseek-v3", "--workload", "conversation", "--recompute", "-1"), "--recompute"),
        (("deepseek-v3", "--workload", "conversation", "--recompute", "1", "--layout", "fp8", "--kv-dtype", "fp8"), "exclude"),
        (("deepseek-v3", "--workload", "conversation", "--recompute", "1", "--memory", "gaudi3-roce"), "is not a memory"),
        (("deepseek-v3", "--workload", "conversation", "--recompute", "1", "--date", "1999-01-01"), "no memory has a price"),
    ],
)
def test_bad_cost_curves(run: Run, arguments: tuple[str, ...], said: str) -> None:
    code, out, err = run("cost", "curve", *arguments)
    assert (code, out) == (2, "") and said in err and err.count("\n") == 1, err


def test_a_fitted_workload_is_planned_as_it_is(tmp_path: Path, run: Run) -> None:
    """A plan chooses a point of the fitted curve, embeds the workload, and verifies."""
    made = tmp_path / "mine.toml"
    run("workload", "fit", written(tmp_path, conversation(), "c.jsonl"), "--as-of", "2026-01-01", "-o", made, "--points", "3")
    load = load_workload(str(made))
    plan = solve(small.instance(small.llama(), small.node(1), 1, load))
    violations, _ = verify_plan(plan, "plan")
    assert not violations and Workload.model_validate(plan.inputs["workload"]) == load
