"""`watch(model, collect=...)` adds up what records of the same calls would say."""

import gc
import weakref
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pellucid
from pellucid.errors import ArgumentError
from pellucid.layers.config import Config
from pellucid.models import Decoder

ALL = ("received", "entropy", "max_logit")


class Attention(nn.Module):
    """Calls torch's own function."""

    def __init__(self) -> None:
        super().__init__()
        self.project, self.seen = nn.Linear(21, 63), list[Any]()

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x).unflatten(-1, (3, 3, 7)).permute(2, 0, 3, 1, 4)
        self.seen.append(weakref.ref(key))
        return F.scaled_dot_product_attention(query, key, value, is_causal=True)


def decoder() -> nn.Module:
    torch.manual_seed(0)
    return Decoder(Config(kind="decoder", vocabulary=31, width=42, layers=2, heads=3, hidden=37))


@pytest.mark.parametrize("make", [Attention, decoder])
def test_what_is_collected_is_what_records_say(make: Any) -> None:
    model = make()
    torch.manual_seed(1)
    texts = [torch.randn(*size, 21) for size in ((2, 11), (3, 13))]
    if make is decoder:
        texts = [torch.randint(31, text.shape[:2]) for text in texts]
    with pellucid.watch(model, collect=ALL) as seen:
        for text in texts:
            model(text).sum().backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    with pellucid.watch(model) as records:
        for text in texts:
            model(text).sum().backward()
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert len(seen) == 0
    assert not seen.unseen
    names = {record.name for record in records.records}
    assert seen.collected.keys() == names
    for name in names:
        weights = [
            record.weights.dense().detach().double()
            for record in records.records
            if record.name == name
        ]
        totals = seen.collected[name]
        assert totals.calls == len(texts) == len(weights)
        entropy = torch.cat([torch.special.entr(w).sum(-1).mT.flatten(0, 1) for w in weights])
        torch.testing.assert_close(totals.entropy, entropy.mean(0), rtol=1e-5, atol=1e-6)
        received = torch.zeros(5, 3, 13, dtype=torch.float64)
        received[:2, :, :11], received[2:] = (w.sum(-2) for w in weights)
        torch.testing.assert_close(totals.received, received.mean(0), rtol=1e-5, atol=1e-6)
        logits = [
            record.weights.masked.dense().detach().amax((-2, -1))
            for record in records.records
            if record.name == name
        ]
        torch.testing.assert_close(
            totals.max_logit, torch.cat(logits).amax(0), rtol=1e-5, atol=1e-6
        )


def test_nothing_of_a_call_stays() -> None:
    model = Attention()
    with pellucid.watch(model, collect=("max_logit",)) as seen:
        for _ in range(3):
            model(torch.randn(2, 5, 21))
        gc.collect()
        assert [key() for key in model.seen] == [None] * 3
    assert repr(seen.collected[""]) == "HeadTotals(3 calls: max_logit (3,))"
    assert seen.collected[""].entropy is None


def test_what_cannot_be_collected_is_said() -> None:
    model = nn.MultiheadAttention(21, 3)
    with pytest.raises(ArgumentError, match="collect must be a tuple of 'received'"):
        pellucid.watch(model, collect=("weights",))

    class Mixing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.tanh(x @ x.mT).softmax(-1) @ x

    with pellucid.watch(mixing := Mixing(), collect=ALL) as seen:
        mixing(torch.randn(2, 3, 5, 7))
    assert not seen.collected
    assert "no query and key give" in seen.unseen[""]
