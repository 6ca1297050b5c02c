"""Experts: each token goes through those that the router gives it, and through no other."""

import pytest
import torch
from torch.nn import functional as F

from pellucid.layers.feed_forward import Experts, gated
from pellucid.models import Config

TOKENS, WIDTH = 11, 13


def experts(**changes):
    torch.manual_seed(3)
    sizes = {"width": WIDTH, "heads": 1, "hidden": 7, "experts": 5, "experts_used": 3}
    sizes |= {"position": "none", "activation": "silu", "gated": True}
    config = Config(kind="decoder", vocabulary=17, **{**sizes, **changes})
    part = Experts(config)
    for parameter in part.parameters():
        torch.nn.init.normal_(parameter)
    return part.double().eval()


def one_by_one(part, x, normalised):
    """The formula, a token and an expert at a time."""
    rows = []
    for token in x:
        shares = torch.softmax(part.router(token), -1)
        chosen = shares.argsort(descending=True)[:3]
        weights = shares[chosen] / (shares[chosen].sum() if normalised else 1)
        row = torch.zeros(WIDTH, dtype=x.dtype)
        for weight, expert in zip(weights, chosen, strict=True):
            gate, up = (
                stack.weight[expert] @ token + stack.bias[expert]
                for stack in (part.gates, part.ups)
            )
            down = part.downs.weight[expert] @ (F.silu(gate) * up) + part.downs.bias[expert]
            row += weight * down
        if part.shared is not None:
            row += torch.sigmoid(part.shared_gate(token)) * part.shared(token)
        rows.append(row)
    return torch.stack(rows)


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("shared", [0, 3])
def test_the_output_is_that_of_each_token_s_experts(normalised, shared):
    part = experts(experts_normalised=normalised, shared_hidden=shared)
    x = torch.randn(TOKENS, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(part(x), one_by_one(part, x, normalised))
        alone = torch.cat([part(token.view(1, 1, WIDTH)).view(1, WIDTH) for token in x])
        torch.testing.assert_close(part(x), alone)


def test_an_expert_that_no_token_has_does_not_matter():
    part = experts()
    x = torch.randn(2, 1, WIDTH, dtype=torch.float64)
    with torch.no_grad():
        before = part(x)
        used = torch.softmax(part.router(x.view(2, WIDTH)), -1).topk(3).indices.flatten().tolist()
        idle = sorted(set(range(5)) - set(used))
        assert idle
        part.ups.weight[idle] = torch.nan
        assert torch.equal(part(x), before)


def test_bounds_and_the_offset_of_the_gate():
    """Worked out by hand: a gate is bounded from above only."""
    part = experts(experts=1, experts_used=1, feed_clamp=2.0, up_offset=1.0)
    gate, up = torch.tensor([[3.0, -9.0, 1.0]]), torch.tensor([[5.0, -4.0, 0.5]])
    expected = F.silu(torch.tensor([[2.0, -9.0, 1.0]])) * torch.tensor([[3.0, -1.0, 1.5]])
    torch.testing.assert_close(gated(gate, up, "silu", 2.0, 1.0), expected)
    assert (part.clamp, part.offset) == (2.0, 1.0)
