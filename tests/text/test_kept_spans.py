"""What counts as lost in a translation."""

import pytest

from pellucid.text.kept_spans import kept_spans, lost_spans


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


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("a http://a.b/Moses_(prophet) is", "http://a.b/Moses_(prophet)"),
        ("(see http://a.b/x_(y)).", "http://a.b/x_(y)"),
        ("(see http://a.b/c).", "http://a.b/c"),
        ("http://a.b/c[1]!", "http://a.b/c[1]"),
        ("http://a.b/{name}, x", "http://a.b/{name}"),
        ("http://a.b/(c(d)) e", "http://a.b/(c(d))"),
        ("https://a.b/(open yes", "https://a.b/(open"),
        ("[x](http://a.b/c)", "http://a.b/c"),
        ("http://" + "([{" * 3000 + " x", "http://" + "([{" * 3000),  # in no time
    ],
)
def test_an_address_ends_with_the_brackets_that_it_opened(text, address):
    [span] = kept_spans(text)
    assert text[slice(*span)] == address
