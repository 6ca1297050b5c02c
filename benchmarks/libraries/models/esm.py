"""Protein language models of fair-esm."""

from argparse import Namespace
from collections.abc import Iterator

import esm
from torch import nn

from benchmarks.libraries.case import BATCH, Case, on, token_ids

DISTRIBUTIONS = ("fair-esm",)
AMINO_ACIDS = 24


def esm2() -> nn.Module:
    model: nn.Module = esm.ESM2(num_layers=2, embed_dim=32, attention_heads=4)
    return model


def esm1b() -> nn.Module:
    sizes = {"layers": 2, "embed_dim": 32, "ffn_embed_dim": 64, "attention_heads": 4}
    arguments = Namespace(
        **sizes,
        arch="roberta_large",
        max_positions=64,
        emb_layer_norm_before=True,
        token_dropout=True,
        final_bias=True,
    )
    model: nn.Module = esm.ProteinBertModel(arguments, esm.Alphabet.from_architecture("ESM-1b"))
    return model


def msa() -> nn.Module:
    sizes = {"layers": 2, "embed_dim": 32, "ffn_embed_dim": 64, "attention_heads": 4}
    arguments = Namespace(
        **sizes,
        max_positions=64,
        embed_positions_msa=True,
        embed_positions_msa_dim=32,
        dropout=0.0,
        attention_dropout=0.0,
        activation_dropout=0.0,
        max_tokens=2**14,
        max_tokens_per_msa=2**14,
    )
    alphabet = esm.Alphabet.from_architecture("msa_transformer")
    model: nn.Module = esm.MSATransformer(arguments, alphabet)
    return model


def cases() -> Iterator[Case]:
    ids = token_ids(11, AMINO_ACIDS)
    padded = ids.clone()
    padded[1, 7:] = 1
    alignment = ids.view(1, BATCH, -1).repeat(1, 2, 1)
    yield Case("ESM-2", esm2, on(ids))
    yield Case("ESM-2, padded", esm2, on(padded))
    yield Case("ESM-2, need_head_weights", esm2, on(ids, need_head_weights=True))
    yield Case("ESM-1b", esm1b, on(ids))
    yield Case("MSA Transformer", msa, on(alignment))
