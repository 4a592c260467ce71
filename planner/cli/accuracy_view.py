"""Scores of ``planner validate`` and ``planner calibrate`` as tables."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from planner.cli.common import new_table, number, print_table, say

_SCORES = ("n", "median", "mean", "p90", "in 2x", "ratio")
TIMES = {"tpot": "TPOT", "ttft_below_5s": "TTFT below 5 s", "ttft": "TTFT"}
STRATA = ("system", "model", "backend", "precision", "mode", "evidence")
KEPT_FIGURE = 0.3
"""Of its prior's variance that the points take away from a figure that counts as known."""


def percent(value: float | None) -> str:
    """``12.3 %``; a dash where nothing was scored."""
    return "-" if value is None else f"{value:.1%}".replace("%", " %")


def _scores(found: dict[str, Any]) -> list[str]:
    shares = [percent(found[name]) for name in ("median_ape", "mean_ape", "p90_ape", "within_2x")]
    return [f"{found['n']:,}", *shares, number(found["ratio"])]


def _coverage(found: dict[str, Any]) -> str:
    return percent(found.get("coverage_80"))


def _print_scores(title: str, first: str, rows: Iterable[tuple[str, dict[str, Any]]], *, covered: bool = True) -> None:
    table = new_table(title, first, *_SCORES, *(["in 80 %"] if covered else []))
    for name, found in rows:
        table.add_row(name, *_scores(found), *([_coverage(found)] if covered else []))
    for column in table.columns[1:]:
        column.justify = "right"
        column.no_wrap = True
    print_table(table)


def print_validation(data: dict[str, Any]) -> None:
    """Overall, by stratum, by label rule, skipped rows, noise; then deployments."""
    runtime = f", every row with runtime {data['runtime']}" if data["runtime"] else ""
    say(f"{data['answered']:,} of {data['points']:,} points of {data['file']}; calibration {data['calibration']}{runtime}")
    say("errors are |predicted / measured - 1|; ratio is the median of predicted / measured\n")
    _print_scores("overall", "time", [(label, data[name]) for name, label in TIMES.items()])
    for stratum in STRATA:
        rows = data["by"][stratum].items()
        _print_scores(f"TPOT by {stratum}", stratum, [(name, found["tpot"]) for name, found in rows])
    brief = [(name, found["ttft_below_5s"]) for name, found in data["by"]["backend"].items()]
    _print_scores("TTFT below 5 s by backend", "backend", brief, covered=False)
    rules = data["rules"].items()
    both = [(f"{name}: {kind}", found[kind]) for name, found in rules for kind in ("alone", "without")]
    if len(rules) > 1:
        _print_scores("TPOT of aggregated points by label rule", "rule", both, covered=False)
    _print_skipped(data)
    _print_noise(data["noise_floor"])
    if "deployments" in data:
        print_deployments(data["deployments"])


def _print_skipped(data: dict[str, Any]) -> None:
    reasons = data["skipped_by_reason"]
    if not reasons:
        say("no row was skipped\n")
        return
    table = new_table("rows skipped", "reason", "rows")
    for reason, count in reasons.items():
        table.add_row(reason, f"{count:,}")
    print_table(table)
    median = percent(data["median_with_skipped"])
    say(f"median error of TPOT with every skipped row counted as 100 %: {median}\n")


def _print_noise(rows: list[dict[str, Any]]) -> None:
    if not rows:
        return
    table = new_table("noise floor: larger over smaller of repeats", "mode", "time", "version", "pairs", "median", "p90")
    for row in rows:
        ratios = (f"{row['median']:.3f}", f"{row['p90']:.3f}")
        table.add_row(row["mode"], row["time"], row["version"], f"{row['pairs']:,}", *ratios)
    print_table(table)


