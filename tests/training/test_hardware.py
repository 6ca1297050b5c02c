"""What training costs, as torch itself counts the operations; and that a rate is measured."""

import platform
import resource
import subprocess
import sys

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.models import Config, Decoder, Encoder, EncoderDecoder
from pellucid.training.hardware import matrix_rate, operations

PAGES = """
import resource
import torch
from pellucid.training.hardware import give_back_freed_memory, keep_freed_memory
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1])
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(7):
        torch.ones(2**24)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
fresh = faults()
keep_freed_memory()
torch.ones(2**24)
kept = faults()
before = resident()
give_back_freed_memory()
print(fresh, kept, before, resident())
"""

SHAPE = {
    "vocabulary": 53,
    "width": 24,
    "layers": 2,
    "heads": 4,
    "kv_heads": 2,
    "head_dim": 10,
    "hidden": 37,
    "gated": True,
    "activation": "silu",
}
ROWS = 3


def ids(tokens):
    return torch.arange(ROWS * tokens).view(ROWS, tokens) % SHAPE["vocabulary"]


def forward_of(query, key, value, *_, **__):
    """Operations of two products, scores and weighted means, from the shapes that were used."""
    batch, heads, queries, dim = query
    return 2 * 2 * batch * heads * queries * key[-2] * dim


def backward_of(grad, *shapes, **__):
    return 2 * forward_of(*shapes)  # each product has two factors


# torch does not know what its fused attention on a CPU costs.
FUSED = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: forward_of,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: backward_of,
}


def counted(model, *inputs):
    """A token, forward and back, by torch's own count of the products it makes."""
    with FlopCounterMode(display=False, custom_mapping=FUSED) as counter:
        model(*inputs).sum().backward()
    return counter.get_total_flops() / sum(one.numel() for one in inputs)


# torch multiplies what a causal mask hides too, so the causal texts here are of one token.
def test_it_is_what_torch_counts_of_an_encoder():
    model = Encoder(Config(kind="encoder", **SHAPE))
    assert operations(model, 11) == counted(model, ids(11))


@pytest.mark.parametrize("tied", [True, False])
def test_it_is_what_torch_counts_of_a_decoder(tied):
    model = Decoder(Config(kind="decoder", tied=tied, **SHAPE))
    assert operations(model, 1) == counted(model, ids(1))


def test_it_is_what_torch_counts_of_experts():
    """A token pays for the experts it uses, and for the router."""
    more = {"experts": 5, "experts_used": 3, "gated": True, "shared_hidden": 7}
    model = Decoder(Config(kind="decoder", **(SHAPE | more)))
    assert operations(model, 1) == pytest.approx(counted(model, ids(1)), rel=1e-12)


def test_it_is_what_torch_counts_of_an_encoder_decoder():
    model = EncoderDecoder(Config(kind="encoder-decoder", decoder_layers=3, **SHAPE))
    assert operations(model, 7, 1) == pytest.approx(counted(model, ids(7), ids(1)), rel=1e-12)


def test_a_causal_mask_and_a_window_leave_less_to_see():
    def attention(context, window=None, layers=None):
        seen = {"window": window, "window_layers": layers}
        config = Config(kind="decoder", position="rotary", positions=None, **seen, **SHAPE)
        model = Decoder(config)
        return operations(model, context) - operations(model, 1)

    # Of 5 tokens the first sees 1, the last 5: 3 on average, 2 more than in a text of one token.
    assert attention(5) == pytest.approx(12 * 2 * 40 * 2)
    # 1, 2, 2, 2 and 2.
    assert attention(5, window=2) == pytest.approx(12 * 2 * 40 * 0.8)
    assert attention(5, window=9) == pytest.approx(attention(5))
    # In one of the two layers.
    mean = (attention(5, window=2) + attention(5)) / 2
    assert attention(5, window=2, layers=(1,)) == pytest.approx(mean)


def test_an_encoder_pays_for_the_logits_that_are_made():
    model = Encoder(Config(kind="encoder", **SHAPE))
    more = operations(model, 11, predicted=0.5) - operations(model, 11)
    assert more == pytest.approx(6 * 0.5 * 24 * 53)


def test_what_does_not_fit_is_refused():
    encoder = Encoder(Config(kind="encoder", **SHAPE))
    both = EncoderDecoder(Config(kind="encoder-decoder", **SHAPE))
    with pytest.raises(ArgumentError, match="target does not apply to an encoder"):
        operations(encoder, 5, 5)
    with pytest.raises(ArgumentError, match="target must be given for an encoder-decoder"):
        operations(both, 5)
    with pytest.raises(ArgumentError, match="context must be at least 1 token, not 0"):
        operations(encoder, 0)
    with pytest.raises(ArgumentError, match="predicted must be a share"):
        operations(encoder, 5, predicted=15)
    with pytest.raises(TypeMismatchError, match="not Linear"):
        operations(torch.nn.Linear(2, 3), 5)


def test_the_rate_is_a_number_and_leaves_no_trace():
    before = torch.get_rng_state()
    rate = matrix_rate(7, 11, 13, seconds=0)
    assert 0 < rate < float("inf")
    assert matrix_rate(7, 11, 13, dtype=torch.bfloat16, seconds=0) > 0
    assert torch.equal(torch.get_rng_state(), before)


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(ArgumentError, match="inner must be at least 1, not 0"):
        matrix_rate(7, 0, 13)
    with pytest.raises(TypeMismatchError, match=r"not torch\.int8"):
        matrix_rate(7, 11, 13, dtype=torch.int8)


@pytest.mark.gpu
def test_the_rate_of_a_gpu():
    assert matrix_rate(512, 512, 512, dtype=torch.bfloat16, device="cuda") > 1e11


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is glibc's")
def test_what_is_freed_is_taken_again_without_new_pages():
    ran = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True)
    fresh, kept, before, after = map(int, ran.stdout.split())
    assert fresh > 7 * 20  # even where a page has 2 MB
    assert kept < fresh / 7
    assert before - after > 2**24 * 4 / 2 / resource.getpagesize()
