"""A generation for the page: what was written, what was looked at, what else it could have been."""

from itertools import chain

import pytest
import tokenizers
import torch
import transformers

from pellucid import Recording, lens, pretrained
from pellucid.errors import ArgumentError, FileError, OutOfRangeError
from pellucid.models import Config, Encoder, load
from pellucid.models.checkpoints.generation import Generation
from pellucid.tasks.generation import generate
from pellucid.tasks.translation import translate
from pellucid.viewer.api import Api
from pellucid.viewer.catalogue import Catalogue, Volume
from pellucid.viewer.generated import ALTERNATIVES, recorded_generation
from tests import writers
from tests.viewer import recordings

PROMPT, NEW = "Once upon a time", 13
SOURCE = "The king sent his servant to the city."


def record(model, directory, text=PROMPT, layers=None, new=NEW):
    model.save(directory)
    return recorded_generation(text, text, str(directory), layers, new, lambda *_: None)


def probabilities(model, ids, prompt):
    """(new tokens, vocabulary) in float64, of one pass over the whole text."""
    with torch.no_grad():
        logits = model.double()(torch.tensor([ids[:-1]]))[0, prompt - 1 :]
    return logits.softmax(-1)


def check_steps(written, shares):
    """The likeliest with their probabilities, and the one that was written."""
    new = written.ids[written.prompt :]
    assert len(written.steps) == len(new) == len(shares)
    for step, number, row in zip(written.steps, new, shares, strict=True):
        ids = [one for one, _ in step]
        assert ids[:ALTERNATIVES] == row.topk(ALTERNATIVES).indices.tolist()
        assert number in ids
        assert len(ids) == ALTERNATIVES + (number not in ids[:ALTERNATIVES])
        for one, share in step:
            assert share == pytest.approx(row[one].item(), rel=1e-4)


def test_what_a_decoder_writes(tmp_path):
    model = writers.writer()
    volume = record(model, tmp_path)
    [expected] = generate(model, [PROMPT], max_tokens=NEW)
    written = volume.written
    assert written.ids == [*expected.prompt_ids, *expected.ids]
    assert written.prompt == len(expected.prompt_ids)
    assert volume.title == PROMPT
    greedy = "Decoding was greedy: the most likely token each time. "
    assert written.how == f"{greedy}Generation stopped at the limit of 13 new tokens."
    check_steps(written, probabilities(model, written.ids, written.prompt))
    # The likeliest was taken.
    assert all(
        step[0][0] == number for step, number in zip(written.steps, expected.ids, strict=True)
    )


def test_its_attention_is_that_of_all_that_was_read(tmp_path):
    model = writers.writer()
    volume = record(model, tmp_path)
    ids = torch.tensor([volume.written.ids[:-1]])
    with torch.no_grad():
        _, seen = model(ids, watch=True)
    assert volume.seen.names == seen.names
    for name in seen.names:
        assert torch.equal(volume.seen.record(name).query_ids, ids)
        weights = volume.seen[name].dense()
        torch.testing.assert_close(weights, seen[name].dense(), rtol=1e-5, atol=1e-7)
        assert volume.seen.record(name).value is not None


def test_a_penalty_is_said_and_what_was_written_is_among_the_alternatives(tmp_path):
    model = writers.writer(seed=11)
    model.generation = Generation(repetition_penalty=7.0)
    written = record(model, tmp_path, new=29).written
    assert "repetition penalty of 7" in written.how
    assert max(map(len, written.steps)) == ALTERNATIVES + 1
    check_steps(written, probabilities(model, written.ids, written.prompt))


def test_a_stop_is_the_last_token(tmp_path):
    [free] = generate(writers.writer(seed=1), [PROMPT], max_tokens=NEW)
    place = next(i for i, number in enumerate(free.ids) if i > 2 and number not in free.ids[:i])
    written = record(writers.writer(seed=1, stop=(free.ids[place],)), tmp_path).written
    assert written.ids[written.prompt :] == free.ids[: place + 1]
    assert written.how.endswith("The model ended the text.")


def test_it_ends_where_the_positions_do(tmp_path):
    written = record(writers.writer(positions=23), tmp_path).written
    assert len(written.ids) == 23
    assert written.how.endswith("Generation stopped at the model's last position.")