def print_deployments(data: dict[str, Any]) -> None:
    """Published deployments by what they have in common, and the checks of DeepSeek's figures."""
    say(f"published deployments: {data['answered']:,} of {data['rows']:,} rows answered; no figure was fitted to them\n")
    overall = [("all", data["absolute"]), ("quality A and B", data["quality_ab"]), ("not of InferenceX", data["not_inferencex"])]
    if data["ratio"]["n"]:
        overall.append(("ratios of two rows", data["ratio"]))
    _print_scores("deployments", "rows", overall, covered=False)
    for name in ("phase", "memories", "class", "hardware", "quality", "source_group"):
        _print_scores(f"deployments by {name.replace('_', ' ')}", name, data["by"][name].items(), covered=False)
    low = data["below_device_memory"]
    _print_scores("rows with DDR, LPDDR or SSD", "source", [("all", low), *low["by_source"].items()], covered=False)
    table = new_table("deployments predicted beyond a factor of two", "row", "ratio", "", "why")
    for row in data["beyond_2x"]:
        table.add_row(row["id"], number(row["predicted"] / row["measured"]), row["standing"], row["reason"])
    print_table(table)
    for row in data["profile"]:
        told = f"{row['predicted']:,.0f} predicted, {row['measured']:,.0f} measured {row['unit']}"
        say(f"profile {row['id']}: {told}, error {percent(row['ape'])}")
    for row in data["capacity"]:
        told = f"{row['predicted']:,.0f} at full use, {row['measured']:,.0f} {row['unit']} over a day of production"
        verdict = "ok" if row["enough"] else "TOO LOW"
        say(f"capacity {row['id']}: {told}: {verdict}, utilisation {percent(row['utilisation'])}")
    table = new_table("deployments without a prediction", "reason", "rows")
    for reason, count in data["skipped_by_reason"].items():
        table.add_row(reason, str(count))
    print_table(table)


LEFT_OUT = {
    "configuration": "a fifth of the configurations",
    "system": "a system",
    "model": "a model",
    "runtime": "a runtime",
    "generation": "a generation of devices",
}


def print_report(report: dict[str, Any]) -> None:
    """Scores with everything fitted and with parts left out, coverage, what is hardly known, error against figures."""
    counts = report["parameters"]
    total = sum(counts.values())
    parts = f"{counts['tpot']} for TPOT, {counts['ttft']} for TTFT, {counts['corrections']} corrections"
    say(f"{report['rows']:,} points, {total} fitted figures: {parts}\n")
    titles = {"agg": "TPOT, aggregated", "disagg": "TPOT, disaggregated", "ttft_below_5s": "TTFT below 5 s, aggregated"}
    for key, title in titles.items():
        rows = [("nothing", report["fitted"][key])]
        rows += [(LEFT_OUT.get(kind, kind), found[key]) for kind, found in report["left_out"].items()]
        _print_scores(title, "left out of the fit", rows, covered=False)
    for kind, rows in report["residuals"].items():
        _print_scores(f"TPOT that was fitted, by {kind}", kind, rows.items(), covered=False)
    table = new_table("80 % intervals of what was left out", "evidence", "n", "covered", "high / low")
    for evidence, found in report["coverage_80"].items():
        table.add_row(evidence, f"{found['n']:,}", percent(found["covered"]), number(found["width"]))
    print_table(table)
    weak = [one for one in report["identified"] if one["at_bound"] or one["share"] < KEPT_FIGURE]
    if weak:
        table = new_table("figures at a bound or hardly known from these points", "figure", "value", "sd (log)", "known", "")
        for one in weak:
            bound = "at its bound" if one["at_bound"] else ""
            table.add_row(one["figure"], number(one["value"]), number(one["sd"]), percent(one["share"]), bound)
        print_table(table)
    table = new_table("TPOT of aggregated points against the number of fitted figures", "figures", "median", "mean", "p90")
    for one in report["curve"]:
        table.add_row(str(one["parameters"]), *(percent(one[name]) for name in ("median_ape", "mean_ape", "p90_ape")))
    print_table(table)
