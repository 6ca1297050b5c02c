"""A text in parts, with names for what it keeps, and whole again."""

from itertools import pairwise

import pytest

from pellucid.tasks.line_parts import joined, part_keeping
from pellucid.text.kept_spans import kept_spans


def test_more_names_than_the_short_ones_stand_for_what_is_kept():
    kept = [f"{{name{number}}}" for number in range(131)]
    text = "Ur and " + " ".join(kept)
    part = part_keeping(text, (0, len(text)), "", list(kept_spans(text)))
    assert list(part.names.values()) == kept
    assert "Ur" not in part.names
    backwards = " ".join(reversed(part.names))
    assert part.restored(backwards) == " ".join(reversed(kept))
    assert part.restored(backwards.replace(" Dan", "")) is None


@pytest.mark.parametrize(
    ("text", "cuts", "translations", "whole"),
    [
        ("{f}, and {g}!", [3, 9, 12], ["{f}", "Y", "{g}", "!"], "{f} Y {g}!"),
        ("go ({a})", [4, 7], ["ve,", "{a}", ")"], "ve, {a})"),
        ("go ({a})", [4, 7], ["ve (", "{a}", ")"], "ve ({a})"),
        ("<b>go</b>", [3, 5], ["<b>", "ve", "</b>"], "<b>ve</b>"),
    ],
)
def test_pieces_are_not_glued(text, cuts, translations, whole):
    spans = list(pairwise([0, *cuts, len(text)]))
    spans = [
        (first + len(part) - len(part.lstrip()), first + len(part.rstrip()))
        for first, last in spans
        for part in [text[first:last]]
    ]
    assert joined(text, spans, translations)[0] == whole
