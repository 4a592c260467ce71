"""Property tests run the same examples everywhere, without a clock."""

import os

from hypothesis import settings

settings.register_profile("planner", derandomize=True, deadline=None, database=None)
settings.load_profile("planner")
os.environ.pop("PLANNER_PROFILES", None)
