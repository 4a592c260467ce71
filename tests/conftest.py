"""Property tests run the same examples everywhere, without a clock; ``run`` calls the command line."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import settings

from planner.cli import main

settings.register_profile("planner", derandomize=True, deadline=None, database=None)
settings.load_profile("planner")
for _name in ("PLANNER_PROFILES", "COLUMNS"):  # pytest-xdist sets the latter in its workers
    os.environ.pop(_name, None)
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """The command line in this process, with a configuration folder of its own: ``(exit code, stdout, stderr)``."""
    monkeypatch.delenv("PLANNER_PROFILES", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.setattr("click.get_app_dir", lambda name: str(tmp_path / "config" / name))

    def call(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as stop:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return int(stop.value.code or 0), out, err

    return call
