"""Property tests run the same examples everywhere, without a clock."""

import os

from hypothesis import settings

settings.register_profile("planner", derandomize=True, deadline=None, database=None)
settings.load_profile("planner")
for _name in ("PLANNER_PROFILES", "COLUMNS"):  # pytest-xdist sets the latter in its workers
    os.environ.pop(_name, None)
