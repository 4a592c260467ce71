"""Write planner/hardware/plausible.toml anew: the lowest and highest value of the catalogue, by class and key.

Run in the top folder: PYTHONPATH=. python .ci/ranges.py
"""

from planner.hardware.loader import builtin_profiles
from planner.hardware.plausible import FILE, derived, dimension_of
from planner.quantities import readable

HEAD = """# What the catalogue has of each class and key, lowest and highest; written by .ci/ranges.py. A figure more than
# `margin` times outside is a fault for planner lint. Rates and sizes of shared parts, power and price are per device.
margin = 10
"""


def text() -> str:
    """The file for the catalogue as it is."""
    lines = [HEAD.rstrip()]
    for sort, keys in derived(builtin_profiles()).items():
        lines.append(f'\n[range."{sort}"]')
        lines += [f"{key} = [{', '.join(_end(key, end) for end in ends)}]" for key, ends in keys.items()]
    return "\n".join(lines) + "\n"


def _end(key: str, value: float) -> str:
    return f'"{readable(value, dimension_of(key))}"'


if __name__ == "__main__":
    FILE.write_text(text(), encoding="utf-8")
