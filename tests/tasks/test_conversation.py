"""Conversations: each reply is what the whole text before it gives, read once."""

import pytest
import torch
from tests.checkpoints import byte_pairs
from tests.models.gguf_files import tiny, write

import pellucid
from pellucid import pretrained
from pellucid.errors import ArgumentError
from pellucid.models.checkpoints.generation import Generation
from pellucid.tasks.conversation import Conversation, prompt_of
from pellucid.tasks.generation import generate, stream
from pellucid.text.chat import rendered

pytest.importorskip("gguf")
pytest.importorskip("jinja2")
TEMPLATE = (
    "{% for message in messages %}<more 1>{{ message.role }} {{ message.content }}<more 2>"
    "{% endfor %}{% if add_generation_prompt %}<more 1>{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("chat") / "model.gguf"
    model = tiny("llama", layers=1)
    model.config.max_position_embeddings = 307
    changed = {"tokenizer.chat_template": TEMPLATE, "llama.context_length": 199}
    return pellucid.load(write(path, model, tokenizer=byte_pairs(), **changed))


def replied(talk, message, **options):
    *_, last = talk.reply(message, max_tokens=7, **options)
    return last.done


def test_replies_are_those_to_the_whole_conversation(model):
    talk, messages = Conversation(model, "Be brief."), [{"role": "system", "content": "Be brief."}]
    for message in ("Write", "a poem about", "rain"):
        found = replied(talk, message)
        messages.append({"role": "user", "content": message})
        text = rendered(model.tokenizer, messages)
        [expected] = generate(model, [text], max_tokens=7, plain=True)
        assert found.prompt_ids == model.tokenizer.encode([text], special=False)[0]
        assert found.ids == expected.ids
        messages.append({"role": "assistant", "content": found.text})
    assert talk.messages == messages


def test_what_was_read_is_not_read_again(model, monkeypatch):
    talk, read = Conversation(model), []
    forward = type(model).forward

    def counted(self, ids, *arguments, **options):
        read.append(ids.shape[1])
        return forward(self, ids, *arguments, **options)

    monkeypatch.setattr(type(model), "forward", counted)
    first = replied(talk, "Write a poem")
    read.clear()
    second = replied(talk, "b")
    new = len(second.prompt_ids) - len(first.prompt_ids) - len(first.ids)
    # Where its own text is encoded as it was written, only what comes after it; else a few more.
    assert read[0] < len(second.prompt_ids) - len(first.prompt_ids) + len(first.ids)
    assert read[0] >= new
    talk.clear()
    read.clear()
    assert replied(talk, "Write a poem").ids == first.ids
    assert read[0] == len(first.prompt_ids)


def test_a_conversation_that_is_too_long_stays_as_it_was(model):
    talk = Conversation(model)
    replied(talk, "Write")
    before = list(talk.messages)
    with pytest.raises(ArgumentError, match=r"the conversation has .* but the model has 199 pos"):
        replied(talk, "x" * 250)
    assert talk.messages == before
    assert replied(talk, "a") is not None


def test_a_reply_that_is_cut_short_counts_as_said(model):
    talk = Conversation(model)
    pieces = talk.reply("Write", max_tokens=7)
    said = next(pieces).text + next(pieces).text
    pieces.close()
    assert talk.messages[-1] == {"role": "assistant", "content": said}


def test_a_model_without_a_template_is_refused():
    with pytest.raises(ArgumentError, match="no chat template"):
        Conversation(pellucid.load(pretrained.DECODER))


# Stops --------------------------------------------------------------------------------------------


def test_a_special_token_stops(model):
    """It is no part of the text, where strings are looked for."""
    ids = torch.tensor([[3, 17, 5]])
    [free] = generate(model, ids, max_tokens=30)
    special = set(model.tokenizer.all_special_ids)
    at = next(at for at, token in enumerate(free.ids) if token in special)
    [found] = generate(model, ids, max_tokens=30, stop=[model.tokenizer.token(free.ids[at])])
    assert found.ids == free.ids[:at]
    assert found.stopped == "stop id"
    with pytest.raises(ArgumentError, match="a special token and other text"):
        generate(model, ids, stop=[model.tokenizer.token(free.ids[at]) + " a"])


def test_settings_of_the_checkpoint_are_heeded(model, monkeypatch):
    ids = torch.tensor([[3, 17, 5]])
    [free] = generate(model, ids, max_tokens=5)
    banned = {"suppress_tokens": [free.ids[0]]}
    monkeypatch.setattr(model, "generation", Generation(others=banned))
    [found] = generate(model, ids, max_tokens=5)
    assert free.ids[0] not in found.ids
    monkeypatch.setattr(model, "generation", Generation(others={"stop_strings": "e"}))
    [found] = generate(model, ["Write a poem about"], max_tokens=30)
    assert "e" not in found.text
    monkeypatch.setattr(model, "generation", Generation(others={"guidance_scale": 2.0}))
    with pytest.warns(UserWarning, match=r"guidance_scale = 2.0, which generation does not supp"):
        stream(model, ids)


def test_a_prompt_of_one_message(model):
    assert prompt_of(model, "Hi", "Be brief.") == (
        "<more 1>system Be brief.<more 2><more 1>user Hi<more 2><more 1>"
    )