def test_layers_are_chosen(tmp_path):
    assert record(writers.writer(), tmp_path, layers=[1]).seen.names == [
        "decoder.blocks.1.attention"
    ]


def test_a_translation():
    volume = recordings.translated()
    model = load(pretrained.TRANSLATOR)
    [expected] = translate(model, [SOURCE])
    written = volume.written
    assert written.ids == [model.config.start, *expected.ids]
    assert written.prompt == 1
    source, target = torch.tensor([expected.source_ids]), torch.tensor([written.ids[:-1]])
    with torch.no_grad():
        shares = model.double()(source, target)[0].softmax(-1)
    check_steps(written, shares)
    [cross] = [one for one in volume.seen.records if one.name == "decoder.blocks.2.cross"]
    assert torch.equal(cross.key_ids, source)
    assert torch.equal(cross.query_ids, target)
    assert written.how.endswith("The model ended the text.")


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """A decoder of a family that only transformers knows."""
    directory = tmp_path_factory.mktemp("foreign")
    torch.manual_seed(17)
    config = transformers.PersimmonConfig(
        vocab_size=writers.VOCABULARY,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=37,
        max_position_embeddings=41,
        initializer_range=0.7,
        bos_token_id=0,
        eos_token_id=0,
        pad_token_id=0,
    )
    transformers.PersimmonForCausalLM(config).save_pretrained(directory)
    inner = tokenizers.Tokenizer.from_str(writers.trained())
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner).save_pretrained(directory)
    return directory


def test_a_model_of_transformers(foreign):
    with pytest.raises(FileError, match="known families are"):
        load(foreign)
    volume = recorded_generation(PROMPT, PROMPT, str(foreign), None, NEW, lambda *_: None)
    model = transformers.AutoModelForCausalLM.from_pretrained(foreign)
    written = volume.written
    ids = torch.tensor([written.ids[: written.prompt]])
    found = model.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW, do_sample=False
    )
    assert written.ids == found[0].tolist()
    assert volume.seen.strings(ids[0]) == [writers.tokenizer().token(i) for i in ids[0].tolist()]
    with torch.no_grad():
        logits = model.double()(torch.tensor([written.ids[:-1]])).logits[0, written.prompt - 1 :]
    check_steps(written, logits.softmax(-1))
    assert [layer.is_causal for layer in Catalogue(volume).layers] == [True, True]


def test_one_of_transformers_ends_where_its_positions_do(foreign):
    written = recorded_generation(PROMPT, PROMPT, str(foreign), None, 97, lambda *_: None).written
    assert len(written.ids) <= 41 + 1
    if written.ids[-1] != 0:
        assert written.how.endswith("Generation stopped at the model's last position.")
    with pytest.raises(ArgumentError, match=r"the text has \d+ tokens, but .* for 41"):
        recorded_generation(PROMPT * 20, "long", str(foreign), None, 2, lambda *_: None)


def test_what_cannot_be(tmp_path):
    def none(*_):
        pass

    with pytest.raises(ArgumentError, match=r"--new-tokens must be from 1 to .*, not 0"):
        recorded_generation(PROMPT, PROMPT, None, None, 0, none)
    with pytest.raises(ArgumentError, match="the text is empty"):
        record(writers.writer(), tmp_path / "a", text="  ")
    with pytest.raises(ArgumentError, match=r"the text has .* has 5 positions"):
        record(writers.writer(positions=5), tmp_path / "b")
    untold = writers.writer()
    untold.tokenizer = None
    with pytest.raises(ArgumentError, match="has no tokenizer"):
        record(untold, tmp_path / "c")
    encoder = Encoder(Config(kind="encoder", vocabulary=300, width=6, layers=1, heads=1, hidden=7))
    encoder.tokenizer = writers.tokenizer()
    with pytest.raises(ArgumentError, match="is an encoder and cannot generate text"):
        record(encoder, tmp_path / "d")


# What the page is told.


@pytest.fixture(scope="module")
def told():
    return {name: getattr(recordings, name)() for name in ("written", "translated")}


def ask(volume, path, **options):
    return Api(Catalogue(volume)).ask(path, options).find()


