"""What is written is what transformers writes, and what is said of it is so."""

import itertools
import warnings

import pytest
import torch
from tests import writers
from tests.models import families
from tests.writers import writer

import pellucid
from pellucid.errors import ArgumentError, OutOfRangeError, ShapeError, TypeMismatchError
from pellucid.layers import bfloat16, decoding_step
from pellucid.layers.bfloat16 import products
from pellucid.models import Config, Encoder, EncoderDecoder
from pellucid.tasks.generation import digits_lost, generate, stream
from pellucid.tasks.sampling import Sampling

PLAIN = Sampling()
LENGTHS = (3, 11, 7)
NEW = 13


def pair(name, directory):
    families.written(name, directory)
    return families.read(name, directory).double(), pellucid.load(directory, dtype=torch.float64)


def by_transformers(model, ids, **options):
    """The new ids of one prompt, greedy."""
    prompt = torch.tensor([ids])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about ids that the tiny configs do not have
        found = model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=NEW,
            pad_token_id=0,
            **options,
        )
    return found[0, len(ids) :].tolist()


def prompts_of(lengths=LENGTHS):
    return [families.ids(length, 1)[0].tolist() for length in lengths]


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral", "qwen3"])
def test_greedy_tokens_are_those_of_transformers(name, tmp_path):
    theirs, ours = pair(name, tmp_path)
    theirs = families.exact(theirs)
    for prompt in prompts_of():
        [found] = generate(ours, torch.tensor([prompt]), max_tokens=NEW)
        expected = by_transformers(theirs, prompt)
        stopped = [number for number in expected if number in ours.config.stop]
        assert found.ids == expected[: len(expected) - len(stopped)]
        assert found.stopped == ("stop id" if stopped else "max_tokens")
        penalised = Sampling(temperature=0, repetition_penalty=1.3)
        [found] = generate(ours, torch.tensor([prompt]), max_tokens=NEW, sampling=penalised)
        expected = by_transformers(theirs, prompt, repetition_penalty=1.3)
        assert found.ids == [number for number in expected if number not in ours.config.stop]


class Spelling:
    """A tokenizer of texts that are numbers with spaces between."""

    def encode(self, texts, special=True):
        return [[1, *map(int, text.split())] if special else [*map(int, text.split())]
                for text in texts]  # fmt: skip

    def decode(self, ids):
        return "".join(f" {number}" for number in ids)


@pytest.mark.parametrize("name", ["gpt2", "llama", "mistral"])
def test_a_batch_of_different_lengths_is_each_text_alone(name, tmp_path):
    theirs, ours = pair(name, tmp_path)
    theirs, ours.tokenizer = families.exact(theirs), Spelling()
    prompts = prompts_of()
    texts = [" ".join(map(str, prompt)) for prompt in prompts]
    together = generate(ours, texts, max_tokens=NEW)
    for number, (prompt, found) in enumerate(zip(prompts, together, strict=True)):
        expected = by_transformers(theirs, [1, *prompt])
        assert found.prompt == number
        assert found.prompt_ids == [1, *prompt]
        assert found.ids == [number for number in expected if number not in ours.config.stop]


@pytest.mark.parametrize("options", [{}, {"position": "rotary", "kv_heads": 1, "window": 5}])
def test_the_compiled_step_writes_the_same(options, monkeypatch):
    pytest.importorskip("numba")
    model, prompts = writer(**options), ["Once upon", "the ball rolled away", "She"]
    compiled = generate(model, prompts, max_tokens=NEW)
    monkeypatch.setattr(decoding_step, "of", lambda *_: None)
    plain = generate(model, prompts, max_tokens=NEW)
    assert [one.ids for one in compiled] == [one.ids for one in plain]


