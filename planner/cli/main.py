"""The command group: commands load on first use, failures become one line and the contract's exit code."""

from __future__ import annotations

import io
import os
import sys
import time
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

import click

from planner.cli.html_report import ARGUMENTS
from planner.cli.terminal import Terminal, add_switches, causes, writable
from planner.errors import PlannerError, ReaderGone
from planner.version import __version__

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

COMMANDS = {
    "list": "hardware, models, workloads, runtimes, prices, exporters or plugins",
    "show": "one hardware profile, model, workload or runtime",
    "init": "a commented hardware profile or workload to fill in",
    "lint": "every fault of hardware profiles, and how to mend it",
    "kv": "what the caches of a sequence hold and have read at a context",
    "plan": "the best deployment of a model on hardware, with a proved gap",
    "compare": "models and hardware side by side: figures, ratios, how sure the order is",
    "verify": "check that every number of a plan follows from its inputs",
    "explain": "why a plan is as it is: what binds, what would help, what was ruled out",
    "diff": "what differs between two plans, from inputs to cost",
    "cost": "bills at providers' prices; what keeping caches and memory tiers cost",
    "fleet": "what a plan takes for so many tokens a day: devices, power, capital, cost",
    "sweep": "a grid of models, hardware, workloads and prices, planned point by point",
    "simulate": "requests replayed through a plan: percentiles, goodput, hit rates, use, cost",
    "workload": "a workload from a trace of requests, or from a model of how prefixes come back",
    "probe": "this machine measured into a profile; a small model run beside its prediction",
    "export": "a plan as files that engines and clusters take",
    "serve": "plans over HTTP, with a page to choose and look at them",
    "audit": "launch lines of vLLM or SGLang: what they reach, and which flags to change",
    "validate": "predictions beside measured times: errors by system, model, runtime and more",
    "calibrate": "fit a runtime's figures to measured times",
    "schema": "the JSON Schema of plans, inputs and command output",
    "completion": "a script that completes commands and names in your shell",
}


LONGEST = 4000
LONGEST_WORD = 400
"""Characters of a message about bad input, which may repeat what was given, and of one word of it."""


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called; help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All commands, in the order of the contract."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import ``planner.cli.<name>_command``."""
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"planner.cli.{cmd_name}_command")
        command = module.command
        assert isinstance(command, click.Command)
        add_switches(command)
        if ctx.resilient_parsing:
            from planner.cli.completion import add_names

            add_names(command)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Commands and what they are for, without importing them."""
        from click.shell_completion import CompletionItem

        found = [CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)]
        return found if incomplete.isalpha() else found + click.Command.shell_complete(self, ctx, incomplete)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the words of the command line, which reports repeat."""
        ctx.meta[ARGUMENTS] = tuple(args)
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        """Unknown commands get the nearest matches."""
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            if ctx.resilient_parsing:
                return None, None, args
            from planner.errors import nearest

            raise click.UsageError(f"unknown command {args[0]!r}; {nearest(args[0], list(COMMANDS))}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Names and one-line descriptions, without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="planner")
def group() -> None:
    """Plan LLM inference over memory tiers and devices.

    \b
    Examples:
      planner plan deepseek-v3 h800-node:2
      planner --quiet plan deepseek-v3 h800-node:2 -o plan.json
    """


add_switches(group)


def _short(text: str) -> str:
    """On one line, and cut where a message repeats something huge."""
    line = " ".join(word if len(word) <= LONGEST_WORD else f"{word[:LONGEST_WORD]}…" for word in text.split())
    return line if len(line) <= LONGEST else f"{line[:LONGEST]}…"


def _usage(error: click.ClickException) -> str:
    """What click found wrong, and the help that tells how to mend it."""
    text = _short(error.format_message())
    context = error.ctx if isinstance(error, click.UsageError) else None
    return text if context is None else f"{text.rstrip('.')}; see {context.command_path} --help"


def _drop_output() -> None:
    """Nobody reads standard output any more: what is still buffered goes nowhere when Python ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _say(text: str, error: BaseException | None = None, asked: Terminal | None = None) -> None:
    """A message on stderr, if anything can be written there, and with ``--verbose`` the errors behind an error."""
    with suppress(OSError):
        click.echo(f"planner: {text}", err=True)
        for cause in causes(error) if error is not None and asked is not None and asked.verbose else ():
            click.echo(f"verbose: because of {cause}", err=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the contract's code."""
    sys.stdout = sys.stdout or io.StringIO()  # None where the caller closed it
    sys.stderr = sys.stderr or io.StringIO()
    writable()
    asked = Terminal()
    if "_PLANNER_COMPLETE" in os.environ:
        from planner.cli.completion import register

        register()
    try:
        code = group.main(arguments, prog_name="planner", standalone_mode=False, obj=asked)
        code = code if isinstance(code, int) else 0
        sys.stdout.flush()
    except click.exceptions.Exit as stop:
        code = stop.exit_code
    except (click.Abort, KeyboardInterrupt):
        _say("stopped")
        code = 130
    except click.exceptions.NoArgsIsHelpError:
        _say(f"no command given; name one of {', '.join(COMMANDS)}, or see planner --help")
        code = 2
    except click.ClickException as error:
        _say(_usage(error), error, asked)
        code = 2
    except PlannerError as error:
        _say(_short(str(error)) if error.exit_code == 2 else str(error), error, asked)
        code = error.exit_code
    except ReaderGone as gone:
        _drop_output()
        code = gone.exit_code
    except (BrokenPipeError, SystemExit):  # click turns the first into the second
        _drop_output()
        code = 0
    except OSError as error:
        _drop_output()
        _say(f"{error.filename or 'standard output'}: cannot be used ({error.strerror}); check it", error, asked)
        code = 2
    except Exception as error:
        if os.environ.get("PLANNER_TRACEBACK"):
            raise
        _say(
            f"internal fault: {type(error).__name__}: {' '.join(str(error).split())[:300]}; "
            "set PLANNER_TRACEBACK=1 to see where, and please report it",
            error,
            asked,
        )
        code = 1
    if asked.verbose:
        with suppress(OSError):
            click.echo(f"verbose: exit code {code} after {time.monotonic() - asked.started:.2f} s", err=True)
    sys.exit(code)
