"""One head of self-attention, twice: with bare matrices, and with linear layers.

Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1, equation 1, after three
projections that train. The two classes compute the same thing; they differ in how the matrices
are stored (`x @ W` beside `x @ weight.T`) and in how they start.
"""

import torch
from torch import Tensor, nn

from pellucid.attention import attention, masks
from pellucid.attention.weights import AttentionWeights
from pellucid.layers import arguments


def _one_head(
    query: Tensor, key: Tensor, value: Tensor, causal: bool
) -> tuple[Tensor, AttentionWeights]:
    """Attention with a heads axis of 1 put in before and taken out of the context after."""
    context, weights = attention(
        query.unsqueeze(-3),
        key.unsqueeze(-3),
        value.unsqueeze(-3),
        masks.causal() if causal else None,
    )
    return context.squeeze(-3), weights


class BareSelfAttention(nn.Module):
    """One head of self-attention with three bare matrices: nothing between you and the formula.

        query, key, value = x @ W_query, x @ W_key, x @ W_value
        weights = softmax(query @ key.T / sqrt(d_out))
        context = weights @ value

    The matrices start uniform in [0, 1), drawn in the order query, key, value: good for
    following the numbers by hand. To train, prefer `SelfAttention`.
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        *,
        causal: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Draw the three matrices.

        Args:
            d_in: width of an encoding.
            d_out: width of a query, a key, a value and of the context.
            causal: each token sees itself and those before it only.
            device: where the parameters live.
            dtype: their floating dtype.

        Raises:
            ArgumentError: a width below 1.
            TypeMismatchError: a width that is not an int.
        """
        super().__init__()
        self.d_in = arguments.positive_size("d_in", d_in)
        self.d_out = arguments.positive_size("d_out", d_out)
        self.causal = causal
        self.W_query = nn.Parameter(torch.rand(d_in, d_out, device=device, dtype=dtype))
        self.W_key = nn.Parameter(torch.rand(d_in, d_out, device=device, dtype=dtype))
        self.W_value = nn.Parameter(torch.rand(d_in, d_out, device=device, dtype=dtype))

    def forward(self, x: Tensor) -> tuple[Tensor, AttentionWeights]:
        """Mix the tokens of `x`.

        Args:
            x: encodings, (..., tokens, d_in).

        Returns:
            The context (..., tokens, d_out), and the lazy weights (..., 1, tokens, tokens):
            weights always have a heads axis, here of size 1.

        Raises:
            ShapeError: fewer than two dimensions, or a width other than d_in.
            TypeMismatchError: not a tensor, or another dtype or device than the parameters.
        """
        arguments.encodings("x", x, self.d_in, "d_in", self.W_query)
        return _one_head(x @ self.W_query, x @ self.W_key, x @ self.W_value, self.causal)

    def extra_repr(self) -> str:
        return f"d_in={self.d_in}, d_out={self.d_out}, causal={self.causal}"


class SelfAttention(nn.Module):
    """One head of self-attention with three linear layers.

        query, key, value = W_query(x), W_key(x), W_value(x)      each x @ weight.T (+ bias)
        weights = softmax(query @ key.T / sqrt(d_out))
        context = weights @ value

    The layers are made in the order query, key, value and start as `torch.nn.Linear` does,
    uniform in +-1/sqrt(d_in), which trains better than `BareSelfAttention`'s [0, 1).
    """

    def __init__(
        self,
        d_in: int,
        d_out: int,
        bias: bool = False,
        *,
        causal: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Make the three linear layers.

        Args:
            d_in: width of an encoding.
            d_out: width of a query, a key, a value and of the context.
            bias: each projection also adds a vector that trains.
            causal: each token sees itself and those before it only.
            device: where the parameters live.
            dtype: their floating dtype.

        Raises:
            ArgumentError: a width below 1.
            TypeMismatchError: a width that is not an int.
        """
        super().__init__()
        self.d_in = arguments.positive_size("d_in", d_in)
        self.d_out = arguments.positive_size("d_out", d_out)
        self.causal = causal
        self.W_query = nn.Linear(d_in, d_out, bias=bias, device=device, dtype=dtype)
        self.W_key = nn.Linear(d_in, d_out, bias=bias, device=device, dtype=dtype)
        self.W_value = nn.Linear(d_in, d_out, bias=bias, device=device, dtype=dtype)

    @classmethod
    def from_bare(cls, bare: BareSelfAttention) -> "SelfAttention":
        """The same layer in linear form: each weight is the transpose of the bare matrix."""
        matrix = bare.W_query
        layer = cls(
            bare.d_in, bare.d_out, causal=bare.causal, device=matrix.device, dtype=matrix.dtype
        )
        with torch.no_grad():
            layer.W_query.weight.copy_(bare.W_query.T)
            layer.W_key.weight.copy_(bare.W_key.T)
            layer.W_value.weight.copy_(bare.W_value.T)
        return layer

    def forward(self, x: Tensor) -> tuple[Tensor, AttentionWeights]:
        """Mix the tokens of `x`.

        Args:
            x: encodings, (..., tokens, d_in).

        Returns:
            The context (..., tokens, d_out), and the lazy weights (..., 1, tokens, tokens):
            weights always have a heads axis, here of size 1.

        Raises:
            ShapeError: fewer than two dimensions, or a width other than d_in.
            TypeMismatchError: not a tensor, or another dtype or device than the parameters.
        """
        arguments.encodings("x", x, self.d_in, "d_in", self.W_query.weight)
        return _one_head(self.W_query(x), self.W_key(x), self.W_value(x), self.causal)

    def extra_repr(self) -> str:
        return f"causal={self.causal}"