@pytest.mark.parametrize("left", [float("nan"), 3e38])
@pytest.mark.parametrize("options", [{}, {"position": "rotary", "kv_heads": 1, "window": 5}])
def test_what_a_cache_held_before_never_matters(options, left, monkeypatch):
    """Room that no token has taken yet is hidden, whatever stands there."""
    model, prompts = writer(**options), ["Once upon", "the ball rolled away", "She"]
    alone = [generate(model, [prompt], max_tokens=NEW)[0].ids for prompt in prompts]
    empty = model.cache

    def used(*arguments):
        cache = empty(*arguments)
        for layer in cache.layers:
            for kept in (layer.keys.view(-1), layer.values.view(-1)):
                kept[::2], kept[1::2] = left, -left
        return cache

    monkeypatch.setattr(model, "cache", used)
    for compiled in (True, False):
        if not compiled:
            monkeypatch.setattr(decoding_step, "of", lambda *_: None)
        assert [one.ids for one in generate(model, prompts, max_tokens=NEW)] == alone


PROMPTS = ["Once upon", "the ball", "She", "naïve café"]


def writer_that_stops():
    """Stop ids that end the texts of PROMPTS at three different times, at the least."""
    texts = [one.ids for one in generate(writer(), PROMPTS, max_tokens=40)]
    for stop in itertools.combinations(sorted({number for text in texts for number in text}), 2):
        ends = {next((i for i, x in enumerate(text) if x in stop), 40) for text in texts}
        if len(ends) > 2:
            return writer(stop=stop)
    raise AssertionError("these texts end together, whatever the stop")


def test_a_text_that_has_ended_leaves_the_batch():
    """Rows end at different times; those that go on write what they write alone."""
    model, prompts = writer_that_stops(), PROMPTS
    together = generate(model, prompts, max_tokens=40)
    assert len({len(one.ids) for one in together}) > 2
    for prompt, found in zip(prompts, together, strict=True):
        [alone] = generate(model, [prompt], max_tokens=40)
        assert (found.ids, found.text, found.stopped) == (alone.ids, alone.text, alone.stopped)


def test_the_batch_gets_smaller(monkeypatch):
    model, rows = writer_that_stops(), []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda ids, **options: rows.append(len(ids)) or forward(ids, **options)
    )
    generate(model, PROMPTS, max_tokens=40)
    assert rows[0] == 4
    assert rows == sorted(rows, reverse=True)
    assert rows[-1] < 4


def test_text_is_what_the_ids_read_like_after_the_prompt():
    model = writer()
    for found in generate(model, ["Once upon", "日本語"], max_tokens=40):
        whole = model.tokenizer.decode([*found.prompt_ids, *found.ids])
        assert model.tokenizer.decode(found.prompt_ids) + found.text == whole


def test_pieces_are_the_texts_in_order():
    model, texts, ends = writer(), {}, {}
    called = []
    for piece in stream(
        model, ["Once upon", "the ball"], max_tokens=NEW, sampling=PLAIN, samples=2, seed=5
    ):
        assert piece.sample not in ends.get(piece.prompt, ())
        key = piece.prompt, piece.sample
        texts[key] = texts.get(key, "") + piece.text
        if piece.done is not None:
            ends[key] = piece.done
    found = generate(
        model,
        ["Once upon", "the ball"],
        max_tokens=NEW,
        sampling=PLAIN,
        samples=2,
        seed=5,
        on_token=called.append,
    )
    assert [(one.prompt, one.sample) for one in found] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    for one in found:
        key = one.prompt, one.sample
        assert one.text == texts[key] == ends[key].text
        assert one.ids == ends[key].ids
    assert sum(piece.done is not None for piece in called) == 4
    assert len(called) == 4 * NEW


def test_a_stop_string_ends_a_text():
    model = writer()
    [whole] = generate(model, ["Once upon"], max_tokens=40)
    word = whole.text[11:14]
    [found] = generate(model, ["Once upon"], max_tokens=40, stop=["never", word])
    assert found.stopped == "stop string"
    assert found.text == whole.text[: whole.text.find(word)]
    assert found.ids == whole.ids[: len(found.ids)]
    assert len(found.ids) < len(whole.ids)


