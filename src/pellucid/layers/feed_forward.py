"""The feed-forward part of a block (Vaswani et al. 2017, section 3.3), or experts in its place."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pellucid.layers.bfloat16 import lowered, product
from pellucid.layers.config import Config
from pellucid.layers.fusible import fusible, is_plain
from pellucid.layers.matrix_vector import linear

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "relu_squared": lambda x: F.relu(x).square(),
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "quick_gelu": lambda x: x * torch.sigmoid(1.702 * x),
    "silu": F.silu,
}


@fusible
class FeedForward(nn.Module):
    """down(activation(up(x))), or down(activation(gate(x)) * up(x)), for each token."""

    def __init__(self, config: Config, hidden: int | None = None) -> None:
        super().__init__()
        hidden = config.hidden if hidden is None else hidden
        bias = config.bias if config.hidden_bias is None else config.hidden_bias
        self.gate = nn.Linear(config.width, hidden, bias) if config.gated else None
        self.up = nn.Linear(config.width, hidden, bias)
        self.down = nn.Linear(hidden, config.width, config.bias)
        self.kind, self.clamp, self.offset = (
            config.activation,
            config.feed_clamp,
            config.up_offset,
        )

    def forward(self, x: Tensor) -> Tensor:
        is_usual = self.kind == "silu" and self.clamp is None and not self.offset
        x = lowered(x, self.gate, self.up, self.down)
        if self.gate is None:
            inner = ACTIVATIONS[self.kind](product(self.up, x))
        elif is_usual and not torch.is_grad_enabled() and is_plain(self.gate):
            # In place: allocating so wide a tensor costs more than the arithmetic.
            inner = F.silu(product(self.gate, x), inplace=True).mul_(product(self.up, x))
        else:
            gate, up = product(self.gate, x), product(self.up, x)
            inner = gated(gate, up, self.kind, self.clamp, self.offset)
        return product(self.down, inner, is_last=True)


def gated(gate: Tensor, up: Tensor, kind: str, clamp: float | None, offset: float) -> Tensor:
    """activation(gate) * (up + offset), both bounded by `clamp` if it is given.

    Args:
        gate: (..., hidden); below it has no bound.
        up: (..., hidden).
        kind: of activation.
        clamp: above 0.
        offset: 1 in gpt-oss.
    """
    if clamp is not None:
        gate, up = gate.clamp(max=clamp), up.clamp(-clamp, clamp)
    return ACTIVATIONS[kind](gate) * (up + offset if offset else up)


class Experts(nn.Module):
    """Feed-forward parts of which a router picks a few for each token (Shazeer et al. 2017).

        chosen, weights = the largest of softmax(router(x))
        output = sum(weights[i] * expert[chosen[i]](x)) + sigmoid(shared_gate(x)) * shared(x)

    The last term only where the config has such a part, which all tokens use.
    """

    def __init__(self, config: Config) -> None:
        super().__init__()
        width, experts = config.width, config.experts
        hidden = config.hidden if config.expert_hidden is None else config.expert_hidden
        self.router = nn.Linear(width, experts, config.bias)
        self.gates = StackedLinear(experts, width, hidden, config.bias) if config.gated else None
        self.ups = StackedLinear(experts, width, hidden, config.bias)
        self.downs = StackedLinear(experts, hidden, width, config.bias)
        has_shared = config.shared_hidden > 0
        self.shared = FeedForward(config, config.shared_hidden) if has_shared else None
        self.shared_gate = nn.Linear(width, 1, False) if has_shared else None
        self.used, self.is_normalised = config.experts_used, config.experts_normalised
        self.kind, self.clamp, self.offset = (
            config.activation,
            config.feed_clamp,
            config.up_offset,
        )

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) to the same shape."""
        tokens = x.flatten(0, -2)
        scores = self.router(tokens)
        # At least in float32, since a token's experts depend on small differences.
        shares = scores.softmax(-1, torch.promote_types(x.dtype, torch.float32))
        weights, chosen = shares.topk(self.used, -1)
        if self.is_normalised:
            weights = weights / weights.sum(-1, keepdim=True)
        output = self._mixed(tokens, weights.to(x.dtype), chosen)
        if self.shared is not None and self.shared_gate is not None:
            output = output + torch.sigmoid(self.shared_gate(tokens)) * self.shared(tokens)
        return output.view(x.shape)

    def _mixed(self, tokens: Tensor, weights: Tensor, chosen: Tensor) -> Tensor:
        """The weighted sum of each token's experts, (tokens, width).

        Args:
            tokens: (tokens, width).
            weights: (tokens, used).
            chosen: (tokens, used), the experts of each token.
        """
        # Pairs of a token and one of its experts, those of the same expert together, so that the
        # weights of each expert are read once.
        order = chosen.flatten().argsort(stable=True)
        token = order // self.used
        counts = chosen.flatten().bincount(minlength=len(self.ups.weight)).tolist()
        parts = tokens[token].split(counts)
        made = [self._expert(part, i) for i, part in enumerate(parts) if len(part)]
        weighted = torch.cat(made) * weights.flatten()[order].unsqueeze(-1)
        return torch.zeros_like(tokens).index_add(0, token, weighted)

    def _expert(self, x: Tensor, number: int) -> Tensor:
        inner = self.ups(x, number)
        if self.gates is None:
            inner = ACTIVATIONS[self.kind](inner)
        else:
            inner = gated(self.gates(x, number), inner, self.kind, self.clamp, self.offset)
        output: Tensor = self.downs(inner, number)
        return output


class StackedLinear(nn.Module):
    """A linear layer for each expert."""

    def __init__(self, experts: int, width: int, out: int, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(experts, out, width))
        self.bias = nn.Parameter(torch.zeros(experts, out)) if bias else None

    def forward(self, x: Tensor, expert: int) -> Tensor:
        """(tokens, width) to (tokens, out), by one of the experts."""
        bias = None if self.bias is None else self.bias[expert]
        return linear(x, self.weight[expert], bias)

    def extra_repr(self) -> str:
        experts, out, width = self.weight.shape
        return (
            f"experts={experts}, in_features={width}, out_features={out}, "
            f"bias={self.bias is not None}"
        )
