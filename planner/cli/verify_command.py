"""``planner verify``."""

from __future__ import annotations

import click

from planner.cli.common import echo_json, format_option, hint, read_plan_argument, say, verdict
from planner.cli.progress import working


@click.command("verify")
@click.argument("plan")
@click.option("--full", is_flag=True, help="Also recompute the bound of every configuration of the declared space.")
@format_option
def command(plan: str, full: bool, form: str) -> int:
    """Recompute every constraint and every number of PLAN (a file, or - for standard input) from its embedded inputs.

    \b
    Examples:
      planner verify plan.json
      planner plan deepseek-v3 h800-node:2 --format json | planner verify -
    """
    from planner.errors import VerificationError
    from planner.plans import verify_plan
    from planner.plans.answers import verification

    try:
        loaded, where = read_plan_argument(plan)
    except VerificationError as error:
        if form != "json":
            raise
        echo_json({"ok": False, "violations": error.violations, "notices": []})
        return error.exit_code
    with working("every configuration" if full else "recomputing"):
        violations, notices = verify_plan(loaded, where, full=full)
    code = 4 if violations else 0
    with verdict(code):
        if form == "json":
            echo_json(verification(violations, notices))
        else:
            for violation in violations[:20]:
                click.echo(
                    f"violated: {violation.equation}: {violation.path}: expected {violation.expected}, found {violation.found}"
                )
            if len(violations) > 20:
                click.echo(f"and {len(violations) - 20} more")
            if not violations:
                scope = "every configuration of the space" if full else "the chosen configuration"
                say(f"ok: every number follows from the embedded inputs; certificate checked for {scope}")
    for notice in notices:
        click.echo(f"note: {notice}", err=True)
    if not violations and form == "table":
        hint(f"planner explain {plan}")
    return code
