"""What decoding must reach: each figure as a ratio to its peer in the same run, beside its bar.

    python -m benchmarks.decoding [--only FIGURE] [--json FILE]

Random weights, which transformers has made and both have loaded: a Llama shape of 134M parameters
(that of SmolLM), GPT-2 small, and Marian's base shape; float32, every core. The peer is
`transformers.generate`; that both write the same is checked on the way. What a byte a weight costs
is told of the trained decoder in the package.
"""

import tempfile
from collections.abc import Iterator
from functools import cache, partial
from typing import Any

import numpy as np
import torch
import transformers

import pellucid
from benchmarks import measure
from benchmarks.command import run
from benchmarks.heart import Row, duration
from pellucid.layers.bfloat16 import Precision, precision, resolved
from pellucid.tasks.beam import search
from pellucid.tasks.decoders import open_writer
from pellucid.tasks.generation import generate
from pellucid.tasks.sampling import Sampling

PROMPT, NEW, PREFILL = 32, 64, 512
SENTENCES, BEAMS, MOST = 64, 4, 32
TEXTS = 47
LLAMA = transformers.LlamaConfig(
    vocab_size=49_152,
    hidden_size=576,
    num_hidden_layers=30,
    num_attention_heads=9,
    num_key_value_heads=3,
    intermediate_size=1536,
    max_position_embeddings=2048,
    tie_word_embeddings=True,
    bos_token_id=None,
    eos_token_id=None,
    pad_token_id=None,
)
GPT2 = transformers.GPT2Config(bos_token_id=None, eos_token_id=None)
MARIAN = transformers.MarianConfig(
    vocab_size=58_101,
    d_model=512,
    encoder_layers=6,
    decoder_layers=6,
    encoder_attention_heads=8,
    decoder_attention_heads=8,
    encoder_ffn_dim=2048,
    decoder_ffn_dim=2048,
    activation_function="swish",
    scale_embedding=True,
    pad_token_id=58_100,
    eos_token_id=0,
    decoder_start_token_id=58_100,
    forced_eos_token_id=None,
)
DECODERS = {"Llama, 134M": LLAMA, "GPT-2 small, 124M": GPT2}


@cache
def pair(name: str) -> tuple[Any, Any]:
    """Theirs and ours, with the same weights."""
    torch.manual_seed(0)
    theirs = transformers.AutoModelForCausalLM.from_config(DECODERS[name]).eval()
    return theirs, loaded(theirs)


def loaded(theirs: Any) -> Any:
    with tempfile.TemporaryDirectory() as directory:
        theirs.save_pretrained(directory)
        return pellucid.load(directory)


def some_ids(length: int) -> torch.Tensor:
    return torch.randint(0, 40_000, (1, length), generator=torch.Generator().manual_seed(3))


def greedy(model: Any, ids: torch.Tensor, count: int) -> list[int]:
    cache, written = model.cache(1, ids.shape[1] + count), []
    for _ in range(count):
        ids = model(ids, cache=cache, last=True).argmax(-1, keepdim=True)
        written.append(int(ids))
    return written


def their_greedy(model: Any, ids: torch.Tensor, count: int) -> list[int]:
    made = model.generate(ids, max_new_tokens=count, do_sample=False, pad_token_id=0)
    return made[0, ids.shape[1] :].tolist()  # type: ignore[no-any-return]


def memory_rate() -> float:
    """Bytes a second that a product of a matrix and a vector reads, at the best."""
    from pellucid.layers import matrix_vector

    matrix, vector = torch.randn(2**17, 1024), torch.randn(1, 1024)
    found = measure.beside(
        {"": partial(matrix_vector.linear, vector, matrix, None)}, lambda: None, budget=2, least=9
    )
    return matrix.nbytes / found[""].ours


def decoding() -> Iterator[Row]:
    rate = memory_rate()
    for name in DECODERS:
        theirs, ours = pair(name)
        ids = some_ids(PROMPT)
        assert greedy(ours, ids, NEW) == their_greedy(theirs, ids, NEW), "other tokens"
        eighth = pellucid.models.Decoder(ours.config)
        eighth.load_state_dict(ours.state_dict())
        eighth.to_int8()
        calls = {
            "float32": partial(greedy, ours, ids, NEW),
            "int8": partial(greedy, eighth, ids, NEW),
        }
        found = measure.beside(calls, partial(their_greedy, theirs, ids, NEW), budget=40, least=3)
        size = sum(parameter.nbytes for parameter in ours.parameters())
        for kind, bar in (("float32", 1.9), ("int8", 3.5)):
            one = found[kind]
            each = one.ours / NEW
            share = f", {size / each / rate:.0%} of memory's rate" if kind == "float32" else ""
            yield Row(
                figure=f"transformers over greedy decoding, {kind}",
                setting=f"{name}, {NEW} tokens after {PROMPT}",
                ours=f"{each * 1e3:.1f} ms a token{share}",
                peer=f"float32 {one.peer / NEW * 1e3:.1f} ms",
                value=1 / one.ratio,
                bar=bar,
                at_least=True,
            )


