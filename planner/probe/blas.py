"""How many threads the products of numpy run on, where its OpenBLAS can be told."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

_SETTERS = [f"{begin}openblas_set_num_threads{end}" for begin in ("scipy_", "") for end in ("64_", "")]


@cache
def _library() -> tuple[Any, Any] | None:
    """The functions that set and get the threads of the OpenBLAS that numpy brought along."""
    import numpy

    folder = Path(numpy.__file__).resolve().parent
    for file in sorted([*(folder.parent / "numpy.libs").glob("*openblas*"), *(folder / ".dylibs").glob("*openblas*")]):
        try:
            library = ctypes.CDLL(str(file))
        except OSError:
            continue
        for name in _SETTERS:
            if hasattr(library, name) and hasattr(library, name.replace("_set_", "_get_")):
                return getattr(library, name), getattr(library, name.replace("_set_", "_get_"))
    return None


def name() -> str:
    """What numpy multiplies with, as it says itself."""
    import numpy

    try:
        found = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{found['name']} {found['version']}"
    except (KeyError, TypeError):
        return "unknown BLAS"


@contextmanager
def threads(number: int) -> Iterator[bool]:
    """While inside, products run on so many threads; whether that could be had."""
    found = _library()
    if found is None:
        yield False
        return
    put, get = found
    before = get()
    put(number)
    try:
        yield True
    finally:
        put(before)
