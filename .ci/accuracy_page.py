#!/usr/bin/env python3
"""docs/accuracy.md and docs/accuracy.svg: what predictions are worth, from the stored report and a run of `planner validate`."""

import sys
import textwrap
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from planner.accuracy.labels import RULE_MEANINGS, SKIP_MEANINGS
from planner.accuracy.points import Points
from planner.accuracy.predict import predict
from planner.accuracy.score import errors
from planner.accuracy.validation import stored_report, validate
from planner.runtimes import load_calibration

INTRO = """# How good predictions are

Every number here is computed: the scores of what was left out are stored beside the points when the built-in calibration is
fitted (`.ci/calibration`), the others are those of `planner validate`. Errors are |predicted / measured - 1| (APE), TPOT is
the time per output token, TTFT that to the first token, *ratio* the median of predicted over measured.

## What is predicted, and how

**The load** of the public continuous benchmark is a closed loop: so many requests are held, and each that ends is followed
by the next. Requests run while their caches fit; the rest wait. TPOT is the decode step at the batch that runs, plus the
share of prefill passes that decode waits for. TTFT is a request's own prefill passes, the steps and requests it waits
behind, and what the server and the client take. Of a disaggregated deployment whose labels state the decode batch, the
decode side is timed at it.

**A pass** is the sum over its blocks of `floor + max(compute, memory) + network`, plus what a step takes once and for each
sequence ([equations](model.md)). The fit splits it into parts that its figures scale: three kinds of arithmetic over the
share of the peak they reach, reads of weights, experts and caches over the share of the bandwidth, two kinds of collectives
times a factor.

**Figures** are physical and bounded, and each runtime has one set: floors of attention, MLP, experts and further matrices; a
step and a sequence; shares of peak for dense, routed and attention arithmetic; reads of experts and caches; collectives; the
share of a prefill that stalls decode; four of TTFT. A generation of devices has one factor on all floors. Nothing is fitted
per model, precision, parallelism or device, but for the corrections below.

**Priors and pooling.** Each figure is fitted in its logarithm, with a Gaussian prior at its class default. A runtime's
figure is pulled to the mean over runtimes and that mean to the prior, so a runtime measured on few points inherits. The loss
turns from square to absolute beyond 10 %, because labels are sometimes wrong.

**Corrections.** A model (in one dtype) on a device in one runtime, with 30 points or more, may be corrected by the median of
what remains, shrunk to 1 by few points; the few corrections that take most error away are kept.

**Evidence and intervals.** A prediction, and the plan that holds it, says what it rests on. *measured*: 30 points or
more of this model (in this dtype) on this device in this runtime, whether or not they needed a correction; *sibling*: the
runtime on devices of this generation; *kin*: the runtime on other devices only, as for a domestic part nobody has measured;
otherwise class defaults. Intervals at 80 % are the spread of measured over predicted times **of rows that the fit had not
seen**: of configurations left out for *measured*, of systems and models left out for *sibling*, of a generation of devices
left out for *kin*; weaker evidence has no narrower one, and where too few points could be left out the class default's
stands in. They are those of TPOT: a plan's TTFT has the same relative interval for its passes, which is too narrow for what a
client adds (TTFT below 5 s misses by 26 % in the median when left out, by far more for some cells of SGLang).

**Two readings.** Scores of *nothing fitted* use the runtime `first-principles`, whose floors are sums of measured kernel
start-ups; the curve of error against figures begins at the priors of the fit instead, which are rounder.

## Bars
"""

CELLS = {
    (
        "openai/gpt-oss-120b",
        "h100_sxm",
        "vllm",
    ): "rows with 512 requests held: TTFT of 20 to 460 s beside TPOT of 4 to 27 ms says "
    "that far fewer ran at once, a limit on admission that no label states; the rest of the cell is met",
    (
        "nvidia/Qwen3-32B-NVFP4",
        "gb200",
        "trtllm",
    ): "15000 tokens in, 500 out, 448 requests held: a TTFT below 1 s leaves no time to "
    "compute those inputs; they were cached, or shorter than labelled",
    ("nvidia/Qwen3-32B-NVFP4", "b200_sxm", "trtllm"): "as on GB200: inputs of 15000 tokens at a TTFT below 1 s",
    (
        "nvidia/Llama-3.1-8B-Instruct-FP8",
        "h200_sxm",
        "vllm",
    ): "outputs of 100 tokens, so that prefill weighs most: measured TPOT holds "
    "about half of the prefill that the load implies, as if part of the inputs were cached",
    ("Qwen/Qwen3-32B", "gb200", "trtllm"): "precision not stated; several times slower than the same model and engine on H100: "
    "unexplained",
    ("deepseek-ai/DeepSeek-R1", "gb200", "sglang"): "the largest labelled decode batches, at TTFT of 10 to 100 s: prefill is the "
    "bottleneck there and fewer sequences decode than the label says",
}
"""Why a cell of model, system and backend is missed, where the rows themselves say so."""
MOST_CELLS = 10
TIMES = {"agg": "TPOT, aggregated", "disagg": "TPOT, disaggregated", "ttft_below_5s": "TTFT below 5 s, aggregated"}
LEFT_OUT = {
    "configuration": "a fifth of the configurations",
    "system": "one system",
    "model": "one model",
    "runtime": "one runtime",
    "generation": "one generation of devices",
}


