"""How context and logsumexp are computed: by a fused kernel, or block by block.

A backend is a module with two functions:

    refuse(scores, value, dropout) -> str | None          why it cannot compute this
    forward(scores, value, dropout) -> (context, logsumexp, kernel)

with value (batch, kv_heads or heads, keys, value_dim), context (batch, heads, queries, value_dim)
in value's dtype and logsumexp (batch, heads, queries) in `scores.dtype`, both without the sinks;
kernel names what ran, for people to read.
"""

from types import ModuleType

from torch import Tensor

from pellucid.attention.backends import blockwise, reference, sdpa
from pellucid.attention.scores import Scores
from pellucid.errors import BackendError

BACKENDS: dict[str, ModuleType] = {"sdpa": sdpa, "blockwise": blockwise, "reference": reference}
"""In the order in which "auto" prefers them."""


def choose(name: str, scores: Scores, value: Tensor, dropout: float) -> ModuleType:
    """The backend of that name, or for "auto" the first that can.

    Raises:
        BackendError: the name is unknown, or that backend cannot do what is asked.
    """
    if name == "auto":
        return next(b for b in BACKENDS.values() if b.refuse(scores, value, dropout) is None)
    if name not in BACKENDS:
        known = ", ".join(["auto", *BACKENDS])
        raise BackendError(f"backend must be one of {known}; got {name!r}")
    reason = BACKENDS[name].refuse(scores, value, dropout)
    if reason is not None:
        able = [n for n, b in BACKENDS.items() if b.refuse(scores, value, dropout) is None]
        raise BackendError(f"backend {name!r} cannot do this: {reason}; {', '.join(able)} can")
    return BACKENDS[name]
