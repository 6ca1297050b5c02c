"""Equal texts, whoever typed them."""

import pytest

from pellucid.text.equal_texts import fingerprint, groups, normalised


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Rain  again\t", " rain again"),
        ("été", "e\u0301te\u0301"),
        ("STRASSE", "straße"),
        ("ＡＢＣ１", "abc1"),
        ("so\u00adft", "soft\ufeff"),
        ("a\u00a0b", "a b"),
        ("ΣΊΣΥΦΟΣ", "σίσυφος"),
        ("नमस्ते", "नमस्ते "),
    ],
)
def test_texts_that_differ_only_in_how_they_are_typed_are_equal(one, other):
    assert normalised(one) == normalised(other)
    assert fingerprint(one) == fingerprint(other) != fingerprint(one, b"1")
    assert groups([one, "other", other]).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("one", "other"), [("a b", "ab"), ("1.5", "15"), ("كتاب", "كُتّاب"), ("e", "é")]
)
def test_texts_that_say_something_else_are_not(one, other):
    assert normalised(one) != normalised(other)
