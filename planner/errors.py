"""One exception per kind of failure; each knows the exit code the command line returns for it."""

from __future__ import annotations


class PlannerError(Exception):
    """Base of every failure that planner reports on purpose; the message is one line for a person."""

    exit_code = 1


class InputError(PlannerError):
    """The input is wrong. The message says what, where (file and key) and how to mend it."""

    exit_code = 2

    def __init__(self, what: str, *, where: str = "", mend: str = "") -> None:
        self.what, self.where, self.mend = what, where, mend
        parts = [f"{where}: {what}" if where else what]
        if mend:
            parts.append(mend)
        super().__init__("; ".join(" ".join(part.split()) for part in parts))


class InfeasibleError(PlannerError):
    """No configuration of the declared space meets the limits: proved, with the conflict.

    ``conflict`` holds one mapping per member: ``{member, detail, least_relief, amount, unit}``.
    """

    exit_code = 3

    def __init__(self, message: str, conflict: list[dict[str, object]]) -> None:
        self.conflict = conflict
        super().__init__(message)


class VerificationError(PlannerError):
    """A plan's numbers do not follow from its inputs; ``violations`` names each broken equation."""

    exit_code = 4

    def __init__(self, message: str, violations: list[dict[str, object]]) -> None:
        self.violations = violations
        super().__init__(message)


class StoppedError(PlannerError):
    """The search was stopped before it had found any plan."""

    exit_code = 5


def nearest(name: str, known: list[str], count: int = 3) -> str:
    """``'; did you mean a, b?'`` for the known names that begin with it, contain it or are closest, or the first known ones."""
    import difflib

    part = name.lower()
    holding = (
        sorted((n for n in known if part in n.lower()), key=lambda n: (n.lower().find(part), len(n), n)) if len(part) > 2 else []
    )
    close = list(dict.fromkeys([*holding, *difflib.get_close_matches(part, known, n=count, cutoff=0.5)]))[:count]
    if close:
        return "did you mean " + ", ".join(close) + "?"
    return "known: " + ", ".join(sorted(known)[:8]) + (", …" if len(known) > 8 else "")


class ReaderGone(Exception):
    """Whoever read the output closed it; ``exit_code`` is what was to be said."""

    def __init__(self, exit_code: int) -> None:
        super().__init__()
        self.exit_code = exit_code
