"""One head of self-attention in two forms: with bare matrices, and with linear layers.

Vaswani et al. 2017, "Attention Is All You Need", section 3.2.1, equation 1, after three
trained projections. The two classes compute the same; they differ in how the matrices are stored
(`x @ W` and `x @ weight.T`) and initialised.
"""

import torch
from torch import Tensor, nn

from pellucid.attention import attention, masks
from pellucid.attention.weights import AttentionWeights
from pellucid.layers import arguments


class OneHead(nn.Module):
    """One head of self-attention; the subclasses project."""

    def __init__(self, d_in: int, d_out: int, causal: bool) -> None:
        super().__init__()
        self.d_in = arguments.positive_size("d_in", d_in)
        self.d_out = arguments.positive_size("d_out", d_out)
        self.causal = causal

    def projections(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each (..., tokens, d_out)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> tuple[Tensor, AttentionWeights]:
        """Attend from each token of `x` to its tokens.

        Args:
            x: encodings, (..., tokens, d_in).

        Returns:
            The context (..., tokens, d_out), and the lazy weights (..., 1, tokens, tokens):
            weights always have a heads axis, here of size 1.

        Raises:
            ShapeError: fewer than two dimensions, or a width other than d_in.
            TypeMismatchError: not a tensor, or another dtype or device than the parameters.
        """
        arguments.encodings("x", x, self.d_in, "d_in", next(self.parameters()))
        query, key, value = (part.unsqueeze(-3) for part in self.projections(x))
        mask = masks.causal() if self.causal else None
        context, weights = attention(query, key, value, mask)
        return context.squeeze(-3), weights


class BareSelfAttention(OneHead):
    """One head of self-attention with three bare matrices: the formula as written.

        query, key, value = x @ W_query, x @ W_key, x @ W_value
        weights = softmax(query @ key.T / sqrt(d_out))
        context = weights @ value

    The matrices are drawn uniformly from [0, 1), in the order query, key, value: numbers that are
    easy to follow by hand. To train, prefer `SelfAttention`.
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
            causal: each token sees only itself and the tokens before it.
            device: where the parameters live.
            dtype: their floating dtype.

        Raises:
            ArgumentError: a width below 1.
            TypeMismatchError: a width that is not an int.
        """
        super().__init__(d_in, d_out, causal)
        self.W_query = nn.Parameter(torch.rand(d_in, d_out, device=device, dtype=dtype))
        self.W_key = nn.Parameter(torch.rand(d_in, d_out, device=device, dtype=dtype))
        self.W_value = nn.Parameter(torch.rand(d_in, d_out, device=device, dtype=dtype))

    def projections(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return x @ self.W_query, x @ self.W_key, x @ self.W_value

    def extra_repr(self) -> str:
        return f"d_in={self.d_in}, d_out={self.d_out}, causal={self.causal}"


class SelfAttention(OneHead):
    """One head of self-attention with three linear layers.

        query, key, value = W_query(x), W_key(x), W_value(x)      each x @ weight.T (+ bias)
        weights = softmax(query @ key.T / sqrt(d_out))
        context = weights @ value

    The layers are created in the order query, key, value and initialised as `torch.nn.Linear` is,
    uniform in +-1/sqrt(d_in), which trains better than the [0, 1) of `BareSelfAttention`.
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
        """Create the three linear layers.

        Args:
            d_in: width of an encoding.
            d_out: width of a query, a key, a value and of the context.
            bias: each projection also adds a trained vector.
            causal: each token sees only itself and the tokens before it.
            device: where the parameters live.
            dtype: their floating dtype.

        Raises:
            ArgumentError: a width below 1.
            TypeMismatchError: a width that is not an int.
        """
        super().__init__(d_in, d_out, causal)
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

    def projections(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.W_query(x), self.W_key(x), self.W_value(x)

    def extra_repr(self) -> str:
        return f"causal={self.causal}"
