#!/usr/bin/env python3
"""docs/runtimes.md from the catalogue: what each runtime can do, what it does unasked, and where that was read."""

from planner.quantities import Figure, readable
from planner.runtimes import RUNTIMES, Runtime

INTRO = """# Runtimes

What the serving software can do, reserves and costs, by runtime and version. `planner plan … --runtime NAME` plans for one;
the default, `generic`, holds class defaults, and `ideal` is the roofline. `planner show runtime NAME` prints every figure
with its source.

The times of a pass (floors, efficiencies, imbalance, residual) are those of `generic` wherever neither the file of an
engine nor a calibration gives others. What is listed here was read in sources and documentation of the version named, not
measured.

A file that `extends` another runtime holds what differs: identity, date and version are its own, and a statement written
anew needs its source anew. The files lie in `planner/runtimes/catalogue/`; the path of a TOML file of your own can stand in
place of a name: [add a runtime](add-runtime.md).
"""

CAN_TEXT = """
*Streams*: keeps weights or cache in host memory or on disk and fetches them during the step. *How*: `cpu_experts` computes
experts where they lie, `prefetch` copies weights ahead of their layer, `uva` lets kernels read host memory, `mmap` reads
weights from storage as they are touched. *Keeps compressed*: weight formats that stay as they are on devices without that
arithmetic.
"""

UNASKED_TEXT = """
*Admission*: `resident` lets a sequence in while its blocks fit and may preempt it later, `reserved` sets its full length
aside. The last three columns are reserves of device memory, beside expert buffers, activations and fragmentation.
"""

YES = {True: "yes", False: "no"}
OF = {
    "all": "of device memory",
    "static": "of device memory, for weights and cache",
    "free": "of what weights leave, for the cache",
}


def memory(fraction: Figure | None, of: str | None) -> str:
    if fraction is None:
        return ""
    span = "" if fraction.low is None else f" ({fraction.lowest:g} to {fraction.highest:g})"
    return f"{fraction.value:g}{span} {OF[of or 'all']}"


def chunk(runtime: Runtime) -> str:
    steps = [
        f"{step.tokens:,}" + (f" from {step.from_memory / 2**30:g} GiB" if step.from_memory else "")
        for step in runtime.default_prefill_tokens
    ]
    return "; ".join(steps) + ("; shared by attention-DP ranks" if runtime.default_prefill_shared else "")


def buckets(runtime: Runtime) -> str:
    if runtime.batch_buckets == (1, 2):
        return "every batch"
    return f"{len(runtime.batch_buckets)} sizes to {runtime.batch_buckets[-1]}"


CAN = {
    "version": lambda r: r.version,
    "aggregated": lambda r: YES[r.aggregated],
    "disaggregated": lambda r: YES[r.disaggregated],
    "parallel": lambda r: ", ".join(r.parallel).replace("_", " "),
    "context parallel": lambda r: YES[r.context_parallel],
    "uneven replicas": lambda r: YES[r.uneven_replicas],
    "streams": lambda r: YES[r.streaming],
    "how": lambda r: ", ".join(r.offload),
    "keeps compressed": lambda r: ", ".join(r.dequantises),
    "caches": lambda r: "; ".join(f"{dtype}: {', '.join(layouts)}" for dtype, layouts in r.kv_layouts.items()),
}
UNASKED = {
    "default chunk, tokens": chunk,
    "admission": lambda r: r.admission or "",
    "memory given": lambda r: memory(r.memory_fraction, r.memory_fraction_of),
    "page, tokens": lambda r: str(r.page_tokens),
    "sequences a rank": lambda r: f"{r.max_sequences_per_rank:,}",
    "decode batches padded to": buckets,
    "context": lambda r: readable(r.reserve.context.value, "bytes"),
    "graphs": lambda r: readable(r.reserve.graphs.value, "bytes"),
    "collectives": lambda r: readable(r.reserve.communication.value, "bytes"),
}


def table(runtimes, columns) -> str:
    rows = [["runtime", *columns], ["---"] * (len(columns) + 1)]
    rows += [[f"`{r.id}`", *(cell(r) for cell in columns.values())] for r in runtimes]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def statements(runtime: Runtime) -> str:
    rows = [*((f"offload: {name}", row) for name, row in runtime.offload.items()), *sorted(runtime.sources.items())]
    lines = [f"| {name} | {row.note} | {row.source} | {row.as_of} | {row.grade} |" for name, row in rows]
    for name in ("memory_fraction", "single_stream"):
        if (figure := getattr(runtime, name)) is not None:
            value = f"{figure.value:g}" + (f" ({figure.low:g} to {figure.high:g})" if figure.low is not None else "")
            lines.append(f"| {name} | {value}. {figure.note} | {figure.source} | {figure.as_of} | {figure.grade} |")
    for name, figure in runtime.cpu or ():
        if figure is None:
            continue
        value = readable(figure.value, "flop_per_s", figure.lowest, figure.highest)
        lines.append(f"| cpu.{name} | {value}: {figure.note} | {figure.source} | {figure.as_of} | {figure.grade} |")
    return "\n".join(["| statement | note | source | as of | grade |", "| --- | --- | --- | --- | --- |", *lines])


def main() -> None:
    runtimes = [runtime for runtime in RUNTIMES if runtime.id != "ideal"]
    print(INTRO)
    print("## What each can do\n")
    print(table(runtimes, CAN))
    print(CAN_TEXT)
    print("## What a deployment does that asks for nothing\n")
    print(table(runtimes, UNASKED))
    print(UNASKED_TEXT)
    print("## Where it was read")
    for runtime in runtimes:
        if runtime.sources:
            print(f"\n### {runtime.name}\n\n{statements(runtime)}")


if __name__ == "__main__":
    main()
