"""Lazy registries: what planner finds by name, its own and other packages' alike.

A package offers something through an entry point of one of these groups (``[project.entry-points."GROUP"]``,
``name = "module:OBJECT"``):

``planner.model_families``   a ``planner.architecture.Family``; the name is the ``model_type`` it reads
``planner.hardware``         a folder of hardware profiles, with subfolders, or a callable that returns one
``planner.runtimes``         a folder of serving runtimes, one file ``ID.toml`` each, or a callable that returns one
``planner.workloads``        a folder of workloads, the same way
``planner.prices``           a folder of price bases, the same way
``planner.exporters``        a ``planner.export.Exporter``: a writer of engine files
``planner.executors``        called with a count of workers and a scheduler's address (or ``None``), makes
                             ``planner.sweep.executors.Workers``

The built-ins are entry points of planner's own package. ``BUILTIN`` repeats them, so that a source checkout without
installed metadata works too and so that using a built-in never scans the installed packages. A built-in keeps its
name: another package's entry of that name is reported and ignored. A package that fails to load is reported by
``faults`` and never stops what does not need it.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint
from pathlib import Path
from types import FrameType
from typing import TypeVar

from planner.errors import InputError, nearest

Loaded = TypeVar("Loaded")

BUILTIN: Mapping[str, Mapping[str, str]] = {
    "planner.model_families": {
        "deepseek": "planner.architecture.families.deepseek:FAMILY",
        "deepseek_v2": "planner.architecture.families.deepseek_v2:FAMILY",
        "kimi_k25": "planner.architecture.families.kimi_k25:FAMILY",
        "kimi_linear": "planner.architecture.families.kimi_linear:FAMILY",
        "kimi_k3": "planner.architecture.families.kimi_linear:K3",
        "deepseek_v3": "planner.architecture.families.deepseek_v3:FAMILY",
        "deepseek_v32": "planner.architecture.families.deepseek_v32:FAMILY",
        "deepseek_v4": "planner.architecture.families.deepseek_v4:FAMILY",
        "deepseek_v41": "planner.architecture.families.deepseek_v41:FAMILY",
        "engram": "planner.architecture.families.engram:FAMILY",
        "glm_moe_dsa": "planner.architecture.families.glm_moe_dsa:FAMILY",
        "kimi_k2": "planner.architecture.families.kimi_k2:FAMILY",
        "llama": "planner.architecture.families.llama:FAMILY",
        "gpt_oss": "planner.architecture.families.gpt_oss:FAMILY",
        "minimax_m2": "planner.architecture.families.minimax:M2",
        "minimax_m3": "planner.architecture.families.minimax:M3",
        "minimax_m3_vl": "planner.architecture.families.minimax:M3",
        "mistral": "planner.architecture.families.llama:MISTRAL",
        "mixtral": "planner.architecture.families.mixtral:FAMILY",
        "nemotron_h": "planner.architecture.families.nemotron_h:FAMILY",
        "opt": "planner.architecture.families.opt:FAMILY",
        "qwen2": "planner.architecture.families.qwen:QWEN2",
        "qwen3": "planner.architecture.families.qwen:QWEN3",
        "qwen3_5": "planner.architecture.families.qwen3_5:DENSE",
        "qwen3_5_moe": "planner.architecture.families.qwen3_5:MOE",
        "qwen3_5_moe_text": "planner.architecture.families.qwen3_5:MOE",
        "qwen3_5_text": "planner.architecture.families.qwen3_5:DENSE",
        "qwen3_moe": "planner.architecture.families.qwen:QWEN3_MOE",
    },
    "planner.hardware": {"builtin": "planner.hardware.loader:builtin_folder"},
    "planner.runtimes": {"builtin": "planner.runtimes.schema:FOLDER"},
    "planner.workloads": {"builtin": "planner.workload.schema:FOLDER"},
    "planner.prices": {"builtin": "planner.prices.schema:FOLDER"},
    "planner.exporters": {
        "dynamo": "planner.export.dynamo:EXPORTER",
        "eplb": "planner.export.eplb:EXPORTER",
        "kserve": "planner.export.kserve:EXPORTER",
        "lws": "planner.export.lws:EXPORTER",
        "sglang": "planner.export.sglang:EXPORTER",
        "trtllm": "planner.export.trtllm:EXPORTER",
        "vllm": "planner.export.vllm:EXPORTER",
        "vllm-ascend": "planner.export.vllm_ascend:EXPORTER",
    },
    "planner.executors": {
        "dask": "planner.sweep.executors:Dask",
        "process": "planner.sweep.executors:Processes",
        "serial": "planner.sweep.executors:Serial",
        "thread": "planner.sweep.executors:Threads",
    },
}

GROUPS = tuple(BUILTIN)


@dataclass(frozen=True)
class Fault:
    """Why an offer of another package is not used."""

    group: str
    name: str
    package: str
    reason: str


class Registry:
    """The named objects of one group; names are listed without importing anything they name."""

    def __init__(self, group: str, builtin: Mapping[str, str]) -> None:
        self.group = group
        self._builtin = dict(builtin)
        self._loaded: dict[str, object] = {}
        self._faults: dict[str, Fault] = {}
        self._offers: dict[str, EntryPoint] | None = None

    def builtin(self, name: str) -> bool:
        """Whether a name is planner's own."""
        return name in self._builtin

    def names(self) -> tuple[str, ...]:
        """Every name, built-in and third-party, sorted."""
        return tuple(sorted({*self._builtin, *self._third_party()}))

    def get(self, name: str) -> object:
        """The object of that name; an ``InputError`` if nothing has that name or its package cannot be loaded."""
        if name not in self._loaded:
            self._loaded[name] = self._load(name)
        return self._loaded[name]

    def load_all(self) -> dict[str, object]:
        """Every object that can be loaded, by name; ``faults`` then tells what could not."""
        loaded = {}
        for name in self.names():
            try:
                loaded[name] = self.get(name)
            except InputError:
                continue
        return loaded

    def faults(self) -> tuple[Fault, ...]:
        """What is known to be broken so far, by name."""
        self._third_party()
        return tuple(self._faults[name] for name in sorted(self._faults))

    def folder(self, name: str) -> Path:
        """The folder that the pack of that name offers; an ``InputError``, also on record, if it offers none."""
        offer = self.get(name)

        def place() -> Path | str:
            folder = offer() if callable(offer) else offer
            if isinstance(folder, str | Path) and Path(folder).is_dir():
                return Path(folder)
            return f"offers no folder but {str(folder)[:96]!r}"

        found, reason = guarded(place)
        if isinstance(found, Path):
            return found
        reason = found or reason
        self.report(name, reason)
        raise InputError(f"{name!r} of {self.group} cannot be used ({reason})", mend="mend or uninstall that package")

    def other_folders(self) -> dict[str, Path]:
        """The folders of other packages, by the name of the pack; ``faults`` then tells which offer none."""
        folders = {}
        for name in sorted(self._third_party()):
            try:
                folders[name] = self.folder(name)
            except InputError:
                continue
        return folders

    def report(self, name: str, reason: str) -> None:
        """Record that an offer loads but cannot be used; a built-in of that name is no plugin and is not recorded."""
        offer = self._third_party().get(name)
        if offer is not None:
            self._fault(offer, reason)

    def _load(self, name: str) -> object:
        if name in self._builtin:
            module, _, attribute = self._builtin[name].partition(":")
            return getattr(import_module(module), attribute)
        offer = self._third_party().get(name)
        if offer is None:
            raise InputError(f"no {name[:64]!r} in {self.group}", mend=nearest(name[:64], list(self.names())))
        loaded, reason = guarded(offer.load)
        if reason:
            fault = self._fault(offer, reason)
            raise InputError(
                f"{name!r} cannot be loaded ({fault.reason})",
                where=f"plugin package {fault.package}",
                mend="mend or uninstall that package",
            )
        return loaded

    def _third_party(self) -> dict[str, EntryPoint]:
        if self._offers is None:
            from importlib.metadata import entry_points

            offers: dict[str, EntryPoint] = {}
            try:
                found = sorted(entry_points(group=self.group), key=lambda e: (e.name, _package(e), e.value))
            except Exception as error:  # another package's metadata may be unreadable
                self._faults[""] = Fault(self.group, "", "unknown", f"entry points cannot be read: {error}")
                found = []
            for offer in found:
                if offer.name in self._builtin:
                    if offer.value != self._builtin[offer.name]:
                        self._fault(offer, "the name belongs to a built-in")
                elif offer.name in offers:
                    self._fault(offer, f"the name is taken by {_package(offers[offer.name])}")
                else:
                    offers[offer.name] = offer
            self._offers = offers  # whole, since other threads may look
        return self._offers

    def _fault(self, offer: EntryPoint, reason: str) -> Fault:
        fault = Fault(self.group, offer.name, _package(offer), " ".join(reason.split())[:300])
        self._faults[offer.name] = fault
        return fault


