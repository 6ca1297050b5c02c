"""What counts as lost in a translation."""

import pytest

from pellucid.text.kept_spans import lost_spans


@pytest.mark.parametrize(
    ("text", "translation", "lost"),
    [
        ("see https://a.b/c now", "ve https://a.b/c ya", []),
        ("see https://a.b/c now", "ve https://a.b/ c ya", ["https://a.b/c"]),
        ("<b>a</b> <b>b</b>", "<b>x</b> <b>y", ["</b>"]),  # as often as in the text
        ("{name}, %d files, a@b.co", "{nombre}, %d, A@b.co", ["{name}", "a@b.co"]),
        ("1,250.50 and 31", "1.250,50 y 31", []),
        ("1,250.50 and 31", "1.250 y 13", ["1,250.50", "31"]),
        ("12 dogs, 2 cats, 13 cows", "doce perros, dos gatos, trece vacas", ["13"]),
    ],
)
def test_what_is_lost(text, translation, lost):
    found = [text[slice(*span)] for span in lost_spans(text, (0, len(text)), translation)]
    assert found == lost
    half = len(text) // 2
    inside = [text[slice(*span)] for span in lost_spans(text, (half, len(text)), "")]
    assert all(one in text[half:] for one in inside)
