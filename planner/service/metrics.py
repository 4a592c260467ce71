"""Counters of the service in the text format of Prometheus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from planner.version import __version__

BOUNDS_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper ends of the histogram of response times."""
MEDIA = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counts of one service, from one event loop."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self.cancelled = 0
        self.replaced: dict[str, int] = {}
        self._buckets: dict[str, list[int]] = {}
        self._seconds: dict[str, float] = {}

    def observe(self, path: str, status: int, seconds: float) -> None:
        """A response was sent."""
        self.requests[path, status] += 1
        buckets = self._buckets.setdefault(path, [0] * (len(BOUNDS_S) + 1))
        buckets[next((i for i, bound in enumerate(BOUNDS_S) if seconds <= bound), len(BOUNDS_S))] += 1
        self._seconds[path] = self._seconds.get(path, 0.0) + seconds

    def text(self, state: dict[str, int]) -> str:
        """All of it; ``state``: gauges of now."""
        lines: list[str] = []

        def family(name: str, kind: str, what: str, rows: Sequence[tuple[str, float]]) -> None:
            lines.extend((f"# HELP planner_{name} {what}", f"# TYPE planner_{name} {kind}"))
            lines.extend(f"planner_{name}{labels} {value:.12g}" for labels, value in rows)

        family("info", "gauge", "Version.", [(f'{{version="{__version__}"}}', 1)])
        counted = [(f'{{path="{path}",status="{status}"}}', n) for (path, status), n in sorted(self.requests.items())]
        family("requests_total", "counter", "Responses sent.", counted)
        family("cancelled_total", "counter", "Jobs stopped because the client was gone.", [("", self.cancelled)])
        replaced = [(f'{{reason="{reason}"}}', n) for reason, n in sorted(self.replaced.items())]
        family("workers_replaced_total", "counter", "Workers ended and started anew.", replaced)
        for name, value in state.items():
            family(name, "gauge", f"Now: {name.replace('_', ' ')}.", [("", value)])
        lines.extend(("# HELP planner_request_seconds From request to response.", "# TYPE planner_request_seconds histogram"))
        for path, buckets in sorted(self._buckets.items()):
            total = 0
            for bound, count in zip((*map(str, BOUNDS_S), "+Inf"), buckets, strict=True):
                total += count
                lines.append(f'planner_request_seconds_bucket{{path="{path}",le="{bound}"}} {total}')
            lines.append(f'planner_request_seconds_sum{{path="{path}"}} {self._seconds[path]:.6f}')
            lines.append(f'planner_request_seconds_count{{path="{path}"}} {total}')
        return "\n".join(lines) + "\n"