def guarded(call: Callable[[], Loaded]) -> tuple[Loaded | None, str]:
    """What code of another package returns, or ``None`` and why it failed, whatever it raises; only the user's Ctrl-C passes.

    What it prints goes to standard error, and standard output is as before afterwards, so one thread at a time. Nothing here can
    stop code that sleeps, ends the process (``os._exit``) or works on in a thread: who installs a package trusts it.
    """
    with _ONE_AT_A_TIME:
        return _guarded(call)


_ONE_AT_A_TIME = threading.RLock()


def _guarded(call: Callable[[], Loaded]) -> tuple[Loaded | None, str]:
    before = sys.stdout, sys.stderr
    pressed: list[int] = []
    previous = _note_interrupts(pressed)
    try:
        with redirect_stdout(sys.stderr):
            return call(), ""
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and pressed:
            raise
        return None, _words(error)
    finally:
        sys.stdout, sys.stderr = before
        if previous is not None:
            signal.signal(signal.SIGINT, previous)


def _note_interrupts(pressed: list[int]) -> Callable[[int, FrameType | None], object] | None:
    """Note Ctrl-C before its handler does as ever; that handler, or ``None`` where there is none to go through."""
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or threading.current_thread() is not threading.main_thread():
        return None
    handler: Callable[[int, FrameType | None], object] = before

    def noted(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        handler(number, frame)

    signal.signal(signal.SIGINT, noted)
    return handler


def _words(error: BaseException) -> str:
    """The error in words, also where its own fail."""
    try:
        text = str(error)
    except BaseException:
        text = "its message cannot be read"
    plain = "".join(char if char.isprintable() else " " for char in text)
    return f"{type(error).__name__}: {plain}"


def _package(offer: EntryPoint) -> str:
    return offer.dist.name if offer.dist is not None else "unknown"


@cache
def registry(group: str) -> Registry:
    """The process-wide registry of a group."""
    if group not in GROUPS:
        raise ValueError(f"unknown plugin group {group!r}")
    return Registry(group, BUILTIN[group])
