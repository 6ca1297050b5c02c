"""Beam search against transformers', and against trying every text."""

import itertools
import warnings
from functools import cache

import pytest
import tokenizers
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import writers
from tests.models import families

import pellucid
from pellucid.errors import ArgumentError
from pellucid.models import Config, EncoderDecoder
from pellucid.models.checkpoints.generation import Generation
from pellucid.tasks import beam
from pellucid.tasks.beam import continuations, search
from pellucid.tasks.generation import generate
from pellucid.tasks.sampling import Sampling

START, STOP, VOCABULARY = 3, 2, 101


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    """A random model whose texts end now and then, and ours with its weights."""
    torch.manual_seed(1)
    config = transformers.MarianConfig(
        vocab_size=VOCABULARY,
        d_model=34,
        encoder_layers=2,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=37,
        decoder_ffn_dim=37,
        max_position_embeddings=53,
        pad_token_id=0,
        eos_token_id=STOP,
        decoder_start_token_id=START,
        forced_eos_token_id=None,
    )
    theirs = transformers.MarianMTModel(config).eval()
    for name, parameter in theirs.named_parameters():
        if "embed_positions" not in name:  # a table of sines, which nobody trains
            parameter.data += 0.2 * torch.randn_like(parameter)
    theirs.final_logits_bias[0, STOP] = 3.5
    directory = tmp_path_factory.mktemp("marian")
    theirs.save_pretrained(directory)
    return theirs, pellucid.load(directory)


def sources(count, seed=5, vocabulary=VOCABULARY):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, 14, (count,), generator=generator)
    ids = torch.randint(4, vocabulary, (count, 13), generator=generator)
    return ids[:, : int(lengths.max())], lengths


@pytest.mark.parametrize("beams", [2, 3, 5])
@pytest.mark.parametrize("penalty", [1.0, 0.6, 2.0])
@pytest.mark.parametrize("forced", [None, STOP])
def test_as_transformers(marian, beams, penalty, forced):
    theirs, ours = marian
    ids, lengths = sources(7)
    present = torch.arange(ids.shape[1]) < lengths[:, None]
    with torch.no_grad():
        expected = theirs.generate(
            ids.where(present, 0),
            attention_mask=present.long(),
            num_beams=beams,
            length_penalty=penalty,
            max_new_tokens=17,
            num_return_sequences=beams,
            bad_words_ids=[[0]],
            renormalize_logits=True,  # as published checkpoints of Marian say
            forced_eos_token_id=forced,
            return_dict_in_generate=True,
            output_scores=True,
        )
    found = search(
        ours,
        ids,
        lengths,
        beams=beams,
        length_penalty=penalty,
        max_tokens=17,
        banned=[0],
        forced_stop=forced,
    )
    flat = [beam for one in found for beam in one]
    texts = [_until_stop(row[1:].tolist()) for row in expected.sequences]
    assert [list(beam.ids) for beam in flat] == texts
    lengths_found = {len(beam.ids) for beam in flat}
    assert len(lengths_found) > 1  # some end before others
    scores = torch.tensor([beam.score for beam in flat])
    torch.testing.assert_close(scores, expected.sequences_scores, rtol=1e-4, atol=1e-4)


def _until_stop(ids):
    return ids[: ids.index(STOP) + 1] if STOP in ids else ids


@pytest.mark.parametrize("name", ["pegasus", "umt5", "blenderbot", "plbart", "mvp"])
def test_families_search_as_in_transformers(name, tmp_path):
    torch.manual_seed(11)
    theirs = families.build(name)
    for key, parameter in theirs.named_parameters():
        if "embed_positions" not in key:
            parameter.data += 0.2 * torch.randn_like(parameter)
    if hasattr(theirs, "final_logits_bias"):
        theirs.final_logits_bias[0, STOP] = 4.0
    theirs.save_pretrained(tmp_path)
    ours = pellucid.load(tmp_path)
    start = theirs.config.decoder_start_token_id
    ids, lengths = sources(5, vocabulary=families.VOCABULARY)
    present = torch.arange(ids.shape[1]) < lengths[:, None]
    for beams in (1, 3):
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what the tiny configs say
            expected = theirs.generate(
                ids.where(present, 0),
                attention_mask=present.long(),
                num_beams=beams,
                max_new_tokens=13,
                do_sample=False,
                bad_words_ids=[[0]],
                renormalize_logits=True,
                forced_eos_token_id=None,
                early_stopping=False,
                use_cache=name != "umt5",  # its cache has a layer for each of the encoder's
            )
        found = search(ours, ids, lengths, beams=beams, max_tokens=13, banned=[0], start=start)
        texts = [_until_stop(row[1:].tolist()) for row in expected]
        assert [list(one[0].ids) for one in found] == texts
        assert len({tuple(text) for text in texts}) > 2  # which the sources decide


