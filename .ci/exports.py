#!/usr/bin/env python3
"""What every exporter writes for the plans that it is tried on, and which checks took it: ``.ci/exports.py`` prints a table.

The same checks as the tests' (tests/accepted.py), on files as they would lie in a folder; a fault fails the run.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[1] / "tests")]

from accepted import judged  # noqa: E402


def main() -> None:
    """Print the table."""
    print("plan              exporter     files  missing  not carried  accepted by")
    wrong = []
    for case, target, made, by, faults in judged():
        wrong += faults
        if isinstance(made, str):
            print(f"{case:17} {target:12}     -        -            -  does not apply: {made}")
        else:
            counts = f"{len(made.files):5}  {len(made.missing):7}  {len(made.not_carried):11}"
            print(f"{case:17} {target:12} {counts}  {by}")
    if wrong:
        sys.exit("; ".join(wrong))


if __name__ == "__main__":
    main()