def test_words_and_alternatives(told):
    volume = told["written"]
    answer = ask(volume, "written/0")
    assert answer["prompt"] == volume.written.prompt
    assert "".join(answer["words"]).startswith(PROMPT)
    assert len(answer["words"]) == len(volume.written.ids)
    for step, kept, place in zip(
        answer["steps"], volume.written.steps, range(answer["prompt"], 99), strict=False
    ):
        assert [one["probability"] for one in step] == [share for _, share in kept]
        [new] = [one["word"] for one in step if one["is_written"]]
        assert new == answer["words"][place]
    assert ask(Volume(volume.seen, "x"), "written/0")["words"] is None
    with pytest.raises(OutOfRangeError, match="no recording 1; there are 1"):
        ask(volume, "written/1")


def test_no_score_is_larger_than_budgets_have_it(told):
    names = ("decoder", "encoder", "both", "batch", "made")
    seen = [*(one.seen for one in told.values()), *(getattr(recordings, name)() for name in names)]
    for record in chain.from_iterable(one.latest() for one in seen):
        assert record.weights.scaled[...].abs().max() <= recordings.LARGEST


def test_rectangles_of_weights(told):
    volume = told["written"]
    weights = volume.seen.latest()[1].weights.dense()[0]
    found = ask(volume, "weights/1/0/2/3/5", queries="7", keys="11").values
    assert torch.allclose(found, weights[2, 3:10, 5:16], rtol=recordings.ROUNDING)
    assert torch.allclose(
        ask(volume, "mean/1/0/3/0").values, weights[:, 3:].mean(0), rtol=recordings.ROUNDING
    )
    for path in ("weights/1/0/3/0/0", "weights/1/0/0/0/999", "mean/1/1/0/0", "mean/2/0/0/0"):
        with pytest.raises(OutOfRangeError):
            ask(volume, path)
    wide = recordings.made(16_411, 1, 1)
    with pytest.raises(ArgumentError, match="at most 4,194,304 weights"):
        ask(Volume(wide, "wide"), "mean/0/0/0/0")


def test_the_alignment_is_that_of_the_head_that_the_model_names(told):
    volume = told["translated"]
    answer = ask(volume, "alignment/0/0")
    expected = lens.align(volume.seen, layers=["decoder.blocks.2.cross"], heads=0)
    assert answer["source"] == expected.source
    assert answer["target"] == expected.target
    assert torch.allclose(
        torch.tensor(answer["weights"]), expected.weights, rtol=recordings.ROUNDING
    )
    assert answer["of"] == "layer x2, head 0, which the model lists for alignment"


def test_else_it_is_that_of_all(told):
    seen = told["translated"].seen
    volume = Volume(Recording(seen.model, seen.records, vocabulary=seen._vocabulary), "saved")
    answer = ask(volume, "alignment/0/0")
    expected = lens.align(volume.seen)
    assert torch.allclose(
        torch.tensor(answer["weights"]), expected.weights, rtol=recordings.ROUNDING
    )
    assert answer["of"] == "the mean over all layers and heads"


def test_the_alignment_of_each_head(told):
    volume = told["translated"]
    layers = Catalogue(volume).layers
    layer = next(i for i, one in enumerate(layers) if one.name == "decoder.blocks.3.cross")
    found = ask(volume, f"aligned/{layer}/0").values
    for head in range(layers[layer].heads):
        expected = lens.align(volume.seen, layers=[layers[layer].name], heads=head)
        assert torch.allclose(found[head], expected.weights, rtol=recordings.ROUNDING)
    with pytest.raises(ArgumentError, match="is not cross-attention"):
        ask(volume, "aligned/0/0")
    with pytest.raises(ArgumentError, match="needs the cross-attention"):
        ask(told["written"], "alignment/0/0")


def test_the_last_word_is_there_though_nothing_read_it(told):
    """A translation that was cut off has no stop behind its last word."""
    text, model = SOURCE, str(pretrained.TRANSLATOR)
    volume = recorded_generation(text, text, model, None, 4, lambda *_: None)
    volume = volume._replace(written=volume.written._replace(ids=[*volume.written.ids[:-1], 900]))
    last = volume.seen.strings(torch.tensor([900]))[0].lstrip("Ġ▁")
    assert ask(volume, "alignment/0/0")["target"][-1].endswith(last)
