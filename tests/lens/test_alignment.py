"""Alignments of tiny encoder-decoders against the mean of their own cross-attentions."""

import pytest
import torch
import transformers

import pellucid
from pellucid.errors import ArgumentError, OutOfRangeError, TypeMismatchError, UnknownNameError
from pellucid.lens import Recording, align
from pellucid.lens.alignment import Alignment, Link
from pellucid.lens.spelling import Word

VOCABULARY = ["<pad>", "</s>", "▁the", "▁cat", "s", "▁sat", "▁die", "▁Katze", "n", "▁sass", "en"]
LAYERS, HEADS = 2, 3
SOURCE = [[2, 3, 4, 5, 1, 0, 0], [2, 3, 5, 2, 3, 5, 1]]  # the cats sat; the cat sat the cat sat
TARGET = [[0, 6, 7, 8, 9, 10, 1], [0, 6, 7, 9, 1, 0, 0]]  # die Katzen sassen; die Katze sass


class Tokenizer:
    """What a recording asks of one."""

    all_special_ids = (0, 1)

    def convert_ids_to_tokens(self, ids):
        return [VOCABULARY[number] for number in ids]


def build(implementation="sdpa"):
    torch.manual_seed(23)
    config = transformers.MarianConfig(
        vocab_size=len(VOCABULARY),
        d_model=33,
        encoder_layers=LAYERS,
        decoder_layers=LAYERS,
        encoder_attention_heads=HEADS,
        decoder_attention_heads=HEADS,
        encoder_ffn_dim=13,
        decoder_ffn_dim=13,
        pad_token_id=0,
        eos_token_id=1,
        decoder_start_token_id=0,
        max_position_embeddings=53,
        init_std=0.5,
    )
    return transformers.MarianModel._from_config(config, attn_implementation=implementation).eval()


def given():
    source = torch.tensor(SOURCE)
    return {
        "input_ids": source,
        "attention_mask": (source != 0).long(),
        "decoder_input_ids": torch.tensor(TARGET),
    }


def watched(tokenizer=None):
    model = build()
    with torch.no_grad(), pellucid.watch(model, tokenizer=tokenizer) as seen:
        model(**given())
    return seen


@pytest.fixture(scope="module")
def truth():
    """(layers, batch, heads, targets, sources) of the eager model."""
    with torch.no_grad():
        return torch.stack(build("eager")(**given(), output_attentions=True).cross_attentions)


def by_definition(mean, source, target, shift):
    """Sums over the tokens of source words, means over those of target words."""
    return torch.tensor(
        [
            [
                sum(float(mean[row - shift, col]) for row in rows for col in cols) / len(rows)
                for cols in source
            ]
            for rows in target
        ]
    )


@pytest.mark.parametrize("shift", [True, False])
def test_words_are_sums_and_means_of_the_models_own_weights(truth, shift):
    seen = watched(Tokenizer())
    found = align(seen, shift=shift)
    assert found.source == ["the", "cats", "sat"]
    assert found.target == ["die", "Katzen", "sassen"]
    mean = truth[:, 0].mean((0, 1))
    expected = by_definition(mean, [[0], [1, 2], [3]], [[1], [2, 3], [4, 5]], shift)
    torch.testing.assert_close(found.weights, expected, atol=1e-5, rtol=1e-4)

    found = align(seen, item=1, shift=shift)
    assert found.source == ["the", "cat", "sat"] * 2
    mean = truth[:, 1].mean((0, 1))
    expected = by_definition(mean, [[0], [1], [2], [3], [4], [5]], [[1], [2], [3]], shift)
    torch.testing.assert_close(found.weights, expected, atol=1e-5, rtol=1e-4)


def test_layers_and_heads_are_chosen(truth):
    seen = watched(Tokenizer())
    places = [[0], [1, 2], [3]], [[1], [2, 3], [4, 5]]
    for layers, heads, mean in (
        (1, None, truth[1, 0].mean(0)),
        (-1, 2, truth[1, 0, 2]),
        ("*layers.0.encoder_attn", [0, -1], truth[0, 0, [0, 2]].mean(0)),
    ):
        found = align(seen, layers=layers, heads=heads)
        expected = by_definition(mean, *places, True)
        torch.testing.assert_close(found.weights, expected, atol=1e-5, rtol=1e-4)


def test_words_may_be_given_and_the_last_row_wrote_one_that_none_read(truth):
    seen = watched()
    source = [Word("all of it", (0, 1, 2, 3))]
    target = [Word("first", (1,)), Word("written", (7,))]
    found = align(seen, source_words=source, target_words=target)
    mean = truth[:, 0].mean((0, 1))
    expected = mean[[0, 6], :4].sum(-1, keepdim=True)
    torch.testing.assert_close(found.weights, expected, atol=1e-5, rtol=1e-4)


def test_without_a_tokenizer_each_token_is_a_word_and_padding_is_left_out():
    found = align(watched())
    assert found.source == ["2", "3", "4", "5", "1"]
    assert found.target == ["6", "7", "8", "9", "10", "1"]
    torch.testing.assert_close(found.weights.sum(-1), torch.ones(6))


