"""Models of ours are watched under the names that transformers' have."""

import pytest
import torch
import transformers
from tests import translators, writers

import pellucid
from pellucid import pretrained
from pellucid.errors import ArgumentError, OutOfRangeError
from pellucid.readers import open_checkpoint

TEXT = "The king sent his servant to the city."

pytestmark = pytest.mark.filterwarnings("ignore:Recommended. pip install sacremoses")


def test_an_encoder_decoder_opens_as_its_encoder():
    model = pellucid.load("translator")
    found = open_checkpoint("translator")
    assert found.name == "Pellucid's translator (its encoder)"
    assert not found.is_both
    assert found.starts_target is None
    ids = torch.tensor(model.tokenizer.encode([TEXT]))
    with pellucid.watch(found.model, tokenizer=found.tokenizer) as seen:
        output = found.run(input_ids=ids, attention_mask=torch.ones_like(ids))
    with torch.no_grad(), pellucid.watch(model) as expected:
        assert torch.equal(output, model.encode(ids))
    assert seen.names == [f"blocks.{layer}.attention" for layer in range(model.config.layers)]
    for name in seen.names:
        assert torch.equal(seen[name].dense(), expected[f"encoder.{name}"].dense())
    with pytest.raises(OutOfRangeError, match="ids has the id 4096"):
        found.run(input_ids=torch.tensor([[4096]]))


def test_an_encoder_decoder_opens_whole():
    found = open_checkpoint("translator", whole=True)
    assert found.name == "Pellucid's translator"
    assert found.is_both
    assert found.starts_target == found.model.config.start == 0


@pytest.mark.parametrize("name", ["decoder", "sentiment"])
def test_a_watch_spells_by_our_tokenizer(name):
    model = pellucid.load(name)
    ids = torch.tensor(model.tokenizer.encode([TEXT]))
    with torch.no_grad(), pellucid.watch(model, tokenizer=model.tokenizer) as seen:
        model(ids)
    words = seen.strings(ids[0])
    assert words == [model.tokenizer.token(number) for number in ids[0].tolist()]
    assert any("king" in word for word in words)
    marks = ids[0].tolist()[:1] if name == "decoder" else []
    assert set(marks) <= seen.special_ids < set(range(len(model.tokenizer)))


def test_tokens_of_ours_hold_no_control_characters():
    tokenizer = writers.tokenizer()
    tokenizer.inner.add_tokens(["a\x1bb"])
    number = tokenizer.inner.token_to_id("a\x1bb")
    assert tokenizer.token(number) == "a\x1bb"
    assert tokenizer.convert_ids_to_tokens([number]) == ["a\ufffdb"]
    assert tokenizer.convert_ids_to_tokens(10**6) == "<1000000>"


def test_a_name_is_that_of_the_directory(tmp_path):
    directory = tmp_path / "mine"
    writers.writer().save(directory)
    assert open_checkpoint(directory).name == "mine"
    assert open_checkpoint(pretrained.DECODER).name == "Pellucid's decoder"
    bare = writers.writer()
    bare.tokenizer = None
    bare.save(tmp_path / "bare")
    with pytest.raises(ArgumentError, match=r"model '.*bare' has no tokenizer$"):
        open_checkpoint(tmp_path / "bare")


@pytest.fixture(scope="module")
def marian(tmp_path_factory):
    return translators.marian(tmp_path_factory.mktemp("marian"))


def test_a_tokenizer_of_pieces(marian, tmp_path):
    """Which has one model for what is read and one for what is written."""
    pellucid.load(marian).save(tmp_path)
    found = open_checkpoint(tmp_path, whole=True)
    theirs = transformers.MarianTokenizer.from_pretrained(marian)
    source, target = translators.ENGLISH.splitlines()[1], translators.SPANISH.splitlines()[1]
    read = found.tokenizer(source, truncation=False)["input_ids"]
    written = found.tokenizer(text_target=target, truncation=False)["input_ids"]
    assert read == theirs(source)["input_ids"]
    assert written == theirs(text_target=target)["input_ids"]
    assert found.tokenizer(source, truncation=True, max_length=7)["input_ids"] == [*read[:6], 0]
    assert found.tokenizer.num_special_tokens_to_add() == 1
    assert found.tokenizer.get_special_tokens_mask(read) == [0] * (len(read) - 1) + [1]
    with pellucid.watch(found.model, tokenizer=found.tokenizer) as seen:
        found.run(input_ids=torch.tensor([read]), decoder_input_ids=torch.tensor([written]))
    assert seen.strings(torch.tensor(read)) == theirs.convert_ids_to_tokens(read)
