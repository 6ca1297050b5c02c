"""How much memory a result may take by default."""

import torch

from pellucid.errors import TooLargeError

DENSE_LIMIT = 2**30
"""Most bytes of a result of `dense()` by default: 1 GiB."""


def check_size(what: str, shape: torch.Size, dtype: torch.dtype, limit: int | None) -> None:
    """Refuse a result of more than `limit` bytes, and say how many it needs."""
    needed = shape.numel() * dtype.itemsize
    if limit is not None and needed > limit:
        raise TooLargeError(
            f"{what} of shape {tuple(shape)} needs {readable_bytes(needed)}, above the limit of "
            f"{readable_bytes(limit)}; index a part, or pass limit=None"
        )


def readable_bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            break
        count, unit = count / 1024, "TiB"
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