def test_a_generation_is_aligned_as_one_pass_over_what_it_wrote():
    torch.manual_seed(23)
    config = build().config
    model = transformers.MarianMTModel._from_config(config).eval()
    source = torch.tensor(SOURCE)
    inputs = {"input_ids": source, "attention_mask": (source != 0).long()}
    with torch.no_grad():
        with pellucid.watch(model, tokenizer=Tokenizer()) as seen:
            written = model.generate(
                **inputs, max_new_tokens=7, min_new_tokens=7, num_beams=1, do_sample=False
            )
        with pellucid.watch(model, tokenizer=Tokenizer()) as again:
            model(**inputs, decoder_input_ids=written[:, :-1])
    one, other = ([Word(str(i), (i,)) for i in range(1, 7)] for _ in range(2))
    found = align(seen, item=1, target_words=one)
    expected = align(again, item=1, target_words=other)
    assert found.source == ["the", "cat", "sat"] * 2
    torch.testing.assert_close(found.weights, expected.weights, atol=1e-5, rtol=1e-4)


def test_a_beam_search_is_aligned_as_one_pass_over_a_beam():
    model = transformers.MarianMTModel._from_config(build().config).eval()
    source = torch.tensor(SOURCE[:1])
    inputs = {"input_ids": source, "attention_mask": (source != 0).long()}
    with torch.no_grad(), pellucid.watch(model) as seen:
        model.generate(**inputs, num_beams=3, max_new_tokens=5, min_new_tokens=5)
    name = "model.decoder.layers.0.encoder_attn"
    written = seen.record(name).query_ids
    with torch.no_grad(), pellucid.watch(model) as again:
        model(**inputs, decoder_input_ids=written[1:2])
    found, expected = align(seen, item=1), align(again)
    assert found.source == expected.source
    torch.testing.assert_close(found.weights, expected.weights, atol=1e-6, rtol=1e-4)


def test_it_shows_what_is_strongest():
    weights = torch.tensor([[0.9, 0.05, 0.0], [0.1, 0.3, 0.6]])
    found = Alignment(weights, ["the", "cat", "<b>"], ["die", "Katze"])
    assert [link[:2] for link in found.best()] == [("die", "the"), ("Katze", "<b>")]
    assert isinstance(found.best()[0], Link)
    assert found.best()[0].weight == pytest.approx(0.9)
    lines = repr(found).splitlines()
    assert lines == ["       the  cat  <b>", "  die  ███", "Katze       ░░░  ▓▓▓"]
    page = found._repr_html_()
    assert "<th>&lt;b&gt;</th>" in page
    assert page.count("<td") == 6
    assert ">90</td>" in page


def test_wide_letters_and_long_words_keep_their_columns():
    words = ["猫", "Donaudampfschifffahrt", "."]
    found = Alignment(torch.eye(3), words, words)
    lines = repr(found).splitlines()
    assert lines[0].endswith("猫  Donaudampfsch…  .")
    assert lines[2] == "Donaudampfsch…      " + "█" * 14
    assert lines[3].endswith(".  " + " " * 2 + "  " + " " * 14 + "  █")


def test_errors_say_what_to_do():
    with pytest.raises(ArgumentError, match=r"needs the cross-attention.*recorded: nothing"):
        align(Recording("Nothing"))
    seen = watched(Tokenizer())
    with pytest.raises(OutOfRangeError, match="item is 2"):
        align(seen, item=2)
    with pytest.raises(OutOfRangeError, match="no head 3: these layers have 3"):
        align(seen, heads=3)
    with pytest.raises(TypeMismatchError, match="heads must be ints"):
        align(seen, heads=["first"])
    with pytest.raises(TypeMismatchError, match=r"heads must be ints, got 1\.0"):
        align(seen, heads=1.0)
    with pytest.raises(TypeMismatchError, match=r"seen must be a Recording, .* got MarianModel"):
        align(build())
    with pytest.raises(ArgumentError, match="at least one"):
        align(seen, heads=[])
    with pytest.raises(UnknownNameError, match="'encoder'"):
        align(seen, layers="encoder")
    with pytest.raises(OutOfRangeError, match="source_words has 'x' at"):
        align(seen, source_words=[Word("x", (7,))])
    with pytest.raises(OutOfRangeError, match="target_words has 'x' at"):
        align(seen, target_words=[Word("x", (7,))], shift=False)
    with pytest.raises(ArgumentError, match="no words of the target"):
        align(seen, target_words=[Word("x", (0,))])

    model = build()
    inputs = given()
    embedded = {
        "inputs_embeds": model.get_encoder().embed_tokens(inputs["input_ids"]).detach() * 1,
        "decoder_input_ids": inputs["decoder_input_ids"],
    }
    with torch.no_grad(), pellucid.watch(model) as seen:
        model(**embedded)
    with pytest.raises(ArgumentError, match="the source tokens are unknown"):
        align(seen)
