"""A recording as text: a line for each record, its proof, its memory, and what is missing."""

from functools import reduce
from typing import TYPE_CHECKING

from pellucid.attention.limits import readable_bytes
from pellucid.lens.record import Proof, Record
from pellucid.lens.visibility import bands

if TYPE_CHECKING:
    from pellucid.lens.recording import Recording

__all__ = ["summary"]


def summary(recording: "Recording") -> str:
    records = recording.records
    count = len(records)
    title = f"{recording.model}: {count} attention call{'' if count == 1 else 's'} recorded"
    missing = [f"in pieces: {name} ({reason})" for name, reason in recording.in_pieces.items()]
    missing += [f"unseen: {name} ({reason})" for name, reason in recording.unseen.items()]
    if not records:
        return "\n".join([title, *missing])
    rows = [("name", "heads", "queries", "keys", "mask", "window"), *map(_row, records)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    proofs = list(recording.proof.values())
    if proofs:
        unproven = sum(not proof.rows for proof in proofs)
        note = f"; {unproven} modules not proven" if unproven else ""
        lines.append(f"proven: {reduce(Proof.joined, proofs)}{note}")
    dense = sum(record.shape.numel() * 4 for record in records)
    held = recording.bytes_held()
    footer = f"holds {readable_bytes(held)}"
    if dense > held:
        footer += f"; all weights as tensors would be {readable_bytes(dense)}"
    return "\n".join([title, *lines, footer, *missing])


def _row(record: Record) -> tuple[str, ...]:
    *_, heads, queries, keys = record.shape
    kv_heads = record.keys.outer[-1]
    mask = "none" if record.mask is None else str(record.mask)
    if record.kept == "weights":
        kv_heads, mask = heads, "in the weights"
        if record.sink_weights is not None:
            mask += ", without a sink"
    return (
        f"{record.name} (stream {record.stream})" if record.stream else record.name,
        str(heads) if heads == kv_heads else f"{heads}/{kv_heads}",
        str(queries),
        str(keys),
        f"{mask} + bias" if record.biases else mask,
        _window(record),
    )


def _window(record: Record) -> str:
    """The tokens that a query sees through a sliding window, itself included; "-" without one."""
    for band in bands(record.mask):
        if band.left is not None:
            return str(band.left + 1 + (band.right or 0))
    return "-"