def prefill() -> Iterator[Row]:
    for name in DECODERS:
        theirs, ours = pair(name)
        ids = some_ids(PREFILL)

        def our_prefill(kind: Precision, ours: Any = ours, ids: torch.Tensor = ids) -> torch.Tensor:
            with precision(kind):
                return ours(ids, cache=ours.cache(1, PREFILL), last=True)  # type: ignore[no-any-return]

        def their_prefill(theirs: Any = theirs, ids: torch.Tensor = ids) -> torch.Tensor:
            return theirs(ids, use_cache=True, logits_to_keep=1).logits[:, -1]  # type: ignore[no-any-return]

        exact = our_prefill("float32")
        torch.testing.assert_close(exact, their_prefill(), rtol=1e-3, atol=1e-3)
        kinds: dict[Precision, float] = {"float32": 1.2}
        if resolved("auto") == "bfloat16":
            kinds["bfloat16"] = 2.5
        calls: dict[str, measure.Call] = {kind: partial(our_prefill, kind) for kind in kinds}
        found = measure.beside(calls, their_prefill, budget=10, least=3)
        for kind, bar in kinds.items():
            one = found[kind]
            yield Row(
                figure=f"transformers over prefill, {kind}",
                setting=f"{name}, {PREFILL} tokens",
                ours=duration(one.ours),
                peer=f"float32 {duration(one.peer)}",
                value=1 / one.ratio,
                bar=bar,
                at_least=True,
            )
        if "bfloat16" in kinds:
            apart = (our_prefill("bfloat16").log_softmax(-1) - exact.log_softmax(-1)).abs().max()
            yield Row(
                figure="prefill in bfloat16",
                setting=f"{name}, the largest difference of a log-probability from float32",
                ours=f"{float(apart):.1g}",
                value=float(apart),
                unit="nats",
                bar=0.1,
            )


def translation() -> Iterator[Row]:
    """Sentences of 3 to 40 tokens, whose translations end at the limit, or at different times.

    Random weights end no text by themselves; a bias of the stop makes some end early, as texts do.
    """
    torch.manual_seed(0)
    theirs = transformers.MarianMTModel(MARIAN).eval()
    generator = torch.Generator().manual_seed(5)
    lengths = torch.randint(3, 41, (SENTENCES,), generator=generator)
    ids = torch.randint(1, 58_000, (SENTENCES, 40), generator=generator)
    present = torch.arange(40) < lengths.unsqueeze(-1)
    ids = ids.where(present, 58_100)

    def their_search() -> list[list[int]]:
        found = theirs.generate(
            ids,
            attention_mask=present.long(),
            num_beams=BEAMS,
            max_new_tokens=MOST,
            bad_words_ids=[[58_100]],
            renormalize_logits=True,
        )
        return [[x for x in row[1:].tolist() if x != 58_100] for row in found]

    for bias, bar in ((0.0, None), (5.0, 2.0)):
        theirs.final_logits_bias[0, 0] = bias
        ours = loaded(theirs)

        def our_search(ours: Any = ours) -> list[list[int]]:
            found = search(ours, ids, lengths, beams=BEAMS, max_tokens=MOST, banned=[58_100])
            return [list(best[0].ids) for best in found]

        expected = their_search()
        same = np.mean([one == other for one, other in zip(our_search(), expected, strict=True)])
        written = sorted(len(one) for one in expected)
        found = measure.beside({"": our_search}, their_search, budget=30, least=2)[""]
        yield Row(
            figure="transformers over translation",
            setting=f"Marian base, {SENTENCES} sentences, beam {BEAMS}, of {written[0]} to "
            f"{written[-1]} tokens, the median {written[len(written) // 2]}; {same:.0%} the same",
            ours=duration(found.ours),
            peer=duration(found.peer),
            value=1 / found.ratio,
            bar=bar,
            at_least=True,
        )


def perplexity(model: Any, texts: torch.Tensor) -> float:
    with torch.no_grad():
        logits = model(texts[:, :-1])
    return float(torch.nn.functional.cross_entropy(logits.mT, texts[:, 1:]).exp())


def bytes_a_weight() -> Iterator[Row]:
    model = open_writer()
    config, tokenizer = model.config, model.tokenizer
    assert config.positions is not None
    assert tokenizer is not None
    start = torch.tensor(tokenizer.encode([""])).expand(TEXTS, -1)
    drawn = generate(
        model, start, max_tokens=config.positions - 1, sampling=Sampling(temperature=1.0), seed=3
    )
    texts = torch.tensor([[*start[0].tolist(), *one.ids] for one in drawn if len(one.ids) > 250])
    found = perplexity(model, texts)
    small = perplexity(model.to_int8(), texts)
    yield Row(
        figure="perplexity of int8 over float32",
        setting=f"the decoder in the package, {len(texts)} texts that it drew",
        ours=f"{small:.3f}",
        peer=f"float32 {found:.3f}",
        value=small / found,
        bar=1.01,
        at_least=False,
    )


SECTIONS = (decoding, prefill, translation, bytes_a_weight)


if __name__ == "__main__":
    run("benchmarks.decoding", __doc__, f"transformers {transformers.__version__}", SECTIONS)
