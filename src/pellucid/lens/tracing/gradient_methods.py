"""Two methods that need gradients of the model as it is: gradient x weights, and Chefer's."""

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from pellucid.attention.scores import BLOCK_NUMBERS
from pellucid.errors import ArgumentError
from pellucid.lens.attention_rollout import chain_of
from pellucid.lens.gradient_attribution import GradientTimesWeights, gradient_times_weights
from pellucid.lens.recorder import watch
from pellucid.lens.recording import Recording
from pellucid.lens.tracing.frozen_hooks import check_evaluates, graph_from_tables
from pellucid.lens.tracing.question import Answer, Question
from pellucid.lens.tracing.shares import Shares


def gradients(question: Question, tokenizer: Any) -> tuple[Answer, Shares]:
    """Each weight times its gradient, summed over layers, heads and queries: see
    `gradient_times_weights`.
    """
    answer, seen = _watched(question, tokenizer)
    shares = Shares.of(seen.latest())
    for product in gradient_times_weights(seen, answer.number):
        with torch.no_grad():
            shares.add(seen.record(product.name), product.received()[0])
    return answer, shares


def chefer(question: Question, tokenizer: Any) -> tuple[Answer, Shares]:
    """Relevance through all layers by positive gradients times weights.

        mixed_l   = mean over heads of max(0, A_l * dLogit/dA_l)
        relevance = (I + mixed_L) ... (I + mixed_1), the row of the token that predicts, less I

    Raises:
        ArgumentError: the model has cross-attention, which has other rules.

    Source: Chefer, Gur and Wolf 2021, "Generic Attention-model Explainability for Interpreting
    Bi-Modal and Encoder-Decoder Transformers", section 3.1, equations 5 and 6.
    """
    answer, seen = _watched(question, tokenizer)
    if any(record.is_cross for record in seen.latest()):
        raise ArgumentError(
            "the method chefer follows self-attention, and this model has cross-attention: use "
            "direct, gradient or lrp"
        )
    names = [record.name for record in chain_of(seen, None)]
    products = {product.name: product for product in gradient_times_weights(seen, answer.number)}
    chain = [products[name] for name in names if name in products]
    # The rows that the last layer's output is used of: one of a decoder, all where they are pooled.
    used = chain[-1].gradient[0].abs().sum((0, 2)).cpu() > 0
    start = used.double() / used.sum()
    flow, shares = start, Shares(torch.zeros_like(start))
    for product in reversed(chain):
        passed = shares.pairs[product.name] = _passed(product, flow).cpu()
        flow = flow + passed.sum(0)
    shares.pairs = {product.name: shares.pairs[product.name] for product in chain}
    shares.heads = {name: passed.sum(-1) for name, passed in shares.pairs.items()}
    shares.tokens = flow - start
    return answer, shares


def _passed(product: GradientTimesWeights, flow: Tensor) -> Tensor:
    """(heads, keys) float64: what relevance of queries, (queries,), each head passes to each key,
    over the number of heads.
    """
    _, heads, _, keys = product.shape
    rows = flow.nonzero().flatten()
    flow = flow.to(product.device)
    passed = torch.zeros(heads, keys, dtype=torch.float64, device=flow.device)
    if not len(rows):
        return passed
    step = max(1, BLOCK_NUMBERS // (heads * keys))
    with torch.no_grad():
        for first in range(int(rows[0]), int(rows[-1]) + 1, step):
            part = slice(first, min(first + step, int(rows[-1]) + 1))
            positive = product[0, :, part].double().clamp_min(0)
            passed += (flow[part, None] * positive).sum(1)
    return passed / heads


def _watched(question: Question, tokenizer: Any) -> tuple[Answer, Recording]:
    check_evaluates(question.model)
    with ExitStack() as stack:
        seen = stack.enter_context(watch(question.model, values=True, tokenizer=tokenizer))
        stack.enter_context(torch.enable_grad())
        for handle in graph_from_tables(question.model):
            stack.callback(handle.remove)
        answer = question.ask()
    return answer, seen
