"""Completion of names in the shell: read off the catalogues' folders, without loading what is in them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import BashComplete, CompletionItem, add_completion_class, split_arg_string

import planner

HOME = Path(planner.__file__).parent
PACKS = {
    "models": HOME / "architecture" / "models",
    "workloads": HOME / "workload" / "catalogue",
    "runtimes": HOME / "runtimes" / "catalogue",
    "prices": HOME / "prices" / "catalogue",
    "sheets": HOME / "prices" / "sheets",
}
"""Folders of planner's own files ``NAME.toml``, by what they name."""
HARDWARE = {"system": "systems", "device": "devices", "part": "parts", "site": "sites"}
"""Folders of the hardware catalogue, by what their profiles are."""
KINDS = {"node": "system", "rack": "system", "device": "device", "memory": "part", "interconnect": "part", "site": "site"}
COUNTS = ("1", "2", "4", "8", "16", "auto")
PHASES = ("prefill=", "decode=")


def stems(folder: Path) -> list[str]:
    """What the files ``NAME.toml`` of a folder are called."""
    return sorted(path.stem for path in folder.glob("*.toml"))


def offered(group: str) -> list[str]:
    """What other packages offer in folders of their own."""
    from planner.plugins import registry

    return sorted({name for folder in registry(group).other_folders().values() for name in stems(folder)})


def hardware(context: click.Context, sorts: Iterable[str]) -> list[str]:
    """Names of profiles: those of the user's folders, of the catalogue and of other packages."""
    found = [path for folder in _own_folders(context) for path in sorted(folder.rglob("*.toml"))[:500]]
    installed = HOME / "_hardware_profiles"
    profiles = installed if installed.is_dir() else HOME.parent / "hardware_profiles"
    names = [path.stem for path in found if _kind(path) in sorts]
    names += [name for sort in sorts for name in stems(profiles / HARDWARE[sort])]
    return list(dict.fromkeys([*names, *(offered("planner.hardware") if "system" in sorts else ())]))


def _own_folders(context: click.Context) -> list[Path]:
    from planner.cli.common import PROFILES_VARIABLE

    named = [*(context.params.get("folders") or ()), *os.environ.get(PROFILES_VARIABLE, "").split(os.pathsep)]
    folders = [Path(str(name)) for name in (*named, Path(click.get_app_dir("planner")) / "profiles") if str(name)]
    return [folder for folder in dict.fromkeys(folders) if folder.is_dir()]


