"""`pellucid chat` and `generate --chat`, as a user runs them."""

import pytest

from tests.checkpoints import byte_pairs
from tests.models.gguf_files import tiny, write

pytest.importorskip("gguf")
pytest.importorskip("jinja2")
TEMPLATE = (
    "{% for message in messages %}<more 1>{{ message.content }}<more 2>{% endfor %}"
    "{% if add_generation_prompt %}<more 3>{% endif %}"
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("chat") / "model.gguf"
    changed = {"tokenizer.chat_template": TEMPLATE, "llama.context_length": 97}
    return write(path, tiny("llama", layers=1), tokenizer=byte_pairs(), **changed)


def test_lines_are_answered_in_turn(run, model):
    once = run("chat", "--model", model, "--max-tokens", 5, stdin="Write\n")
    assert once[0] == 0
    assert once[2] == "pellucid: the reply ended at --max-tokens\n"
    twice = run(
        "chat", "--model", model, "--max-tokens", 5, stdin="Write\n\n/clear\nWrite\n/quit\nb"
    )
    assert twice[0] == 0
    assert twice[1] == 2 * once[1]
    assert "pellucid: a new conversation begins\n" in twice[2]


def test_a_reply_is_that_of_generate(run, model):
    chat = run("chat", "--model", model, "--max-tokens", 5, "--system", "Hi", stdin="Write")
    one = run("generate", "--model", model, "--max-tokens", 5, "--chat", "--system", "Hi", "Write")
    assert chat[:2] == one[:2]
    assert "Write" not in one[1]


def test_look_shows_what_a_reply_attended_to(run, model):
    status, out, err = run(
        "chat", "--model", model, "--max-tokens", 5, stdin="/look\nWrite\n/look\n/x"
    )
    assert status == 0
    assert "pellucid: there is no reply to look at yet" in err
    assert "pellucid: there is no command /x; /help lists them" in err
    assert "What each new word attended to" in out or "No new word" in out


def test_a_conversation_that_is_too_long_says_so(refused, model):
    line = refused("chat", "--model", model, stdin="x" * 120)
    assert line == "the conversation has 123 tokens, but the model has 97 positions"


def test_what_cannot_chat_says_so(refused, model):
    line = refused("chat", "--model", "decoder", stdin="Hi")
    assert line.endswith("the model has no chat template: it was not made for conversations")
    line = refused("generate", "--model", model, "--system", "Hi", "Write")
    assert line == "--system is for conversations; give --chat too"
