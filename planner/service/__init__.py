"""The planner as a service: HTTP in front of a few worker processes. Needs the extra ``serve``."""

from planner.service.serve import check_extra, serve
from planner.service.settings import Settings

__all__ = ["Settings", "check_extra", "serve"]
