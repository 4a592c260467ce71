"""Sources of all plans of a report, each once, with the links that their texts hold."""

from __future__ import annotations

import re
from collections.abc import Iterable

from planner.report.content import Estimate, Link, Source
from planner.report.numbers import number
from planner.report.study import Study

_ADDRESS = r"https?://[^\s;()<>\"']+[^\s;()<>\"'.,:]"
_REPOSITORY = r"(?<![\w/.])[A-Za-z0-9-]+/[A-Za-z0-9_.-]+@[0-9a-f]{7,40}"
_PAPER = r"(?i:arxiv)[ :]\d{4}\.\d{4,5}"
_LINKS = re.compile(f"({_ADDRESS})|({_REPOSITORY})|({_PAPER})")


def linked(text: str) -> tuple[Link, ...]:
    """A source's text cut at web addresses, ``owner/repository@commit`` and arXiv numbers, each with its address."""
    parts, at = [], 0
    for match in _LINKS.finditer(text):
        if match.start() > at:
            parts.append(Link(text[at : match.start()]))
        address, repository, paper = match.groups()
        if repository:
            name, _, commit = repository.partition("@")
            address = f"https://github.com/{name}/tree/{commit}"
        elif paper:
            address = f"https://arxiv.org/abs/{re.split('[ :]', paper, maxsplit=1)[1]}"
        parts.append(Link(match[0], address))
        at = match.end()
    return (*parts, *((Link(text[at:]),) if at < len(text) else ()))


def sources_of(studies: Iterable[Study]) -> tuple[Source, ...]:
    """Every source once, by grade and text, with the figures and the plans that cite it."""
    found: dict[tuple[str, str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for study in studies:
        for row in study.plan.provenance["sources"]:
            figures, plans = found.setdefault((str(row["grade"]), str(row["source"]), str(row["as_of"] or "")), ({}, {}))
            figures |= dict.fromkeys(str(figure) for figure in row["figures"])
            plans[study.label] = None
    return tuple(
        Source(grade, linked(text), as_of, tuple(figures), tuple(plans))
        for (grade, text, as_of), (figures, plans) in sorted(found.items())
    )


def estimates_of(studies: Iterable[Study]) -> tuple[Estimate, ...]:
    """Figures of grade C and D, the weakest first, each once (those of hardware once for each plan)."""
    found: dict[Estimate, None] = {}
    several = list(studies)
    for study in several:
        for row in study.plan.provenance["estimates"]:
            name = str(row["figure"])
            if len(several) > 1 and name.startswith("hardware."):
                name = f"{study.label}: {name}"
            found[Estimate(name, str(row["grade"]), _end(row["low"]), _end(row["high"]), str(row["note"] or ""))] = None
    return tuple(sorted(found, key=lambda row: (-ord(row.grade[:1] or "A"), row.figure)))


def _end(value: object) -> str:
    return number(float(value)) if isinstance(value, int | float) else number(None)
