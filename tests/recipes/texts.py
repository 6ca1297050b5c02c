"""Texts to make recipes of, which nobody else has written."""

import csv
import io
import zipfile

from recipes import reviews, verses

NOUNS = ["house", "river", "bird", "stone", "tree", "road", "light"]
WORDS = ["red", "old", "small", "green", "long", "new", "white"]


def _verse(book, chapter, number):
    one = NOUNS[number % len(NOUNS)]
    word = WORDS[(number + chapter) % len(WORDS)]
    said = f"{word} {one} of {book} in year {10 * chapter + number}"
    return verses.Verse(f"{book} {chapter}:{number}", f"The {said}.", f"AY {said[::-1]}.")


VERSES = [
    _verse(book, chapter, number)
    for book in ("Gen", "Esth", "1Sam", "Hos", "John", "Acts")
    for chapter in (1, 2)
    for number in range(1, 12)
]


def verses_tsv(path):
    lines = ["\t".join(verses.COLUMNS), *("\t".join(verse) for verse in VERSES)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def long_review(number, label):
    word = ("dull", "warm")[label]
    return f"Film number {number} is {word}.<br /><br />I call it {word}, and so did all of us."


REVIEWS = [
    *((long_review(number, number % 2), number % 2, reviews.LONG) for number in range(80)),
    *((f"a {('dull', 'warm')[n % 2]} one , no {n}", n % 2, reviews.SHORT) for n in range(140)),
    (long_review(3, 1), 1, reviews.LONG),  # once more
    (f" {long_review(5, 1).upper()} ", 1, reviews.LONG),  # but for capitals
    ("Both at once.", 0, reviews.LONG),
    ("both at  once.", 1, reviews.LONG),
]


def reviews_csv(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_csv(), encoding="utf-8")
    return path


def reviews_wheel(path):
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(f"{reviews.PACKAGE}/{reviews.INSIDE}", _csv())
    return path


def _csv():
    written = io.StringIO(newline="")
    writer = csv.writer(written)
    writer.writerow(("text", "label", "source"))
    writer.writerows(REVIEWS)
    return written.getvalue()