def test_the_model_s_positions_end_a_text():
    model = writer()
    [prompt] = model.tokenizer.encode(["Once upon a time"])
    [found] = generate(model, ["Once upon a time"], max_tokens=1000)
    assert found.stopped == "positions"
    assert len(prompt) + len(found.ids) == writers.POSITIONS
    full = torch.randint(1, 99, (1, writers.POSITIONS), generator=torch.manual_seed(1))
    [found] = generate(model, full, max_tokens=7)
    assert (found.stopped, len(found.ids)) == ("positions", 1)


def test_seeds():
    model = writer()

    def written(seed, prompts=("Once upon",), samples=3, **options):
        return [
            one.ids
            for one in generate(
                model,
                list(prompts),
                max_tokens=NEW,
                sampling=PLAIN,
                samples=samples,
                seed=seed,
                **options,
            )
        ]

    first = written(7)
    assert first == written(7)
    assert len({*map(tuple, [*first, *written(8)])}) == 6  # no sample of one seed is another's
    assert written(7, samples=1) == first[:1]
    assert written(7, ["She", "Once upon"])[3:] == first  # whatever stands beside it
    assert written(7, batch=2) == first
    assert written(None) != written(None)


def test_the_global_random_numbers_are_left_alone():
    model, before = writer(), torch.get_rng_state()
    generate(model, ["Once"], max_tokens=3, sampling=PLAIN)
    generate(model, ["Once"], max_tokens=3, sampling=PLAIN, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_gradients_are_as_they_were_between_pieces():
    pieces = stream(writer(), ["Once"], max_tokens=3)
    next(pieces)
    assert torch.is_grad_enabled()


def test_first_tokens_of_many_samples_follow_the_model_s_probabilities():
    from scipy.stats import chisquare

    model, count = writer(), 3000
    sampling = Sampling(temperature=1.3, top_k=9)
    [ids] = model.tokenizer.encode(["Once upon"])
    with torch.no_grad():
        logits = model(torch.tensor([ids]))[0, -1] / 1.3
    top = logits.topk(9)
    drawn = [
        one.ids[0]
        for one in generate(
            model, ["Once upon"], max_tokens=1, sampling=sampling, samples=count, seed=3, batch=500
        )
    ]
    counts = [drawn.count(number) for number in top.indices.tolist()]
    assert sum(counts) == count
    wanted = top.values.double().softmax(-1)
    assert float(wanted.min()) * count > 5
    assert chisquare(counts, (wanted * count).numpy()).pvalue > 0.01


def test_prompts_that_are_too_long_are_cut_in_front_or_refused():
    model, text = writer(), writers.TEXT * 3
    [ids] = model.tokenizer.encode([text])
    kept = writers.POSITIONS - NEW
    lost = len(ids) - kept
    with pytest.warns(
        UserWarning,
        match=f"1 prompt of 2 truncated to the last {kept} tokens, .* {lost} tokens are lost",
    ):
        short, found = generate(model, ["Once", text], max_tokens=NEW)
    assert found.prompt_ids == ids[-kept:]
    assert (found.stopped, short.stopped) == ("max_tokens", "max_tokens")
    with pytest.raises(
        ArgumentError, match=rf"prompts\[1\] has {len(ids)} tokens, .* 64 positions"
    ):
        generate(model, ["Once", text], strict=True)


def test_marks_in_front_stay_and_marks_behind_go():
    import tokenizers

    model = writer()
    model.tokenizer.inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="<|end|> $A <|end|>", special_tokens=[("<|end|>", 0)]
    )
    [plain] = model.tokenizer.encode([writers.TEXT * 3], special=False)
    [found] = generate(model, ["Once"], max_tokens=2)
    assert found.prompt_ids == [0, *model.tokenizer.encode(["Once"], special=False)[0]]
    with pytest.warns(UserWarning, match="truncated"):
        [found] = generate(model, [writers.TEXT * 3], max_tokens=NEW)
    kept = writers.POSITIONS - NEW
    assert found.prompt_ids == [0, *plain[1 - kept :]]


