"""A model that attends with the queries and keys it is given, and words that it reads."""

import torch
import torch.nn.functional as F
from torch import nn

import pellucid

TOKENS = ["[CLS]", "the", "cat", ",", "sat", "on", "mat", "[SEP]", "##s", "."]


class Tokenizer:
    def convert_ids_to_tokens(self, ids):
        return [TOKENS[number] for number in ids]


class Model(nn.Module):
    """Reads tokens, and attends with the queries and keys that it is given."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(len(TOKENS), 1)

    def forward(self, ids, query, key, **options):
        self.embedding(ids)
        return F.scaled_dot_product_attention(query, key, key, enable_gqa=True, **options)


def watched(ids, query, key, tokenizer=None, **options):
    model = Model()
    with torch.no_grad(), pellucid.watch(model, tokenizer=tokenizer) as seen:
        model(ids, query, key, **options)
    assert len(seen.records) == 1, seen.unseen
    return seen


def some(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)


def pointing(targets, n):
    """Queries and keys of heads of which query i looks at targets[head][i] alone."""
    key = 7 * torch.eye(n)[None, None] * n**0.25
    query = torch.stack([key[0, 0, torch.tensor(target)] for target in targets])[None]
    return query, key


IDS = torch.tensor([[0, 1, 2, 4, 5, 1, 6, 3, 1, 2, 4, 9, 7]])
