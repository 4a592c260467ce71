"""``python -m planner`` and the console script: nothing is imported before Ctrl-C is looked after."""

from __future__ import annotations


def run() -> None:
    """Run the command line; stopped while it is still being loaded, it says so in one line as later."""
    try:
        from planner.cli import main

        main()
    except KeyboardInterrupt:
        import sys

        sys.stderr.write("planner: stopped\n")
        sys.exit(130)


if __name__ == "__main__":
    run()
