"""Files from verse pairs: what is in them, and what must not be."""

import json

import pytest

from pellucid.errors import FileError, MissingExtraError
from recipes import verses
from tests.recipes.texts import VERSES, verses_tsv


def test_held_out_books_are_in_no_file_to_learn_from(tmp_path):
    counts = verses.make(verses_tsv(tmp_path / "v.tsv"), tmp_path / "out")
    assert sorted(one.name for one in (tmp_path / "out").iterdir()) == sorted(verses.FILES)
    learnt = {
        name: (tmp_path / "out" / name).read_text()
        for name in ("english.train.jsonl", "pairs.train.tsv")
    }
    held = [one for one in VERSES if one.book in verses.HELD_OUT]
    assert counts == {"train": len(VERSES) - len(held), "held-out": len(held)}
    for verse in VERSES:
        for name, text in learnt.items():
            assert (verse.english in text) == (verse not in held), name


def test_a_document_is_a_chapter_and_a_pair_is_a_verse(tmp_path):
    verses.make(verses_tsv(tmp_path / "v.tsv"), tmp_path / "out")
    lines = (tmp_path / "out" / "english.held-out.jsonl").read_text().splitlines()
    chapters = [json.loads(line)["text"] for line in lines]
    wanted = {}
    for verse in VERSES:
        if verse.book in verses.HELD_OUT:
            wanted.setdefault(verse.chapter, []).append(verse.english)
    assert chapters == ["\n".join(texts) for texts in wanted.values()]
    header, first, *_ = (tmp_path / "out" / "pairs.held-out.tsv").read_text().splitlines()
    assert header == "source\ttarget"
    assert first == "\t".join(next(v[1:] for v in VERSES if v.book in verses.HELD_OUT))


@pytest.mark.parametrize("book", verses.LEFT_OUT)
def test_books_that_are_left_out_are_nowhere(book, tmp_path):
    more = [*VERSES, verses.Verse(f"{book} 1:1", "A word apart.", "Una palabra aparte.")]
    verses.write(more, tmp_path)
    assert not any("apart" in (tmp_path / name).read_text() for name in verses.FILES)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("a\tb\n1\t2\n", "must have the columns reference, english, spanish"),
        ("reference\tenglish\tspanish\nGen 1:1\tone\n", "line 2 .* has an empty field"),
        ("reference\tenglish\tspanish\nGen 1:1\tone\tuno\n", "there must be verses of Esth"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(content, complaint, tmp_path):
    (tmp_path / "v.tsv").write_text(content)
    with pytest.raises(FileError, match=complaint):
        verses.make(tmp_path / "v.tsv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_without_the_modules_a_line_says_how_to_get_them(tmp_path):
    with pytest.raises(MissingExtraError) as caught:
        verses.from_modules(tmp_path)
    message = str(caught.value)
    assert "apt-get install sword-text-web sword-text-sparv" in message
    assert "pip install pysword" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("osis", "text"),
    [
        ('<w lemma="x">In</w> <w>the</w> <w>beginning</w>, ', "In the beginning,"),
        ("God<note>or <b>El</b></note><w>created</w>", "God created"),
        ("the earth<note>land</note>.", "the earth."),
        ("<title>A psalm</title>The Lord", "The Lord"),
        ('<div sID="a"/><lg/>one<lb/>  <l>two</l>', "one two"),
        ('Amen. <chapter eID="Rev.22"/> <title>Glossary</title> words', "Amen."),
    ],
)
def test_a_verse_is_its_words_alone(osis, text):
    assert verses.cleaned(osis) == text


class Module:
    """A made-up module in pysword's manner."""

    def __init__(self, books):
        self.books = books

    def get_structure(self):
        return self

    def get_books(self):
        return {"ot": [Book(name, chapters) for name, chapters in self.books.items()]}

    def get(self, books, chapters, verses, clean):
        assert not clean
        return self.books[books[0]][chapters[0] - 1][verses[0] - 1]


class Book:
    def __init__(self, name, chapters):
        self.osis_name, self.chapter_lengths = name, [len(one) for one in chapters]


def test_verses_of_two_modules_are_put_together():
    english = Module({"Gen": [["One.", "Two.", ""], ["Three."]], "Ruth": [["Left out."]]})
    spanish = Module(
        {"Gen": [["Uno.", "Dos, y mucho más.", "Sin par."]], "Ruth": [["Fuera."]], "Tob": [["X"]]}
    )
    assert list(verses.together(english, spanish)) == [("Gen 1:1", "One.", "Uno.")]
