"""``planner workload``: a workload from a trace of requests, or from a model of how prefixes come back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from planner.cli.common import TIME, TOKENS, Day, Quantity, Range, check_output, echo_json, format_option, hint
from planner.cli.progress import Work, working
from planner.cli.workload_view import curve_json, fit_json, print_curve, print_fit
from planner.errors import InputError

if TYPE_CHECKING:
    from planner.workload import Workload
    from planner.workload.traces import Requests

KINDS = ("mooncake", "azure", "csv")
PAUSE = Quantity("s", "s", "time", 1e-6, 1e9)
SIZE = Quantity("tokens", None, "tokens", 0, 16_777_216)
RATE = Quantity("per_s", "/s", "rate", 1e-9, 1e9)

_OUTPUT = (
    click.option("-o", "--output", type=click.Path(path_type=Path), help="Write the workload to this file, FILE.toml."),
    click.option("--force", is_flag=True, help="Overwrite the file."),
    click.option("--points", type=click.IntRange(2, 16), default=12, show_default=True, help="Points of the curve at most."),
    click.option("--source", metavar="TEXT", default="", help="Where the numbers come from, with their licence."),
    click.option("--as-of", type=Day(), help="The day the numbers are of; needed with -o unless the trace has dates."),
    click.option("--ttft", type=TIME, help="Limit on the mean time to the first token, as 2s, written to the file."),
    click.option("--tpot", type=TIME, help="Limit on the mean time per output token, as 50ms, written to the file."),
    format_option,
)


@dataclass(frozen=True)
class Output:
    """What every command of the group is told: the file to write and what to say in it, and how to print."""

    path: Path | None
    force: bool
    points: int
    source: str
    day: date | None
    ttft_s: float | None
    tpot_s: float | None
    form: str

    def write(self, found: Workload, by: str) -> None:
        """Write the workload to the file, where there is one."""
        from planner.documents import write_whole
        from planner.workload.text import to_toml

        if self.path is not None:
            write_whole(self.path, to_toml(found, f"Written by `{by}`."), force=self.force)
            click.echo(f"wrote {self.path}", err=True)


def _output_options(function: Any) -> Any:
    """The options of every command, given to it as ``out``."""

    @wraps(function)
    def packed(
        *,
        output: Path | None,
        force: bool,
        points: int,
        source: str,
        as_of: date | None,
        ttft: float | None,
        tpot: float | None,
        form: str,
        **rest: Any,
    ) -> None:
        check_output(output, force)
        function(out=Output(output, force, points, source, as_of, ttft, tpot, form), **rest)

    for option in reversed(_OUTPUT):
        packed = option(packed)
    return packed


@click.group("workload", no_args_is_help=False)
def command() -> None:
    """A workload of your own: lengths, arrivals and the hit rate of prefix caches, from a trace or from a model.

    \b
    Examples:
      planner workload fit trace.jsonl.gz --as-of 2026-11-22 -o mine.toml
      planner workload sessions --rounds 20 --append 400 --answer 300 --pause 60s
    """


@command.command("fit")
@click.argument("trace", type=click.Path(path_type=Path))
@_output_options
@click.option("--trace-format", "kind", type=click.Choice(KINDS), help="Told from the first line unless given.")
@click.option("--block-tokens", type=click.IntRange(1, 16_777_216), help="Input tokens of one of its hash_ids; Mooncake has 512.")
def fit_command(trace: Path, out: Output, kind: Any, block_tokens: int | None) -> None:
    """Lengths, arrivals and what prefix caches of every size find of the requests in TRACE, read once in bounded memory.

    TRACE is Mooncake's jsonl, the CSV of Azure's LLM traces of 2023, or CSV with the columns arrival_s, input_tokens,
    output_tokens and, for caches, hash_ids; any of them may be gzip. The same trace gives the same file.

    \b
    Examples:
      planner workload fit AzureLLMInferenceTrace_conv.csv
      planner workload fit conversation_trace.jsonl --as-of 2025-02-01 --source "…, Apache-2.0" -o mine.toml
    """
    from planner.workload.fit import fit_requests, workload_of
    from planner.workload.traces import open_trace

    opening = open_trace(trace, kind, block_tokens)
    day = out.day or opening.day
    if out.path is not None and day is None:
        raise InputError("is needed with -o, as the trace has no dates", where="--as-of", mend="give the day it was recorded")
    with working("reading") as work:
        chunks = _counted(opening.trace.chunks(), work)
        fit = fit_requests(chunks, opening.trace.block_tokens, opening.trace.format, opening.day)
    if out.path is not None and day is not None:
        found = workload_of(
            fit,
            workload_id=_identifier(out.path),
            as_of=day,
            source=out.source,
            points=out.points,
            ttft_s=out.ttft_s,
            tpot_s=out.tpot_s,
        )
        out.write(found, "planner workload fit")
    if out.form == "json":
        echo_json(fit_json(trace.name, fit))
        return
    print_fit(trace.name, fit)
    again = "planner workload fit TRACE --as-of DATE --source TEXT -o mine.toml"
    hint(again if out.path is None else f"planner plan MODEL HARDWARE --workload {out.path}")


def _counted(chunks: Iterator[Requests], work: Work) -> Iterator[Requests]:
    done = 0
    for chunk in chunks:
        done += len(chunk)
        if work.display is not None:
            work.display.show(None, f"{done:,} requests")
        yield chunk


@command.command("sessions")
@click.option("--rounds", type=click.IntRange(1, 100_000), required=True, help="Requests of a session.")
@click.option("--append", type=SIZE, required=True, help="Input tokens that each round adds.")
@click.option("--answer", type=TOKENS, required=True, help="Output tokens of a round.")
@click.option("--pause", type=PAUSE, required=True, help="Mean time from a round to the next, exponential, as 60s.")
@click.option("--first", type=SIZE, default=0.0, help="Input tokens of the first round beside: a document, tools.")
@_output_options
def sessions_command(rounds: int, append: float, answer: float, pause: float, first: float, out: Output) -> None:
    """What a prefix cache finds of sessions that come back after a pause, by how many tokens it keeps.

    \b
    Examples:
      planner workload sessions --rounds 20 --append 400 --answer 300 --pause 60s
      planner workload sessions --rounds 157 --append 429 --answer 176 --pause 30s --as-of 2026-11-22 -o agents.toml
    """
    from planner.workload.hit_models import Sessions

    subject = Sessions(rounds, first, append, answer, pause)
    about = (
        f"model of sessions: {rounds} rounds, {first:g} tokens first, {append:g} appended and {answer:g} generated each, "
        f"pauses of {pause:g} s on average"
    )
    _from_model(about, subject.curve(out.points), (subject.input_tokens, answer), out)


@command.command("documents")
@click.option("--documents", type=click.IntRange(1, 10**12), required=True, help="How many prefixes there are.")
@click.option("--zipf", type=Range(0, 16), required=True, help="Document i is asked for in proportion to i ** -zipf.")
@click.option("--document-tokens", type=TOKENS, required=True, help="Tokens of a document.")
@click.option("--question", type=SIZE, required=True, help="Input tokens after it, never found.")
@click.option("--answer", type=TOKENS, required=True, help="Output tokens of a request.")
@click.option("--rate", type=RATE, required=True, help="Requests/s over all: what is found depends on the size, not on the rate.")
@_output_options
def documents_command(
    documents: int, zipf: float, document_tokens: float, question: float, answer: float, rate: float, out: Output
) -> None:
    """What a prefix cache finds of questions about shared documents, by how many tokens it keeps.

    \b
    Examples:
      planner workload documents --documents 1000000 --zipf 0.9 --document-tokens 4k --question 200 --answer 300 --rate 20/s
    """
    from planner.workload.hit_models import document_curve

    curve = document_curve(
        documents=documents,
        exponent=zipf,
        document_tokens=document_tokens,
        question_tokens=question,
        rate_per_s=rate,
        points=out.points,
    )
    about = (
        f"Che's approximation: {documents:,} documents of {document_tokens:g} tokens, Zipf {zipf:g}, "
        f"{question:g} tokens of question, {rate:g} requests/s"
    )
    _from_model(about, curve, (document_tokens + question, answer), out)


def _from_model(about: str, curve: tuple[tuple[float, float], ...], lengths: tuple[float, float], out: Output) -> None:
    """Write and print the curve of a model."""
    from pydantic import ValidationError

    from planner.documents import explain_validation
    from planner.workload import Workload

    if out.path is not None:
        if out.day is None:
            raise InputError("is needed with -o", where="--as-of", mend="give the day the assumptions are of")
        said = {"source": out.source or "assumed", "as_of": out.day, "grade": "D"}
        taken, given = (float(f"{mean:.6g}") for mean in lengths)
        data = {
            "id": _identifier(out.path),
            "input_tokens": {"mean": taken},
            "output_tokens": {"mean": given},
            **said,
            "note": about,
        }
        data |= {"ttft_s": out.ttft_s, "tpot_s": out.tpot_s}
        if curve:
            data["prefix_cache"] = {"curve": curve, **said, "note": about}
        try:
            found = Workload.model_validate(data)
        except ValidationError as error:
            raise explain_validation(error, "these make no workload") from None
        out.write(found, "planner workload")
    if out.form == "json":
        echo_json(curve_json(about, lengths, curve))
        return
    print_curve(about, lengths, curve)
    hint("add --as-of DATE -o mine.toml" if out.path is None else f"planner plan MODEL HARDWARE --workload {out.path}")


def _identifier(output: Path) -> str:
    from planner.hardware.draft import identifier

    return identifier(output.stem, but="a-z0-9-")
