"""Attention as textbooks and tutorials write it."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor, einsum, nn, softmax
from torch.nn import functional as F

from benchmarks.libraries.case import Case, on, vectors

WIDTH, HEADS, LENGTH = 32, 4, 9
DISTRIBUTIONS = ("torch",)


class Projections(nn.Module):
    """Query, key, value and output."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value, self.output = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.dropout = nn.Dropout(0.1)


class CausalSelfAttention(nn.Module):
    """As in minGPT."""

    def __init__(self) -> None:
        super().__init__()
        self.c_attn, self.c_proj = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.attn_dropout = nn.Dropout(0.1)
        self.register_buffer("bias", torch.tril(torch.ones(LENGTH, LENGTH))[None, None])

    def forward(self, x: Tensor) -> Tensor:
        B, T, C = x.size()
        q, k, v = self.c_attn(x).split(C, dim=2)
        q, k, v = (part.view(B, T, HEADS, C // HEADS).transpose(1, 2) for part in (q, k, v))
        att = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        att = att.masked_fill(self.get_buffer("bias")[:, :, :T, :T] == 0, float("-inf"))
        att = F.softmax(att, dim=-1)
        att = self.attn_dropout(att)
        y = (att @ v).transpose(1, 2).contiguous().view(B, T, C)
        out: Tensor = self.c_proj(y)
        return out


class Annotated(Projections):
    """As in "The Annotated Transformer": a function of its own, a mask of -1e9."""

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            layer(x).view(len(x), -1, HEADS, WIDTH // HEADS).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mask = torch.ones(x.shape[1], x.shape[1]).tril()
        y, _ = attend(query, key, value, mask, self.dropout)
        out: Tensor = self.output(y.transpose(1, 2).flatten(2))
        return out


def attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, dropout: nn.Module
) -> tuple[Tensor, Tensor]:
    scores = torch.matmul(query, key.transpose(-2, -1)) / math.sqrt(query.size(-1))
    scores = scores.masked_fill(mask == 0, -1e9)
    p_attn = dropout(scores.softmax(dim=-1))
    return torch.matmul(p_attn, value), p_attn


class Einsum(Projections):
    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (HEADS, -1)) for layer in (self.query, self.key, self.value)
        )
        scores = torch.einsum("bihd,bjhd->bhij", q, k) * (WIDTH // HEADS) ** -0.5
        weights = self.dropout(torch.softmax(scores, dim=-1))
        out: Tensor = self.output(torch.einsum("bhij,bjhd->bihd", weights, v).flatten(2))
        return out


class ImportedByName(Projections):
    """With `from torch import einsum, softmax`."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = einsum("b h i d, b h j d -> b h i j", q * (WIDTH // HEADS) ** -0.5, k)
        weights = softmax(scores, -1)
        out: Tensor = self.output(einsum("b h i j, b h j d -> b i h d", weights, v).flatten(2))
        return out


class SingleHead(Projections):
    """One head, one text, no batch."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)
        weights = torch.softmax(q @ k.T / k.shape[-1] ** 0.5, dim=-1)
        context: Tensor = weights @ v
        return context


class Batched(Projections):
    """Heads folded into the batch."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(-1, (HEADS, -1)).transpose(1, 2).flatten(0, 1)
            for layer in (self.query, self.key, self.value)
        )
        return self.joined(torch.bmm(self.weights(q, k), v))

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        scores = torch.bmm(q, k.transpose(1, 2)) / math.sqrt(q.shape[-1])
        return F.dropout(F.softmax(scores, dim=-1), 0.1, self.training)

    def joined(self, context: Tensor) -> Tensor:
        out: Tensor = self.output(context.unflatten(0, (-1, HEADS)).transpose(1, 2).flatten(2))
        return out


class BatchedWithMask(Batched):
    """With torch.baddbmm, which adds the mask to the scores."""

    def weights(self, q: Tensor, k: Tensor) -> Tensor:
        hidden = torch.full((q.shape[1], k.shape[1]), -torch.inf).triu(1)
        scores = torch.baddbmm(hidden.expand(len(q), -1, -1), q, k.mT, alpha=q.shape[-1] ** -0.5)
        return scores.softmax(-1)


class ModuleSoftmax(Projections):
    """With nn.Softmax, and scores that are changed in place."""

    def __init__(self) -> None:
        super().__init__()
        self.softmax = nn.Softmax(dim=-1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)
        scores = q @ k.transpose(-2, -1)
        scores /= k.shape[-1] ** 0.5
        scores.masked_fill_(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1), -torch.inf)
        out: Tensor = self.output(self.dropout(self.softmax(scores)) @ v)
        return out


class ByHand(Projections):
    """A softmax of exponentials and their sum."""

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.query(x), self.key(x), self.value(x)
        scores = q @ k.mT / k.shape[-1] ** 0.5
        raised = torch.exp(scores - scores.amax(-1, keepdim=True))
        out: Tensor = self.output(raised / raised.sum(-1, keepdim=True) @ v)
        return out


class Additive(Projections):
    """Bahdanau's: one query over all positions, values summed up without a matrix product."""

    def __init__(self) -> None:
        super().__init__()
        self.score = nn.Linear(WIDTH, 1)

    def forward(self, x: Tensor) -> Tensor:
        query, keys = self.query(x[:, -1:]), self.key(x)
        scores = self.score(torch.tanh(query + keys)).squeeze(-1)
        weights = F.softmax(scores, dim=1)
        context: Tensor = (weights.unsqueeze(-1) * self.value(x)).sum(dim=1)
        return context


class Channels(nn.Module):
    """As in SAGAN: over the positions of an image, values on the left of the product."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.value = (nn.Conv1d(WIDTH, WIDTH, 1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        energy = torch.bmm(self.query(x).permute(0, 2, 1), self.key(x))
        attention = torch.softmax(energy, dim=-1)
        return x + torch.bmm(self.value(x), attention.permute(0, 2, 1))


def cases() -> Iterator[Case]:
    kinds = {
        "minGPT": CausalSelfAttention,
        "Annotated Transformer": Annotated,
        "torch.einsum": Einsum,
        "einsum and softmax imported by name": ImportedByName,
        "torch.bmm": Batched,
        "torch.baddbmm": BatchedWithMask,
        "nn.Softmax, scores changed in place": ModuleSoftmax,
        "softmax by exp and sum": ByHand,
        "additive, (weights * values).sum": Additive,
        "SAGAN, values on the left": Channels,
    }
    for name, kind in kinds.items():
        yield Case(name, kind, on(vectors(LENGTH, WIDTH)))
    yield Case("one head, no batch", SingleHead, on(vectors(LENGTH, WIDTH)[0]))
