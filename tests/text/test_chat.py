"""Chat templates: the text of transformers, and no more than a text for a stranger's template."""

import json

import pytest
from tests.checkpoints import byte_pairs

from pellucid.errors import ArgumentError, FileError, MissingExtraError
from pellucid.text import chat
from pellucid.text.chat import rendered

pytest.importorskip("jinja2")

TURNS = [
    {"role": "user", "content": '  Hello,\n"you" & <b>é</b> 漢 '},
    {"role": "assistant", "content": "Hi."},
    {"role": "user", "content": "Bye"},
]
SYSTEM = {"role": "system", "content": "Be brief."}
TEMPLATES = {
    "marks around each message": """\
{%- for message in messages %}
    {%- if loop.first and message.role != 'system' %}
        {{- '<|start|>system\\nYou help.<|end|>\\n' }}
    {%- endif %}
    {{- '<|start|>' + message['role'] + '\\n' + message.content + '<|end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}
""",
    "instructions in brackets": """\
{% if messages[0]['role'] == 'system' %}
{% set rest = messages[1:] %}{% set told = messages[0]['content'] %}
{% else %}
{% set rest = messages %}{% set told = false %}
{% endif %}
{% for message in rest %}
    {% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
        {{ raise_exception('roles must alternate') }}
    {% endif %}
    {% if loop.index0 == 0 and told %}
        {% set content = '<<SYS>>' + told + '<</SYS>>' + message['content'] %}
    {% else %}
        {% set content = message['content'] %}
    {% endif %}
    {% if message['role'] == 'user' %}
        {{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
    {% else %}
        {{ ' ' + content | trim + ' ' + eos_token }}
    {% endif %}
{% endfor %}
""",
    "named roles, namespaces and JSON": """\
{{ bos_token }}{% set state = namespace(count=0) %}
{% for message in messages %}
{% if message.role == 'system' %}{% continue %}{% endif %}
{% set state.count = state.count + 1 %}
{% generation %}{{ message.content if message.role == 'assistant' }}{% endgeneration %}
<turn>{{ {'assistant': 'model'}.get(message.role, message.role) }} {{ state.count }}
{{ message | tojson }}{{ tools is none }}{{ message.content.split('l')[-1] | upper }}
{% endfor %}
{%- if add_generation_prompt %}<turn>model
{% endif %}
""",
    "JSON in every form": """\
{{ messages | tojson(sort_keys=true) }}{{ messages | tojson(separators=(",", ":")) }}
{{ messages | tojson(ensure_ascii=true) }}{{ messages | tojson(indent=2) }}
{{ messages | tojson(true, 1, [", ", " = "], true) }}
""",
    "a macro and the year": """\
{% macro head(role) %}[{{ role | title }}|{{ strftime_now('%Y') }}]{% endmacro %}
{% for message in messages %}{{ head(message.role) }}{{ message.content | length }}{% endfor %}
""",
}


def both(template):
    """Theirs and ours with a template."""
    theirs = byte_pairs()
    theirs.add_special_tokens({"bos_token": "<s>", "eos_token": "</s>"})
    theirs.chat_template = template
    from pellucid.text.tokenizer import Tokenizer

    ours = Tokenizer(byte_pairs().backend_tokenizer)
    ours.chat_template = template
    ours.named_tokens = {"bos_token": "<s>", "eos_token": "</s>"}
    return theirs, ours


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_conversation_is_rendered_as_transformers_does(name):
    theirs, ours = both(TEMPLATES[name])
    for messages, replies in (([SYSTEM, *TURNS], True), (TURNS, False)):
        expected = theirs.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=replies
        )
        assert rendered(ours, messages, replies=replies) == expected


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "fails: roles must alternate"),
        ("{% for %}", "its chat template fails: "),
        ("{{ missing.part.more }}", "its chat template fails: "),
        ("{{ messages.append(1) }}", "fails: .*(not safely callable|unsafe)"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "its chat template fails: .*unsafe"),
        ("{{ 'a' * 10 ** 10 }}", "fails: .*MemoryError|too much time or memory|longer than"),
        ("{{ 'ab' * 2 ** 22 }}", "its text is longer than 4,194,304 characters"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "its chat template fails: .*recursion"),
    ],
)
def test_a_template_that_does_harm_is_refused(template, reason):
    _, ours = both(template)
    with pytest.raises(FileError, match=reason) as error:
        rendered(ours, TURNS)
    assert "\n" not in str(error.value)