def paragraph(*sentences: str) -> str:
    """Text at the width of the pages."""
    return textwrap.fill(" ".join(sentences), 125, break_long_words=False, break_on_hyphens=False) + "\n"


def percent(value) -> str:
    return "" if value is None else f"{100 * value:.1f}"


WORDS = ("", "why", "met", "hardware", "enough")
"""Columns of text."""


def table(columns, rows) -> str:
    sides = ["---" if number == 0 or name in WORDS else "---:" for number, name in enumerate(columns)]
    lines = [list(columns), sides, *[[str(cell) for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


SCORES = ("n", "median %", "mean %", "p90 %", "within 2x %", "ratio")


def scores(found) -> list[str]:
    shares = [percent(found[name]) for name in ("median_ape", "mean_ape", "p90_ape", "within_2x")]
    return [f"{found['n']:,}", *shares, "" if found["ratio"] is None else f"{found['ratio']:.2f}"]


@dataclass(frozen=True)
class Bar:
    """What is asked of a score: the most median, mean and p90 APE, in per cent (`None`: nothing asked)."""

    name: str
    found: dict
    median: float | None = None
    mean: float | None = None
    p90: float | None = None
    figures: str = ""

    def row(self) -> list[str]:
        cells, met = [], True
        for key, most in (("median_ape", self.median), ("mean_ape", self.mean), ("p90_ape", self.p90)):
            value = self.found[key]
            met = met and (most is None or 100 * value <= most)
            cells.append(percent(value) + ("" if most is None else f" (<= {most:g})"))
        asked = (self.median, self.mean, self.p90) != (None, None, None)
        return [self.name, f"{self.found['n']:,}", *cells, self.figures, ("yes" if met else "no") if asked else ""]


def bars(report, usual, plain) -> str:
    counts, out = report["parameters"], report["left_out"]
    tpot, ttft = str(counts["tpot"] + counts["corrections"]), str(counts["ttft"])
    deployments = usual["deployments"]
    rows = [
        Bar("TPOT, fitted", report["fitted"]["agg"], 8, 13, 23, tpot),
        Bar("TPOT, 5-fold by configuration", out["configuration"]["agg"], 10, 16, 30, tpot),
        Bar("TPOT, one system left out", out["system"]["agg"], 15, 21, 42, tpot),
        Bar("TPOT, one model left out", out["model"]["agg"], 16, 24, 45, tpot),
        Bar("TPOT, one runtime left out (no bar)", out["runtime"]["agg"], figures=tpot),
        Bar("TPOT, nothing fitted", plain["by"]["mode"]["agg"]["tpot"], 25, 36, 68, "0"),
        Bar("TTFT below 5 s, fitted", report["fitted"]["ttft_below_5s"], 25, figures=ttft),
        Bar("TTFT below 5 s, 5-fold", out["configuration"]["ttft_below_5s"], 30, figures=ttft),
        Bar("TPOT, disaggregated, 5-fold", out["configuration"]["disagg"], 10, 16, 36, tpot),
        Bar("deployments of quality A and B", deployments["quality_ab"], 20, None, 100, "0 of their own"),
        Bar("of them not of InferenceX (no bar)", deployments["not_inferencex"], figures="0 of their own"),
        Bar("deployments with DDR, LPDDR or SSD", deployments["below_device_memory"], 25, figures="0 of their own"),
    ]
    text = table(
        ["TPOT of aggregated points unless said", "n", "median % (bar)", "mean % (bar)", "p90 % (bar)", "figures", "met"],
        [bar.row() for bar in rows],
    )
    low = deployments["below_device_memory"]
    text += "\n" + paragraph(
        f"Of the rows with DDR, LPDDR or SSD {percent(low['within_2x'])} % are within 2x (bar 90).",
        "No figure is fitted to published deployments, so leaving their source out changes nothing; rows of InferenceX among",
        "them are of the benchmark that the runtimes were fitted to, some of the same models and devices.",
    )
    for row in plain["deployments"]["profile"]:
        what = f"{row['predicted']:,.0f} {row['unit']} without any fit, {row['measured']:,.0f} measured"
        text += f"\nDeepSeek's own profile, {row['id']}: {what}: error {percent(row['ape'])} % (bar 25).\n"
    answered = usual["answered"] / usual["points"]
    text += f"\nOf the scored set {percent(answered)} % are answered (bar 97).\n"
    return text


def left_out(report) -> str:
    text = ""
    for key, title in TIMES.items():
        rows = [["nothing", *scores(report["fitted"][key])]]
        rows += [[LEFT_OUT[kind], *scores(found[key])] for kind, found in report["left_out"].items()]
        text += f"### {title}\n\n" + table(["left out of the fit", *SCORES], rows) + "\n"
    return text


def strata(usual) -> str:
    text = ""
    for name in ("system", "model", "backend", "precision", "mode", "evidence"):
        rows = [
            [value, *scores(found["tpot"]), percent(found["tpot"]["coverage_80"])] for value, found in usual["by"][name].items()
        ]
        text += table([name, *SCORES, "in 80 % interval, %"], rows) + "\n"
    text += "TTFT, every point:\n\n"
    rows = [[label, *scores(usual[name])] for name, label in (("ttft_below_5s", "below 5 s"), ("ttft", "all"))]
    rows += [[f"below 5 s, {value}", *scores(found["ttft_below_5s"])] for value, found in usual["by"]["backend"].items()]
    return text + table(["TTFT", *SCORES], rows)


def intervals(report) -> str:
    systems = sorted({name for found in report["coverage_80"].values() for name in found["by_system"]})
    rows = []
    for evidence, found in report["coverage_80"].items():
        cells = [percent(found["by_system"].get(name)) for name in systems]
        rows.append([evidence, f"{found['n']:,}", percent(found["covered"]), f"{found['width']:.2f}", *cells])
    return table(["evidence", "n", "covered %", "width, high / low", *systems], rows)


def figures(report) -> str:
    rows = [
        [f"{one['parameters']}", *(percent(one[name]) for name in ("median_ape", "mean_ape", "p90_ape"))]
        for one in report["curve"]
    ]
    text = table(["figures", "median %", "mean %", "p90 %"], rows)
    text += "\n" + paragraph(
        "The last row has the corrections, the first no figure but its prior. *known* is the share of the prior's variance that",
        "the points took away: near 0 a figure is its prior's or its siblings'.",
    )
    text += "\n"
    rows = [
        [
            one["figure"],
            f"{one['value']:.4g}",
            f"{one['sd']:.2g}",
            percent(one["share"]),
            "at its bound" if one["at_bound"] else "",
        ]
        for one in report["identified"]
    ]
    return text + table(["figure of TPOT", "value", "sd of its logarithm", "known %", ""], rows)


def labels(usual) -> str:
    rows = []
    for rule, found in usual["rules"].items():
        alone, without = found["alone"], found["without"]
        rows.append(
            [
                f"{rule}: {RULE_MEANINGS[rule]}",
                alone["n"],
                percent(alone["median_ape"]),
                percent(alone["mean_ape"]),
                percent(without["median_ape"]),
                percent(without["mean_ape"]),
            ]
        )
    text = table(["rule", "n", "median %", "mean %", "median % without", "mean % without"], rows)
    text += "\nRows of the public file that are no points, by a closed list that looks at labels alone:\n\n"
    text += table(
        ["reason", "rows", ""], [[name, count, SKIP_MEANINGS[name]] for name, count in usual["skipped_by_reason"].items()]
    )
    median = percent(usual["median_with_skipped"])
    text += f"\nWith every one of them counted as an error of 100 % the median of TPOT is {median} %.\n"
    text += "\nNoise floor, larger over smaller time of two rows with the same labels (`any`: but for the version):\n\n"
    rows = [
        [f"{row['mode']}, {row['time']}, {row['version']}", row["pairs"], f"{row['median']:.3f}", f"{row['p90']:.3f}"]
        for row in usual["noise_floor"]
    ]
    return text + table(["repeats", "pairs", "median", "p90"], rows)


def misses(points: Points, found) -> str:
    ape = np.nan_to_num(errors(found.tpot_s, points.tpot_s))
    cells = defaultdict(list)
    for row in range(len(points)):
        cells[points.label_model[row], points.system[row], points.backend[row]].append(row)
    ranked = sorted(cells.items(), key=lambda item: -ape[item[1]].sum())[:MOST_CELLS]
    rows = []
    for (model, system, backend), members in ranked:
        part, ratio = ape[members], found.tpot_s[members] / points.tpot_s[members]
        share = part.sum() / ape.sum()
        why = CELLS.get(
            (model, system, backend), "no single cause; unexplained" if part.mean() > 0.2 else "its share of the rows"
        )
        rows.append(
            [
                f"{model} on {system}, {backend}",
                len(members),
                percent(len(members) / len(points)),
                percent(share),
                percent(float(np.median(part))),
                percent(float(part.mean())),
                f"{float(np.nanmedian(ratio)):.2f}",
                why,
            ]
        )
    text = table(["cell", "n", "of rows %", "of summed error %", "median %", "mean %", "ratio", "why"], rows)
    worst = np.sort(ape)[::-1]
    count = max(len(ape) // 50, 1)
    share, rest = percent(worst[:count].sum() / worst.sum()), percent(float(worst[count:].mean()))
    text += "\n" + paragraph(
        f"The {count} worst rows (2 %) carry {share} % of the summed error; the mean over the others is {rest} %.",
        "They stay in every score above, and no figure serves them.",
    )
    return text


def deployments(usual) -> str:
    data = usual["deployments"]
    text = f"{data['answered']} of {data['rows']} published rows are answered. `points/README.md` describes them.\n\n"
    for name, head in (
        ("phase", "phase"),
        ("class", "class of hardware"),
        ("memories", "memories"),
        ("quality", "quality"),
        ("source_group", "source"),
    ):
        text += table([head, *SCORES], [[value, *scores(found)] for value, found in data["by"][name].items()]) + "\n"
    rows = [[value, *scores(found)] for value, found in data["below_device_memory"]["by_source"].items()]
    text += "Rows that keep something in DDR, LPDDR or on SSD:\n\n" + table(["source", *SCORES], rows)
    text += "\nBeyond a factor of two:\n\n"
    rows = [
        [
            row["id"],
            row["hardware"],
            f"{row['measured']:.4g} {row['unit']}",
            f"{row['predicted'] / row['measured']:.2f}",
            ": ".join(filter(None, (row["standing"], row["reason"]))),
        ]
        for row in data["beyond_2x"]
    ]
    text += table(["row", "hardware", "measured", "ratio", "why"], rows)
    text += "\nA day of DeepSeek's production is a check of capacity: the prediction at full use must not lie below it.\n\n"
    rows = [
        [
            row["id"],
            f"{row['measured']:,.0f}",
            f"{row['predicted']:,.0f}",
            percent(row["utilisation"]),
            "yes" if row["enough"] else "no",
        ]
        for row in data["capacity"]
    ]
    text += table(["row", "observed, tokens/s per device", "predicted at full use", "utilisation %", "enough"], rows)
    rows = data["skipped_by_reason"].items()
    return text + "\nRows without a prediction:\n\n" + table(["reason", "rows"], rows)


OUTRO = """
## Do it yourself

```sh
planner validate                                    # these tables, and published deployments
planner validate --left-out                         # the stored scores of what was left out
planner validate --runtime first-principles         # nothing fitted
planner validate my-points.csv --rows predicted.csv --max-median-ape 0.15
planner calibrate my-points.csv --as-of 2026-11-22 -o mine.toml --report mine.json
planner plan deepseek-v3 h200-node:2 --runtime sglang --calibration mine.toml
```

`planner/accuracy/points/README.md` in the source describes the columns of a file of points. A calibration holds its source,
the date and a digest of its points; plans name it.
"""


def page() -> str:
    report, usual, plain = stored_report(), validate(None), validate(None, "first-principles")
    spread = load_calibration().spread
    told = ", ".join(f"{name} {one.low:g} to {one.high:g}" for name, one in spread.items())
    counts = report["parameters"]
    return "\n".join(
        [
            INTRO,
            bars(report, usual.data, plain.data),
            "![Predicted against measured time per output token](accuracy.svg)\n",
            "## What was left out of the fit\n",
            f"{report['rows']:,} points; {counts['tpot']} figures and {counts['corrections']} corrections of TPOT, "
            f"{counts['ttft']} figures of TTFT.\n",
            left_out(report),
            "## By stratum, fitted\n",
            strata(usual.data),
            "## Intervals\n",
            paragraph(
                f"Measured over predicted time, 80 %: {told}.",
                "Coverage of rows left out, by intervals made without their own fifth of the configurations:",
            ),
            intervals(report),
            "## Error against the number of figures\n",
            figures(report),
            "## Labels\n",
            labels(usual.data),
            "## Which rows carry the mean\n",
            misses(usual.points, usual.found),
            "## Published deployments\n",
            deployments(usual.data),
            OUTRO.strip(),
        ]
    )


LOW, HIGH, LEFT, TOP, SIZE = 1.0, 1000.0, 64, 40, 480
COLOURS = {"sglang": ("#1b6ca8", "#6fb7ea"), "trtllm": ("#3a7d2c", "#8fd07f"), "vllm": ("#b3541e", "#f0a070")}
"""On light and on dark ground."""


def place(ms: float) -> float:
    """Pixels along an axis."""
    share = np.log(min(max(ms, LOW), HIGH) / LOW) / np.log(HIGH / LOW)
    return float(share) * SIZE


def svg() -> str:
    from planner.accuracy.points import CONTINUOUS, read_points

    points, _ = read_points(CONTINUOUS)
    found = predict(points)
    light, dark = ("".join(f".{name}{{stroke:{pair[end]};fill:{pair[end]}}}" for name, pair in COLOURS.items()) for end in (0, 1))
    style = (
        "text{font:13px sans-serif;fill:#222}.b{fill:#fff}.g{stroke:#ccc}.d{stroke:#222}path{fill:none}"
        f".p{{stroke-linecap:round;stroke-width:3;opacity:.55}}{light}"
        f"@media(prefers-color-scheme:dark){{text{{fill:#ddd}}.b{{fill:#16181c}}.g{{stroke:#444}}.d{{stroke:#ddd}}{dark}}}"
    )
    width, height = LEFT + SIZE + 20, TOP + SIZE + 56
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="t">',
        '<title id="t">Predicted against measured time per output token</title>',
        f"<style>{style}</style>",
        f'<rect class="b" width="{width}" height="{height}"/>',
    ]
    for tick in (1, 3, 10, 30, 100, 300, 1000):
        x, y = LEFT + place(tick), TOP + SIZE - place(tick)
        lines.append(f'<path class="g" d="M{x:.0f} {TOP}V{TOP + SIZE}M{LEFT} {y:.0f}H{LEFT + SIZE}"/>')
        lines.append(f'<text x="{x:.0f}" y="{TOP + SIZE + 18}" text-anchor="middle">{tick}</text>')
        lines.append(f'<text x="{LEFT - 8}" y="{y + 4:.0f}" text-anchor="end">{tick}</text>')
    for name in COLOURS:
        rows = [row for row in range(len(points)) if points.backend[row] == name and found.tpot_s[row] == found.tpot_s[row]]
        at = sorted((place(1e3 * points.tpot_s[row]), place(1e3 * found.tpot_s[row])) for row in rows)
        path = "".join(f"M{LEFT + x:.0f} {TOP + SIZE - y:.0f}h0" for x, y in at)
        lines.append(f'<path class="p {name}" style="fill:none" d="{path}"/>')
    two = place(2.0)
    bottom = TOP + SIZE
    lines.append(f'<path class="d" d="M{LEFT} {bottom}L{LEFT + SIZE} {TOP}"/>')
    dashes = f"M{LEFT} {bottom - two:.0f}L{LEFT + SIZE - two:.0f} {TOP}M{LEFT + two:.0f} {bottom}L{LEFT + SIZE} {TOP + two:.0f}"
    lines.append(f'<path class="d" stroke-dasharray="4 4" d="{dashes}"/>')
    lines.append(
        f'<text x="{LEFT + SIZE / 2:.0f}" y="{bottom + 42}" text-anchor="middle">measured time per output token, ms</text>'
    )
    lines.append(f'<text transform="translate(18 {TOP + SIZE / 2:.0f}) rotate(-90)" text-anchor="middle">predicted, ms</text>')
    for number, name in enumerate(COLOURS):
        x = LEFT + 8 + 90 * number
        lines.append(f'<circle class="{name}" cx="{x}" cy="22" r="4"/><text x="{x + 10}" y="26">{name}</text>')
    lines.append(f'<text x="{LEFT + SIZE}" y="26" text-anchor="end">dashes: a factor of two</text>')
    return "\n".join([*lines, "</svg>"])


if __name__ == "__main__":
    print(svg() if sys.argv[1:] == ["svg"] else page())
