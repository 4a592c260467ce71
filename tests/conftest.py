"""Property tests run the same examples everywhere, without a clock."""

from hypothesis import settings

settings.register_profile("planner", derandomize=True, deadline=None, database=None)
settings.load_profile("planner")
