"""A command that starts an engine, as data: the same for a shell line, a container's arguments and a configuration file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

OptionValue = str | int | float | bool | Mapping[str, "OptionValue"] | list["OptionValue"] | None


@dataclass(frozen=True)
class OfNode:
    """A value that differs by node: ``times`` the node's number within its instance, or (``None``) the address of its node 0 with
    ``after`` behind it; ``followers``: for every node but the first."""

    times: int | None
    after: str = ""
    followers: bool = False

    def words(self, node: int, leader: str) -> str:
        """On a node."""
        return f"{leader}{self.after}" if self.times is None else str(node * self.times)

    def shell(self) -> str:
        """For a shell that knows NODE_RANK and LEADER_ADDRESS."""
        if self.times is None:
            return f"$LEADER_ADDRESS{self.after}"
        return "$NODE_RANK" if self.times == 1 else f"$((NODE_RANK * {self.times}))"


@dataclass(frozen=True)
class Serve:
    """One process of a pool. ``program``: words before the options (``vllm serve MODEL``); ``options``: flag without dashes to
    its value, ``True`` for a switch, a mapping or list where the engine takes JSON; ``per_node``: flags that differ by node."""

    phase: str
    program: tuple[str, ...]
    options: Mapping[str, OptionValue]
    env: Mapping[str, str] = field(default_factory=dict)
    per_node: Mapping[str, OfNode] = field(default_factory=dict)

    def argv(self, node: int = 0, leader: str = "127.0.0.1") -> tuple[str, ...]:
        """The words of the command, as the process of a node gets them."""
        words = list(self.program)
        for name, value in self.options.items():
            words += option_words(name, value)
        for name, own in self.per_node.items():
            words += [] if own.followers and not node else [f"--{name}", own.words(node, leader)]
        return tuple(words)

    def shell(self) -> str:
        """The command as a shell reads it, one option a line; what differs by node is left to it (``$NODE_RANK``), what node 0
        does not get to ``node_script``."""
        lines = [shlex.join(self.program)]
        lines += [shlex.join(words) for name, value in self.options.items() if (words := option_words(name, value))]
        lines += [f'--{name} "{value.shell()}"' for name, value in self.per_node.items() if not value.followers]
        env = "".join(f"{name}={shlex.quote(value)} " for name, value in self.env.items())
        return env + " \\\n  ".join(lines) + "\n"


def option_words(name: str, value: OptionValue) -> list[str]:
    """``--name value``; a switch alone, nothing for ``False`` and ``None``, JSON for a mapping or list."""
    if value is None or value is False:
        return []
    if value is True:
        return [f"--{name}"]
    if isinstance(value, Mapping | list):
        return [f"--{name}", json.dumps(value, sort_keys=True)]
    return [f"--{name}", str(value)]


BESIDE = 'cd -- "$(dirname -- "$0")"\n'
"""A line for scripts whose engine reads files that lie beside them."""


def node_script(serve: Serve, nodes: int, others: str = "") -> str:
    """The process as the rest of a shell script, which hands on its own arguments; of several nodes each sets NODE_RANK and
    LEADER_ADDRESS. ``others``: an option for every node but the first."""
    start = f'exec {"env " if serve.env else ""}{serve.shell().rstrip()} \\\n  "$@"\n'
    if nodes == 1:
        return start
    words = [others] if others else []
    words += [f'--{name} "{value.shell()}"' for name, value in serve.per_node.items() if value.followers]
    said = f'[ "$NODE_RANK" = 0 ] || set -- {" ".join(words)} "$@"\n' if words else ""
    return (
        ': "${NODE_RANK:?the number of this node within its instance, 0 first}"\n'
        ': "${LEADER_ADDRESS:?the address of node 0}"\n'
        f"{said}{start}"
    )
