"""Chat templates: the text that a model was trained to read a conversation as."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pellucid.common.untrusted import text_in
from pellucid.errors import ArgumentError, FileError, MissingExtraError
from pellucid.text import chat_worker
from pellucid.text.tokenizer import Tokenizer

FILE = "chat_template.jinja"
SETTINGS = "tokenizer_config.json"
MOST_TEMPLATE = 2**20
"""Characters of a template; the longest known have a fiftieth."""
TIMEOUT = 20
"""Seconds, also on a busy machine; the process itself has fewer of the processor."""
NAMED = ("bos_token", "eos_token", "unk_token", "pad_token")

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
    template = settings.get("chat_template")
    if isinstance(template, list):  # several, by name
        named = {one.get("name"): one.get("template") for one in template if isinstance(one, dict)}
        template = named.get("default")
    if (directory / FILE).is_file():
        template = text_in(directory, FILE, 4 * MOST_TEMPLATE)
    tokenizer.chat_template = template if isinstance(template, str) else None
    for name in NAMED:
        token = settings.get(name)
        token = token.get("content") if isinstance(token, dict) else token
        if isinstance(token, str):
            tokenizer.named_tokens[name] = token


def rendered(tokenizer: Tokenizer, messages: Sequence[Message], *, replies: bool = True) -> str:
    """A conversation as one text, as `apply_chat_template` of transformers makes it.

    The template runs in Jinja's sandbox, in a process with little memory and time.

    Args:
        tokenizer: with the template of its model.
        messages: the conversation so far.
        replies: end where the model's reply begins.

    Raises:
        ArgumentError: the model has no template.
        FileError: the template fails, or refuses the conversation.
        MissingExtraError: Jinja is not installed.
    """
    template = tokenizer.chat_template
    if template is None:
        raise ArgumentError("the model has no chat template: it was not made for conversations")
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
    asked = json.dumps({"template": template, "variables": variables})
    try:
        done = subprocess.run(
            [sys.executable, "-P", chat_worker.__file__],
            input=asked.encode(),
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