def test_a_batch_is_as_each_alone(marian):
    _, model = marian
    ids, lengths = sources(5, seed=8)
    together = search(model, ids, lengths, beams=3, max_tokens=11)
    for item, length in enumerate(lengths.tolist()):
        alone = search(
            model, ids[item : item + 1, :length], lengths[item : item + 1], beams=3, max_tokens=11
        )
        assert [beam.ids for beam in alone[0]] == [beam.ids for beam in together[item]]


@pytest.mark.parametrize("forced", [None, STOP])
def test_each_source_has_a_limit_of_its_own(marian, forced):
    _, model = marian
    ids, lengths = sources(5, seed=8)
    limits = torch.tensor([2, 11, 1, 5, 99])  # there are positions for 53
    together = search(model, ids, lengths, beams=3, max_tokens=limits, forced_stop=forced)
    for item, (length, limit) in enumerate(zip(lengths.tolist(), limits.tolist(), strict=True)):
        [alone] = search(
            model,
            ids[item : item + 1, :length],
            lengths[item : item + 1],
            beams=3,
            max_tokens=limit,
            forced_stop=forced,
        )
        assert [beam.ids for beam in alone] == [beam.ids for beam in together[item]]
        assert all(len(beam.ids) <= min(limit, 53) for beam in alone)
        assert forced is None or all(beam.ids[-1] == STOP for beam in alone)


def test_what_is_banned_takes_no_probability(marian):
    """Marian's padding has a logit of 0, which may be above all others."""
    _, model = marian
    ids, lengths = sources(3)
    assert model.bias is not None
    found = []
    for bias in (0.0, 9.0):
        with torch.no_grad():
            model.bias[0] = bias
        found.append(search(model, ids, lengths, beams=3, max_tokens=9, banned=[0]))
    with torch.no_grad():
        model.bias[0] = 0
    for low, high in zip(*found, strict=True):
        assert [beam.ids for beam in low] == [beam.ids for beam in high]
        scores = ([beam.score for beam in beams] for beams in (low, high))
        assert next(scores) == pytest.approx(next(scores), rel=1e-5)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**31), penalty=st.sampled_from([0.0, 0.6, 1.0]))
def test_with_room_for_all_it_is_exhaustive(seed, penalty):
    """With as many beams as there are texts, the best one is found."""
    torch.manual_seed(seed)
    config = Config(
        kind="encoder-decoder",
        vocabulary=5,
        width=14,
        layers=1,
        heads=2,
        hidden=11,
        start=4,
        stop=(2,),
    )
    model = EncoderDecoder(config).eval()
    for parameter in model.parameters():
        parameter.data += 0.5 * torch.randn_like(parameter)
    source, most = torch.tensor([[1, 3, 0]]), 3
    texts = list(_texts(most))
    best = max(
        (score / len(text) ** penalty, text)
        for score, text in zip(_scores(model, source, texts), texts, strict=True)
    )
    found = search(
        model, source, torch.tensor([3]), beams=5**most, max_tokens=most, length_penalty=penalty
    )[0][0]
    assert found.ids == best[1]
    assert found.score == pytest.approx(best[0], rel=1e-4, abs=1e-5)


def _texts(most):
    for length in range(1, most + 1):
        for text in itertools.product(range(5), repeat=length):
            ends = text[-1] == 2 or length == most
            if ends and 2 not in text[:-1]:
                yield text


def _scores(model, source, texts):
    """The logarithm of the probability of each text, all read at once: none sees what is behind."""
    longest = max(map(len, texts))
    ids = torch.tensor([text + (0,) * (longest - len(text)) for text in texts])
    read = torch.cat([torch.full((len(texts), 1), 4), ids[:, :-1]], 1)
    with torch.no_grad():
        said = model(source.expand(len(texts), -1), read).log_softmax(-1)
    of_each = said.gather(-1, ids[..., None])[..., 0].double()
    return [float(row[: len(text)].sum()) for row, text in zip(of_each, texts, strict=True)]


