"""Chat templates: the text that a model was trained to read a conversation as."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pellucid.common.untrusted import MOST_NAMED, json_in, text_in
from pellucid.common.wording import short
from pellucid.errors import ArgumentError, FileError, MissingExtraError
from pellucid.text import chat_worker
from pellucid.text.tokenizer import Tokenizer

FILE = "chat_template.jinja"
SETTINGS = "tokenizer_config.json"
MOST_TEMPLATE = 2**20
"""Characters of a template; the longest known have a fiftieth."""
TIMEOUT = 20
"""Seconds, also on a busy machine; the process itself has fewer of the processor."""
MARKS = "special_tokens_map.json"
DEFAULT = "default"
MORE = "additional_chat_templates"
"""The folder of templates beside that of `FILE`, each named as its file."""

Message = Mapping[str, str]
"""A role, such as "system", "user" or "assistant", and its content."""


def read_template(tokenizer: Tokenizer, directory: Path, settings: Mapping[str, Any]) -> None:
    """Give a tokenizer its template, and the special tokens that this may name.

    Args:
        tokenizer: of the checkpoint.
        directory: of the checkpoint.
        settings: the content of its tokenizer_config.json.

    Raises:
        FileError: the file of the template cannot be read.
    """
    templates = _templates(directory, settings)
    tokenizer.chat_template = templates.pop(DEFAULT, None)
    tokenizer.other_templates = tuple(sorted(templates))
    tokenizer.named_tokens |= _named_tokens(directory, settings)


def _templates(directory: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """The templates by name; one without a name is the default."""
    setting = settings.get("chat_template")
    if isinstance(setting, list):
        setting = {
            entry.get("name"): entry.get("template") for entry in setting if isinstance(entry, dict)
        }
    templates = setting if isinstance(setting, dict) else {DEFAULT: setting}
    if (directory / FILE).is_file():
        templates = {DEFAULT: text_in(directory, FILE, 4 * MOST_TEMPLATE)}
    more = {file.stem: "" for file in (directory / MORE).glob("*.jinja")}
    return {
        name: template
        for name, template in {**more, **templates}.items()
        if isinstance(name, str) and isinstance(template, str)
    }


def _named_tokens(directory: Path, settings: Mapping[str, Any]) -> dict[str, str]:
    """Special tokens under the names that templates use, such as bos_token or image_token.

    Older checkpoints have them in a file of their own, which takes precedence; newer ones, with all
    added tokens in tokenizer_config.json, may still have that file, but it is not read.
    """
    merged = dict(settings)
    if "added_tokens_decoder" not in settings and (directory / MARKS).is_file():
        merged |= json_in(directory, MARKS)
    extra = merged.get("extra_special_tokens")
    named = {name: token for name, token in merged.items() if name.endswith("_token")}
    named |= extra if isinstance(extra, dict) else {}
    contents = {
        name: token.get("content") if isinstance(token, dict) else token
        for name, token in named.items()
    }
    return {name: token for name, token in contents.items() if isinstance(token, str)}


def template_of(tokenizer: Tokenizer) -> str:
    """The template of a tokenizer.

    Raises:
        ArgumentError: it has none, or none that is the default.
    """
    if tokenizer.chat_template is not None:
        return tokenizer.chat_template
    if tokenizer.other_templates:
        names = ", ".join(short(name, 40) for name in tokenizer.other_templates[:MOST_NAMED])
        raise ArgumentError(
            f"the model has chat templates for other purposes ({names}), but none is its "
            f"'{DEFAULT}'; if you want one of them, save it in the model's directory as {FILE}"
        )
    raise ArgumentError("the model has no chat template: it was not made for conversations")


def rendered(tokenizer: Tokenizer, messages: Sequence[Message], *, replies: bool = True) -> str:
    """A conversation as one text, as `apply_chat_template` of transformers makes it.

    The template runs in Jinja's sandbox, in a process with little memory and time.

    Args:
        tokenizer: with the template of its model.
        messages: the conversation so far.
        replies: end where the model's reply begins.

    Raises:
        ArgumentError: the model has no template, or none that is the default.
        FileError: the template fails, or refuses the conversation.
        MissingExtraError: Jinja is not installed.
    """
    template = template_of(tokenizer)
    if len(template) > MOST_TEMPLATE:
        raise FileError(f"its chat template has {len(template):,} characters")
    if find_spec("jinja2") is None:
        raise MissingExtraError.of("chat templates need jinja2", "chat")
    variables = {
        "messages": [dict(message) for message in messages],
        "add_generation_prompt": replies,
        "tools": None,
        "documents": None,
        **tokenizer.named_tokens,
    }
    request = json.dumps({"template": template, "variables": variables})
    try:
        done = subprocess.run(
            [sys.executable, "-P", chat_worker.__file__],
            input=request.encode(),
            capture_output=True,
            timeout=TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise FileError(f"its chat template takes longer than {TIMEOUT} s") from error
    try:
        result = json.loads(done.stdout)
    except ValueError as error:
        raise FileError("its chat template needs too much time or memory") from error
    if "error" in result:
        raise FileError(f"its chat template fails: {result['error']}")
    text: str = result["text"]
    return text
