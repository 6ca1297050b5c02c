"""What is predicted: a label, several labels, or a number."""

import numpy as np
import pytest
from sklearn.preprocessing import MultiLabelBinarizer

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.tasks.targets import Targets, kind_named, listed, read
from pellucid.training.corpus.labels import Labels


def test_several_labels_are_scikit_learn_s_matrix():
    given = [("b", "a"), (), ("c",), ("a", "c")]
    theirs = MultiLabelBinarizer()
    matrix = theirs.fit_transform(given)
    found = Targets.of(given)
    assert found.names == tuple(theirs.classes_)
    np.testing.assert_array_equal(found.values, matrix)
    part = found.part(np.array([True, True, False, False]))
    assert (part.names, part.values.tolist()) == (("a", "b"), [[1, 1], [0, 0]])


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([str(n % 5 + 1) for n in range(40)], "label"),  # stars
        ([str(n) for n in range(40)], "number"),
        (["0.5", "1.5", "2.25"], "number"),
        (["1.0", "2.0", "1.0"], "label"),
        ([f"0{n}" for n in range(40)], "label"),  # postcodes
        ([*map(str, range(40)), *"abcdefg"], "label"),
        ([f"1.{n}.0" for n in range(40)], "label"),  # versions
        ([f"2024-01-{n:02}" for n in range(1, 31)], "label"),
        (["3,000", "red", "blue"], "label"),
        (["-1e3", ".5", "+7"], "number"),
    ],
)
def test_numbers_are_amounts_or_names(cells, kind):
    assert Targets.of(read(cells)).kind == kind
    assert Targets.of(read(cells, "label")).kind == "label"


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("{n},5", "{n}.5"),
        ("1,0{n}.5", "10{n}.5"),
        ("1.0{n},5", "10{n}.5"),
        ("1 0{n},25", "10{n}.25"),
        ("1\N{NARROW NO-BREAK SPACE}0{n}", "10{n}"),
        ("1'0{n}.25", "10{n}.25"),
        ("{n}%", "{n}"),
        ("{n},5 %", "{n}.5"),
        ("${n}", "{n}"),
        ("-${n}", "-{n}"),
        ("{n} €", "{n}"),
        ("\N{MINUS SIGN}{n}.5", "-{n}.5"),
        ("{n}.5e3", "{n}500"),
    ],
)
def test_numbers_are_read_as_people_write_them(written, number):
    cells = [written.format(n=n) for n in range(11, 48)]
    wanted = [float(number.format(n=n)) for n in range(11, 48)]
    assert read(cells) == read(cells, "number") == wanted
    labels = Labels.of(cells, None, None, "'a.csv'")
    stored = np.array([labels.stored(cell) for cell in cells], np.uint32).view(np.float32)
    np.testing.assert_allclose(stored[:, 0], wanted, rtol=1e-7)  # each as all are written


@pytest.mark.parametrize(
    ("cells", "told"),
    [
        ([f"1,0{n}" for n in range(11, 48)], r"'1,011' may be 1011 or 1\.011; write the numbers"),
        (["3,000", "4,000", "5,000"], "'3,000' may be 3000 or 3"),
        (
            [*map(str, range(40)), "NA"],
            "'NA' is no number, but 40 of 41 different labels are; leave",
        ),
        ([*map(str, range(40)), "many"], "'many' is no number, .*as names: --predict label"),
        (["1.5", "2.5", "nan"], "'nan' is no number"),
        (["1", "2", "<NA>"], "'<NA>' is no number"),
        ([*(f"${n}" for n in range(40)), "€5"], "'[$]39' and '€5' are numbers of different units"),
        ([*(f"{n}%" for n in range(40)), "5"], "'39%' and '5' are numbers of different units"),
    ],
)
def test_numbers_that_are_unclear_are_said(cells, told):
    with pytest.raises(ArgumentError, match=told):
        read(cells)
    assert read(cells, "label") == cells


@pytest.mark.parametrize(
    ("cell", "labels"),
    [
        ("['a', 'b']", ["a", "b"]),  # pandas
        ("['a' 'b']", ["a", "b"]),  # NumPy
        ("('a', \"it's\")", ["a", "it's"]),
        ("{'a, b'}", ["a, b"]),
        (" ['a',\n 'b']", ["a", "b"]),
        (r"['it\'s', nan, None]", ["it's"]),
        ("[1, 2]", ["1", "2"]),
        ('["a", null]', ["a"]),
        ("[]", []),
        ("set()", []),
        ("[URGENT]", None),
        ("['a'", None),
        ("['a'; 'b']", None),
        ("(a)", None),
        ("{}", None),
    ],
)
def test_lists_as_programs_write_them(cell, labels):
    assert listed(cell) == labels
    if labels is not None:
        assert read([cell, "b"])[0] == tuple(labels)


def test_cells_of_several_labels():
    assert read(["a; b|c", " a ,,a", ";"], "labels") == [("a", "b", "c"), ("a",), ()]
    assert read(["a, b/c"], separator="/") == [("a, b", "c")]
    assert read(['["a, b", "c"]', "[]", "[d; e"]) == [("a, b", "c"), (), ("[d", "e")]


def test_what_is_no_target():
    with pytest.raises(ArgumentError, match="'many' is not a number to learn"):
        read(["1", "many"], "number")
    with pytest.raises(ArgumentError, match="predict must be label, labels or number, not 'x'"):
        kind_named("x")
    with pytest.raises(TypeMismatchError, match="all str, all collections of str or all numbers"):
        Targets.of(["a", 1.5])
    with pytest.raises(TypeMismatchError, match=r"a label must be a str, .* not True"):
        Targets.of([True, False])
    with pytest.raises(ArgumentError, match=r"different numbers; all are '1\.5'"):
        Targets.of([1.5, 1.5])
    with pytest.raises(ArgumentError, match="not finite"):
        Targets.of([1.5, np.inf])
    with pytest.raises(ArgumentError, match="at least two different labels; there are none"):
        Targets.of([(), ()])