def test_one_beam_is_greedy(marian):
    _, model = marian
    ids, lengths = sources(1)
    found = search(model, ids[:, : int(lengths)], lengths, beams=1, max_tokens=9)[0][0].ids
    text = [START]
    with torch.no_grad():
        for number in found:
            logits = model(ids[:, : int(lengths)], torch.tensor([text]))[0, -1]
            assert int(logits.argmax()) == number
            text.append(number)


def test_bad_input(marian):
    _, model = marian
    ids, lengths = sources(1)
    with pytest.raises(ArgumentError, match="beams must be at least 1, not 0"):
        search(model, ids, lengths, beams=0)
    with pytest.raises(ArgumentError, match="max_tokens must be at least 1, not 0"):
        search(model, ids, lengths, max_tokens=torch.tensor([0]))
    bare = EncoderDecoder(Config(kind="encoder-decoder", vocabulary=5, width=16))
    with pytest.raises(ArgumentError, match="needs a start and a stop token"):
        search(bare, ids, lengths)


@pytest.mark.parametrize("penalty", [1.0, 0.0, 2.0])
def test_a_decoder_s_search_is_that_of_transformers(penalty, tmp_path):
    torch.manual_seed(3)
    config = transformers.GPT2Config(
        n_embd=34, n_layer=2, n_head=2, n_positions=53, vocab_size=61, bos_token_id=1,
        eos_token_id=7, pad_token_id=0, initializer_range=0.6,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).eval()
    theirs.save_pretrained(tmp_path)
    ours = pellucid.load(tmp_path)
    ends = set()
    for prompt in ([3, 17, 5], [9], [11, 12], [33, 2, 2, 5]):
        ids = torch.tensor([prompt])
        with torch.no_grad():
            expected = theirs.generate(
                ids, attention_mask=torch.ones_like(ids), num_beams=5, max_new_tokens=11,
                do_sample=False, length_penalty=penalty,
            )[0, len(prompt) :].tolist()  # fmt: skip
        found = continuations(ours, prompt, beams=5, max_tokens=11, length_penalty=penalty)
        assert list(found[0].ids) == [token for token in expected if token != 0]
        ends.add(found[0].ids[-1] == 7)
        # The score is that of the text itself.
        with torch.no_grad():
            logits = ours(torch.tensor([prompt + list(found[0].ids)]))[0].log_softmax(-1)
        each = logits[len(prompt) - 1 : -1].gather(1, torch.tensor(found[0].ids)[:, None])
        expected_score = float(each.sum()) / len(found[0].ids) ** penalty
        assert found[0].score == pytest.approx(expected_score, rel=1e-4)


END = 175
"""Some texts of the model below end with it, and some do not."""
SHORT = -1.5
"""A length penalty for which more of them do."""
RULES = {
    "repetition_penalty": 1.4,
    "no_repeat_ngram_size": 2,
    "bad_words_ids": [[257], [128, 123]],
    "min_new_tokens": 4,
    "sequence_bias": [[[267], 1.5], [[113, 247], -2.0]],
    "exponential_decay_length_penalty": [3, 1.2],
    "suppress_tokens": [123, 247],
    "begin_suppress_tokens": [113, 190],
}


@pytest.fixture(scope="module")
def decoder(tmp_path_factory):
    """A random GPT-2 whose texts end now and then, and ours with its weights and a tokenizer."""
    torch.manual_seed(3)
    config = transformers.GPT2Config(
        n_embd=34, n_layer=2, n_head=2, n_positions=53, vocab_size=writers.VOCABULARY,
        bos_token_id=1, eos_token_id=END, pad_token_id=0, initializer_range=0.6,
    )  # fmt: skip
    theirs = transformers.GPT2LMHeadModel(config).eval()
    directory = tmp_path_factory.mktemp("gpt2")
    theirs.save_pretrained(directory)
    ours = pellucid.load(directory)
    ours.tokenizer = writers.tokenizer()
    return theirs, ours


def by_transformers(theirs, prompt, **options):
    ids = torch.tensor([prompt])
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = theirs.generate(
            ids, attention_mask=torch.ones_like(ids), num_beams=4, max_new_tokens=11,
            do_sample=False, **options,
        )  # fmt: skip
    new = found[0, len(prompt) :].tolist()
    return new[: new.index(END)] if END in new else new


@pytest.fixture(scope="module")
def without_rules(decoder):
    return cache(lambda prompt, length: by_transformers(decoder[0], prompt, length_penalty=length))


