"""Storage formats of tensors: exact bytes including scales, and what a device without a format stores instead."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import prod

from planner.errors import InputError, nearest


@dataclass(frozen=True)
class Format:
    """How a tensor lies in memory.

    ``bits`` per element; one scale of ``scale_bytes`` per tile of ``tile`` = (rows, columns), where ``None`` means the
    whole side; ``tensor_bytes`` once per matrix. ``compute_dtype`` is what a device must compute in to use it as it is.
    """

    name: str
    bits: int
    compute_dtype: str
    scale_bytes: int = 0
    tile: tuple[int | None, int | None] = (None, None)
    tensor_bytes: int = 0
    source: str = ""

    def bytes_of(self, shape: Sequence[int]) -> int:
        """Bytes of a tensor: the last two sides are a matrix's rows and columns, sides before them count matrices."""
        columns = shape[-1]
        rows = shape[-2] if len(shape) > 1 else 1
        matrices = prod(shape[:-2])
        tiles = _parts(rows, self.tile[0]) * _parts(columns, self.tile[1])
        return matrices * (rows * _parts(columns * self.bits, 8) + tiles * self.scale_bytes + self.tensor_bytes)


def _parts(size: int, tile: int | None) -> int:
    return 1 if tile is None else -(-size // tile)


# Within one width the first is preferred: finer scales come first.
FORMATS: dict[str, Format] = {
    item.name: item
    for item in (
        Format("int4_g32", 4, "int4", 2, (1, 32), source="compressed-tensors pack-quantized, group_size 32, BF16 scales"),
        Format("nvfp4", 4, "fp4", 1, (1, 16), 4, source="NVIDIA NVFP4: E4M3 scale per 16, FP32 scale per tensor"),
        Format("mxfp4", 4, "fp4", 1, (1, 32), source="OCP Microscaling Formats v1.0: E8M0 scale per 32"),
        Format(
            "fp8_block128", 8, "fp8", 4, (128, 128), source="deepseek-ai/DeepSeek-V3 README_WEIGHTS.md: FP32 scale per 128x128"
        ),
        Format("fp8_tensor", 8, "fp8", 4, source="one FP32 scale per matrix"),
        Format("int8_channel", 8, "int8", 4, (1, None), source="one FP32 scale per output row"),
        Format("fp8_block128_e8m0", 8, "fp8", 1, (128, 128), source="DeepSeek-V4 scale_fmt ue8m0: E8M0 scale per 128x128"),
        Format("fp8_block32", 8, "fp8", 1, (32, 32), source="DeepSeek-V4.1: E8M0 scale per 32x32"),
        Format("mxfp8", 8, "fp8", 1, (1, 32), source="OCP Microscaling Formats v1.0: E8M0 scale per 32"),
        Format("fp8_channel", 8, "fp8", 4, (1, None), source="one FP32 scale per output row"),
        Format("bf16", 16, "bf16"),
        Format("fp16", 16, "fp16"),
        Format("fp32", 32, "fp32"),
        Format("int64", 64, "index", source="indices, not parameters: which experts a token goes to"),
    )
}


def format_of(name: str) -> Format:
    """The storage format of that name."""
    try:
        return FORMATS[name]
    except KeyError:
        raise InputError(f"unknown storage format {name[:64]!r}", mend=nearest(name[:64], list(FORMATS))) from None


def convert(name: str, supported: Collection[str], kernels: Collection[str] = ()) -> str:
    """The storage format that weights of format ``name`` take on a device.

    The same if the device computes in its dtype (``supported``) or the runtime has a kernel that dequantises it
    (``kernels``, storage formats); else the narrowest supported format of at least as many bits. FP32 and FP16 tensors:
    FP32 and indices stay as they are everywhere, FP16 stays wherever BF16 is computed, at the same rate.
    """
    stored = format_of(name)
    if (
        stored.compute_dtype in supported
        or name in kernels
        or name in ("fp32", "int64")
        or (name == "fp16" and "bf16" in supported)
    ):
        return name
    candidates = [item for item in FORMATS.values() if item.bits >= stored.bits and item.compute_dtype in supported]
    if not candidates:
        raise InputError(f"no format of at least {stored.bits} bits is computed by this device", where=f"weight format {name}")
    return min(candidates, key=lambda item: item.bits).name