def _kind(path: Path) -> str:
    """What a profile is, from its head."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            match = re.search(r'^kind *= *"(\w+)"', file.read(4096), re.MULTILINE)
    except OSError:
        return ""
    return KINDS.get(match[1], "") if match else ""


def _listed(kind: str, group: str = "") -> Callable[[click.Context], list[str]]:
    return lambda context: [*stems(PACKS[kind]), *(offered(group) if group else ())]


def _exporters(context: click.Context) -> list[str]:
    from planner.plugins import registry

    return list(registry("planner.exporters").names())


def _shown(context: click.Context) -> list[str]:
    """Of ``planner show KIND NAME``."""
    kind = str(context.params.get("kind"))
    if kind in ("model", "workload", "runtime"):
        return LISTS[f"{kind}s"](context)
    return hardware(context, HARDWARE if kind == "hardware" else [kind])


LISTS: dict[str, Callable[[click.Context], list[str]]] = {
    "models": _listed("models"),
    "workloads": _listed("workloads", "planner.workloads"),
    "runtimes": _listed("runtimes", "planner.runtimes"),
    "prices": _listed("prices", "planner.prices"),
    "sheets": _listed("sheets"),
    "bases": lambda context: [*LISTS["prices"](context), "tco", "rent_od", "rent_1y", "rent_3y", "rent_spot"],
    "systems": lambda context: hardware(context, ["system"]),
    "profiles": lambda context: hardware(context, HARDWARE),
    "parts": lambda context: hardware(context, ["part"]),
    "sites": lambda context: hardware(context, ["site"]),
    "exporters": _exporters,
    "shown": _shown,
    "files": lambda context: [],
    "tiers": lambda context: ["hbm", "gddr", "lpddr", "ddr", "cxl", "ssd", "remote", "device", "host", "disk"],
    "dtypes": lambda context: ["bf16", "fp8", "int8", "fp4", "int4"],
}
"""What can be completed, and where the names come from."""

PARAMETERS = {
    **dict.fromkeys(("model", "models"), "models"),
    **dict.fromkeys(("hardware", "hardwares"), "systems"),
    **dict.fromkeys(("workload", "workloads"), "workloads"),
    **dict.fromkeys(("price_basis", "prices"), "bases"),
    **dict.fromkeys(("plan", "plan_file", "plan_name", "first", "second", "from_plan", "against", "files"), "files"),
    **dict.fromkeys(("weight_dtype", "kv_dtype"), "dtypes"),
    **dict.fromkeys(("sheet", "sheets"), "sheets"),
    **{"runtime": "runtimes", "site": "sites", "tiers": "tiers", "target": "exporters"},
    **{"profiles": "profiles", "name": "shown", "names": "parts"},
}
"""Parameters of commands that are plain text, by name, and what they take; new commands need no more than such a name."""


class Named(click.ParamType[str]):
    """Text that names something."""

    name = "text"

    def __init__(self, what: str) -> None:
        self.what = what

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """As text is read."""
        return click.STRING.convert(value, param, ctx)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
        """Names that begin so, else files; of lists and pools the last entry."""
        if self.what == "files" or "/" in incomplete or incomplete.startswith(("~", ".")):
            return [CompletionItem(incomplete, type="file")]
        start, last = _last(incomplete, pools=self.what == "systems")
        found = _counted(last) if self.what == "systems" and ":" in last else []
        if not found:
            found = [name for name in LISTS[self.what](ctx) if name.startswith(last)]
            if self.what == "systems" and not incomplete.endswith("=") and last:
                found += [phase for phase in PHASES if phase.startswith(last) and phase not in incomplete]
        items = [CompletionItem(f"{start}{name}") for name in found]
        return items or [CompletionItem(incomplete, type="file")]


def _last(incomplete: str, *, pools: bool) -> tuple[str, str]:
    """What stands before the entry that is being written, and that entry."""
    cut = incomplete.rfind(",") + 1
    if pools:
        for phase in PHASES:
            if incomplete[cut:].startswith(phase):
                cut += len(phase)
    return incomplete[:cut], incomplete[cut:]


def _counted(last: str) -> list[str]:
    """``NAME:N`` for the counts of use."""
    name, _, count = last.partition(":")
    return [f"{name}:{number}" for number in COUNTS if number.startswith(count)]


def add_names(command: click.Command) -> None:
    """Completion for the parameters of a command, and of those below it, that are plain text with a known name."""
    for parameter in command.params:
        if parameter.name in PARAMETERS and parameter.type is click.STRING:
            parameter.type = Named(PARAMETERS[parameter.name])
    for below in getattr(command, "commands", {}).values():
        add_names(below)


_BASH = """\
%(complete_func)s() {
    local line="${COMP_LINE:0:COMP_POINT}" IFS=$'\\n' entry kind value word skip=""
    word="${line##*[[:space:]]}"
    [[ $word == *[=:]* ]] && skip="${word%%"${word##*[=:]}"}"
    COMPREPLY=()
    for entry in $(env COMP_WORDS="$line" COMP_CWORD=line %(complete_var)s=bash_complete "$1"); do
        kind="${entry%%%%,*}" value="${entry#*,}"
        if [[ $kind == dir ]]; then
            compopt -o dirnames
        elif [[ $kind == file ]]; then
            compopt -o default
        else
            [[ $value == *[=:,] ]] && compopt -o nospace 2> /dev/null
            COMPREPLY+=("${value#"$skip"}")
        fi
    done
}
complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Bash(BashComplete):
    """Bash, which takes ``prefill=NAME:2`` for five words; the script hands over the line as it is (``COMP_CWORD=line``)."""

    source_template = _BASH

    def source(self) -> str:
        """The script, without a look for bash on this machine."""
        return self.source_template % self.source_vars()

    def get_completion_args(self) -> tuple[list[str], str]:
        """Words before the one being written, and that one."""
        if os.environ.get("COMP_CWORD") != "line":
            return super().get_completion_args()
        line = os.environ["COMP_WORDS"]
        words = split_arg_string(line)[1:]
        if line[-1:].isspace() or not words:
            return words, ""
        return words[:-1], words[-1]


def register() -> None:
    """Make click use what is here."""
    add_completion_class(Bash, "bash")
