"""A recording as text: a line for each record, its proof, its memory, and what is missing."""

from collections.abc import Mapping, Sequence
from functools import reduce

from pellucid.attention.limits import readable_bytes
from pellucid.lens.record import Proof, Record
from pellucid.lens.visibility import bands


def summary(
    model: str,
    records: Sequence[Record],
    proofs: Sequence[Proof],
    bytes_held: int,
    in_pieces: Mapping[str, str],
    unseen: Mapping[str, str],
) -> str:
    """The text of a recording with these properties."""
    count = len(records)
    title = f"{model}: {count} attention call{'' if count == 1 else 's'} recorded"
    missing = [f"in pieces: {name} ({reason})" for name, reason in in_pieces.items()]
    missing += [f"unseen: {name} ({reason})" for name, reason in unseen.items()]
    if not records:
        return "\n".join([title, *missing])
    rows = [("name", "heads", "queries", "keys", "mask", "window"), *map(_row, records)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if proofs:
        unproven = sum(not proof.rows for proof in proofs)
        note = f"; {unproven} modules not proven" if unproven else ""
        lines.append(f"proven: {reduce(Proof.joined, proofs)}{note}")
    dense = sum(record.shape.numel() * 4 for record in records)
    footer = f"holds {readable_bytes(bytes_held)}"
    if dense > bytes_held:
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