def test_ids_need_no_tokenizer():
    model = writer()
    [expected] = generate(model, ["Once"], max_tokens=NEW)
    ids = torch.tensor([expected.prompt_ids], dtype=torch.int32)
    model.tokenizer = None
    [found] = generate(model, ids, max_tokens=NEW)
    assert (found.ids, found.text) == (expected.ids, "")
    assert found.tokens_per_second > 0


def test_what_cannot_be_asked():
    model = writer()
    for options, message in [
        ({"max_tokens": 0}, "max_tokens must be from 1 to 2,147,483,647, not 0"),
        ({"samples": 0}, "samples must be from 1 to 65,536, not 0"),
        ({"samples": 3}, "at temperature 0 all 3 samples are identical"),
        ({"seed": -1}, "seed must be from 0"),
        ({"stop": [""]}, "stop contains an empty string"),
        ({"batch": 0}, "batch must be at least 1, not 0"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            stream(model, ["Once"], **options)  # at once, and not at the first piece
    for prompts, message in [
        ([" \n"], r"prompts\[0\] is empty"),
        (["a\ud800"], "is not valid Unicode"),
    ]:
        with pytest.raises(ArgumentError, match=message):
            generate(model, prompts)
    for prompts, message in [
        ("Once", "not a single str"),
        ([3], r"prompts\[0\] must be a str, not int"),
        (torch.zeros(1, 3), r"int64 or int32, not torch\.float32"),
    ]:
        with pytest.raises(TypeMismatchError, match=message):
            generate(model, prompts)
    with pytest.raises(TypeMismatchError, match="stop must be a list of str"):
        generate(model, ["Once"], stop="end")
    with pytest.raises(TypeMismatchError, match="max_tokens must be an int"):
        generate(model, ["Once"], max_tokens=2.5)
    with pytest.raises(ShapeError, match=r"prompts must be \(batch, tokens\)"):
        generate(model, torch.zeros(0, 3, dtype=torch.int64))
    with pytest.raises(OutOfRangeError, match="the vocabulary is 0 to 299"):
        generate(model, torch.tensor([[300]]))


def test_models_that_write_no_text():
    sizes = {"vocabulary": 11, "width": 8, "heads": 2, "hidden": 8, "layers": 1}
    with pytest.raises(TypeMismatchError, match="EncoderDecoder; use pellucid translate"):
        generate(EncoderDecoder(Config(kind="encoder-decoder", **sizes)), ["Once"])
    with pytest.raises(TypeMismatchError, match="must be a Decoder, not Encode"):
        generate(Encoder(Config(kind="encoder", **sizes)), ["Once"])
    model = writer()
    model.tokenizer = None
    with pytest.raises(TypeMismatchError, match="no tokenizer; load it with one, or pass ids"):
        generate(model, ["Once"])
    with pytest.raises(TypeMismatchError, match="stop strings need"):
        generate(model, torch.tensor([[1]]), stop=["."])


def test_prompts_alone_are_read_in_bfloat16(monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    model, calls = writer(), []
    ids = torch.tensor(prompts_of((7,)))
    model.register_forward_pre_hook(lambda *_: calls.append(bfloat16._is_low.get()))
    pieces = stream(model, ids, max_tokens=3, precision="auto")
    next(pieces)
    assert not bfloat16._is_low.get()  # while nobody asks for the next piece
    assert len([*pieces]) == 2
    assert calls == [True, False, False]
    lost = digits_lost(model, ids[0].tolist())
    assert (lost.compared, calls[3:]) == (7, [True, False])
    with torch.no_grad():
        exact = model(ids)
        with products("bfloat16"):
            low = model(ids)
    assert 0 < lost.largest_difference == float((low.softmax(-1) - exact.softmax(-1)).abs().max())