@pytest.mark.parametrize("names", [*([name] for name in RULES), [*RULES]], ids=lambda x: x[-1])
def test_beams_take_the_rules_of_transformers(decoder, without_rules, names):
    theirs, ours = decoder
    settings = {name: RULES[name] for name in names}
    penalty = settings.get("repetition_penalty", 1.0)
    others = {name: value for name, value in settings.items() if name != "repetition_penalty"}
    length = SHORT if names == ["min_new_tokens"] else 1.0
    ours.generation = Generation(repetition_penalty=penalty, length_penalty=length, others=others)
    changed = 0
    for prompt in ((3, 17, 5), (9,), (11, 12), (33, 2, 2, 5)):
        expected = by_transformers(theirs, prompt, length_penalty=length, **settings)
        [found] = generate(ours, torch.tensor([prompt]), max_tokens=11, beams=4)
        assert found.ids == expected
        changed += expected != without_rules(prompt, length)
    ours.generation = Generation()
    assert changed


def test_beams_end_at_strings_and_special_tokens(decoder):
    theirs, ours = decoder
    peer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizers.Tokenizer.from_str(writers.trained())
    )
    ended = 0
    for prompt in ([3, 17, 5], [9], [11, 12]):
        plain = by_transformers(theirs, prompt)
        ids = torch.tensor([prompt])
        # Strings that the likeliest text has, and so does no text that is not ended by them.
        letters = [ours.tokenizer.decode([token]) for token in plain]
        string = next(x for x in letters[2:] if x.strip().isascii() and x.strip())
        expected = by_transformers(theirs, prompt, stop_strings=[string], tokenizer=peer)
        [found] = generate(ours, ids, max_tokens=11, beams=4, stop=[string])
        assert found.ids == expected
        assert string not in found.text
        ended += found.stopped == "stop string"
    assert ended
    expected = by_transformers(theirs, [9], eos_token_id=[END, 0])
    [found] = generate(ours, torch.tensor([[9]]), max_tokens=11, beams=4, stop=["<|end|>"])
    assert found.ids == (expected[: expected.index(0)] if 0 in expected else expected)


def test_rules_that_leave_no_token(decoder):
    _, ours = decoder
    ours.generation = Generation(others={"suppress_tokens": [*range(writers.VOCABULARY)]})
    with pytest.raises(ArgumentError, match="the rules on logits leave no token"):
        generate(ours, torch.tensor([[3]]), max_tokens=3, beams=2)
    ours.generation = Generation()


def test_generation_keeps_the_best_beam(tmp_path):
    torch.manual_seed(4)
    model = pellucid.models.Decoder(
        Config(kind="decoder", vocabulary=31, width=8, layers=1, heads=2, stop=(7,))
    ).eval()
    prompt = torch.tensor([[3, 5]])
    [found] = generate(model, prompt, max_tokens=6, beams=3)
    [best, *_] = continuations(model, [3, 5], beams=3, max_tokens=6)
    assert found.ids == [token for token in best.ids if token != 7]
    with pytest.raises(ArgumentError, match="beam search takes no sampling"):
        generate(model, prompt, beams=3, sampling=Sampling(temperature=1.0))


@pytest.mark.parametrize(("vocabulary", "most"), [(5, 5), (127, 8), (131, 3), (1009, 8)])
def test_the_likeliest_tokens_of_many_texts(vocabulary, most, monkeypatch):
    pytest.importorskip("numba")
    monkeypatch.setattr(beam, "WORTHWHILE", 0)
    logits = 5 * torch.randn(7, vocabulary, generator=torch.Generator().manual_seed(vocabulary))
    logits[0], logits[1, 1:] = 0.0, -torch.inf  # all alike, and one token that may be written
    logits[2, vocabulary - 1] = 90.0
    truth = logits.double().log_softmax(-1)
    expected = truth.topk(most)
    with torch.no_grad():
        values, tokens = beam._likeliest(logits.clone(), most)
        plain, places = beam._likeliest_of(logits.clone(), most)
    torch.testing.assert_close(values.double(), expected.values, rtol=1e-6, atol=2e-6)
    torch.testing.assert_close(values, plain, rtol=1e-6, atol=2e-6)
    assert tokens[0].tolist() == list(range(most))
    assert tokens[2:].tolist() == expected.indices[2:].tolist() == places[2:].tolist()
