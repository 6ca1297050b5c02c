"""What is predicted: a label, several labels, or a number."""

import numpy as np
import pytest
from sklearn.preprocessing import MultiLabelBinarizer

from pellucid.errors import ArgumentError, TypeMismatchError
from pellucid.tasks.targets import Targets, kind_named, read


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
        ([*map(str, range(40)), "many"], "label"),
        (["-1e3", ".5", "+7"], "number"),
    ],
)
def test_numbers_are_amounts_or_names(cells, kind):
    assert Targets.of(read(cells)).kind == kind
    assert Targets.of(read(cells, "label")).kind == "label"


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
