"""docs/api.md: the public names of the package, from their signatures and docstrings."""

import ast
import inspect
import re
import sys
import textwrap
from typing import Any

from pydantic import BaseModel

import planner
from planner import errors
from planner.plans.inputs import Asked, Options

INTRO = """# Python

Generated from signatures and docstrings. `from planner import …` loads a name's room when the name is first used, so that
`import planner` is quick. Nothing here prints, keeps state between calls or changes its arguments; several threads may call at
once. [Embedding](embedding.md) has examples; [the plan file](plan-file.md) says what each part of a plan is.

Numbers are SI floats whose name says the unit (`ttft_s`, `bandwidth_bytes_per_s`); in plans times are `…_ms` as printed, money is
USD, and an interval is `{low, expected, high}`: 10th percentile, median, 90th.
"""
FUNCTIONS = ("plan", "compare", "verify", "load_model", "load_hardware", "resolve")
CLASSES = ("Plan", "Workload", "Reporter", "Stop")
WIDTH = 110


def prose(text: str | None) -> str:
    """A docstring as Markdown."""
    return re.sub(r"``(.+?)``", r"`\1`", inspect.cleandoc(text or ""), flags=re.DOTALL).strip()


def plain(annotation: Any) -> str:
    """A type as it is written, without the rooms that its names come from."""
    text = annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Za-z_])", "", text)


def signature(name: str, found: Any) -> str:
    """A call with one parameter a line."""
    asked = inspect.signature(found)
    lines, marked = [], False
    for parameter in asked.parameters.values():
        if parameter.name == "self":
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not marked:
            lines.append("*")
            marked = True
        star = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        default = "" if parameter.default is parameter.empty else f" = {parameter.default!r}"
        kind = "" if parameter.annotation is parameter.empty else f": {plain(parameter.annotation)}"
        lines.append(f"{star}{parameter.name}{kind}{default}")
    back = "" if asked.return_annotation is asked.empty else f" -> {plain(asked.return_annotation)}"
    short = f"{name}({', '.join(lines)}){back}"
    if len(short) <= WIDTH:
        return short
    return f"{name}(\n{textwrap.indent(''.join(f'{line},' + chr(10) for line in lines), '    ')}){back}"


def said_of_fields(model: type) -> dict[str, str]:
    """What stands under each field of a class and of those it is made from."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if kind.__module__.partition(".")[0] != "planner":
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
        assert isinstance(tree, ast.ClassDef)
        for before, after in zip(tree.body, tree.body[1:], strict=False):
            if isinstance(before, ast.AnnAssign) and isinstance(before.target, ast.Name) and isinstance(after, ast.Expr):
                if isinstance(after.value, ast.Constant) and isinstance(after.value.value, str):
                    found[before.target.id] = " ".join(prose(after.value.value).split())
    return found


def cell(text: str) -> str:
    return text.replace("|", "\\|")


def fields(model: type[BaseModel]) -> str:
    """The fields of a model as a table."""
    said = said_of_fields(model)
    lines = ["| field | type | |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        kind = plain(model.__annotations__.get(name, field.annotation))
        kind = re.sub(r"^Annotated\[(.+?), Field\(.*\)\]", r"\1", kind)
        default = "" if field.is_required() else f"default `{field.default!r}`"
        shown = default if len(default) < 60 else ""
        text = said.get(name, "")
        lines.append(f"| `{name}` | `{cell(kind)}` | {cell('; '.join(part for part in (text.rstrip('.'), shown) if part))} |")
    return "\n".join(lines)


def methods(kind: type) -> str:
    """The public methods of a class."""
    parts = []
    for name, found in vars(kind).items():
        if inspect.isfunction(found) and not name.startswith("_") and found.__doc__:
            parts.append(f"- `{signature(name, found)}`: {' '.join(prose(found.__doc__).split())}")
        elif isinstance(found, property) and not name.startswith("_"):
            parts.append(f"- `{name}`: {' '.join(prose(found.__doc__).split())}")
    return "\n".join(parts)


def options() -> str:
    """The keywords of ``plan`` that are options."""
    said = said_of_fields(Options)
    lines = ["| option | type | |", "|---|---|---|"]
    for name, kind in Asked.__annotations__.items():
        default = f"default `{Options.model_fields[name].default!r}`"
        text = said.get(name, "").rstrip(".")
        written = plain(getattr(kind, "__forward_arg__", kind))
        lines.append(f"| `{name}` | `{cell(written)}` | {cell('; '.join(part for part in (text, default) if part))} |")
    return "\n".join(lines)


def page() -> str:
    """The whole page."""
    parts = [INTRO]
    for name in FUNCTIONS:
        found = getattr(planner, name)
        parts.append(f"## {name}\n\n```text\n{signature(name, found)}\n```\n\n{prose(found.__doc__)}\n")
        if name == "plan":
            parts.append(f"Options of `plan`, `compare` and `resolve`:\n\n{options()}\n")
    for name in CLASSES:
        found = getattr(planner, name)
        parts.append(f"## {name}\n\n{prose(found.__doc__)}\n")
        if issubclass(found, BaseModel):
            parts.append(f"{fields(found)}\n")
        elif found.__init__ is not object.__init__:
            parts.append(f"```text\n{signature(name, found)}\n```\n")
        if methods(found):
            parts.append(f"{methods(found)}\n")
    parts.append("## Errors\n\nOf `planner.errors`; each is a `PlannerError` and knows the exit code of the command line.\n")
    rows = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, errors.PlannerError)]
    lines = ["| error | exit code | |", "|---|---|---|"]
    lines += [f"| `{one.__name__}` | {one.exit_code} | {cell(' '.join(prose(one.__doc__).split()))} |" for one in rows]
    return "\n".join([*parts, *lines]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(page())