def test_a_template_without_end_is_stopped(monkeypatch):
    _, ours = both("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")
    monkeypatch.setattr(chat, "TIMEOUT", 1.5)
    with pytest.raises(FileError, match=r"its chat template (takes longer|needs too much time)"):
        rendered(ours, TURNS)


def test_what_is_missing_is_said(monkeypatch):
    _, ours = both(None)
    with pytest.raises(ArgumentError, match="the model has no chat template"):
        rendered(ours, TURNS)
    _, ours = both("x")
    monkeypatch.setattr(chat, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"pellucid\[chat\]"):
        rendered(ours, TURNS)


def test_templates_of_a_directory(tmp_path):
    from pellucid.text.tokenizer_files import load_tokenizer

    byte_pairs().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    assert load_tokenizer(tmp_path).chat_template is None
    named = [{"name": "tool", "template": "t"}, {"name": "default", "template": "d"}]
    for template, expected in (("one", "one"), (named, "d"), (7, None)):
        tokens = {"bos_token": {"content": "<s>"}, "eos_token": "</s>"}
        file.write_text(json.dumps({**settings, "chat_template": template, **tokens}))
        tokenizer = load_tokenizer(tmp_path)
        assert tokenizer.chat_template == expected
        assert tokenizer.named_tokens == {"bos_token": "<s>", "eos_token": "</s>"}
    (tmp_path / "chat_template.jinja").write_text("file\n")
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.chat_template == "file\n"
    tokenizer.save(tmp_path / "..")
    assert (tmp_path / ".." / "chat_template.jinja").read_text() == "file\n"


TOKENS = {
    "in the settings": ({"cls_token": "<c>", "sep_token": "<s>", "mask_token": "<m>"}, None),
    "as objects": (
        {"cls_token": {"__type": "AddedToken", "content": "<c>"}, "image_token": "<i>"},
        None,
    ),
    "extra ones by name": ({"extra_special_tokens": {"image_token": "<i>"}}, None),
    "extra ones in a list": ({"extra_special_tokens": ["<i>"]}, None),
    "in a file of their own": ({}, {"bos_token": "<b>", "unk_token": {"content": "<u>"}}),
    "that takes precedence": ({"bos_token": "<a>"}, {"bos_token": "<b>"}),
    "with extra ones": ({}, {"extra_special_tokens": {"image_token": "<i>"}}),
    "that is not read": (
        {"bos_token": "<a>", "added_tokens_decoder": {}},
        {"bos_token": "<b>", "sep_token": "<s>"},
    ),
}


@pytest.mark.parametrize("case", TOKENS)
def test_templates_name_the_special_tokens_of_transformers(case, tmp_path):
    from transformers import AutoTokenizer

    from pellucid.text.tokenizer_files import load_tokenizer

    settings, marks = TOKENS[case]
    names = ("bos", "eos", "unk", "pad", "cls", "sep", "mask", "image")
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": "|".join(f"{{{{ {name}_token }}}}" for name in names),
        **settings,
    }
    byte_pairs().backend_tokenizer.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    if marks is not None:
        (tmp_path / "special_tokens_map.json").write_text(json.dumps(marks))
    expected = AutoTokenizer.from_pretrained(tmp_path).apply_chat_template(TURNS, tokenize=False)
    assert rendered(load_tokenizer(tmp_path), TURNS) == expected
    is_given = "list" not in case
    assert (set(expected) != {"|"}) == is_given


def test_templates_without_a_default_are_named(tmp_path):
    from pellucid.text.tokenizer_files import load_tokenizer

    byte_pairs().save_pretrained(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    named = [{"name": "tool_use", "template": "t"}, {"name": "rag", "template": "r"}]
    file.write_text(json.dumps({**json.loads(file.read_text()), "chat_template": named}))
    (tmp_path / "additional_chat_templates").mkdir()
    (tmp_path / "additional_chat_templates/plan.jinja").write_text("p")
    told = r"for other purposes \(plan, rag, tool_use\), but none is its 'default'; .*\.jinja$"
    with pytest.raises(ArgumentError, match=told):
        rendered(load_tokenizer(tmp_path), TURNS)
    (tmp_path / "chat_template.jinja").write_text("mine")
    assert rendered(load_tokenizer(tmp_path), TURNS) == "mine"
