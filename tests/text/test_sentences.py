"""Where sentences end in many languages, where long ones are cut, and what is kept."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pellucid.tasks.line_parts import Reader, around_kept, joined
from pellucid.text.kept_spans import changed, kept_spans
from pellucid.text.sentences import clause_spans, sentence_spans


@pytest.mark.parametrize(
    ("language", "sentences"),
    [
        ("en", ["Dr. Smith met Mrs. Jones at 3.14 p.m. on Jan. 5.", "She paid $1.50, i.e. a lot."]),
        ("en", ['"Stop!" he cried.', "“Go!”", "J. R. R. Tolkien wrote it.", "Done...", "End"]),
        ("en", ["See https://a.b/c.d?e=f.", "Mail me@x.org.", "It is v2.0.1 of a.B.", "Yes"]),
        ("es", ["El Sr. López llegó.", "¿Qué pasa?", "¡Nada!", "Pesa 1.234,5 kg."]),
        ("de", ["Am 3. Oktober kam z. B. Dr. Müller.", "Er sagte: „Nein.“", "Dann ging er."]),
        ("fr", ["M. Dupont est là.", "« Bonjour. »", "Voilà !", "Qui ?"]),
        ("zh", ["他说：“你好。”", "然后走了。", "真的吗？", "价格是3.5元。", "完了"]),
        ("ja", ["本当？", "はい！", "終わり。"]),
        ("ar", ["ذهب الولد.", "هل عاد؟", "نعم، عاد!", "انتهى۔"]),
        ("hi", ["यह एक वाक्य है।", "यह दूसरा है॥", "हाँ।"]),
    ],
)
@pytest.mark.parametrize("space", [" ", "  ", "\n"])
def test_sentences(language, sentences, space):
    text = ("" if language in ("zh", "ja") else space).join(sentences)
    assert [text[slice(*span)] for span in sentence_spans(text, language)] == sentences


def test_stops_of_every_script_count_in_each_language():
    for text in ("真的吗？是的！", "ذهب. هل عاد؟ نعم", "है। दूसरा॥ हाँ।"):
        assert sentence_spans(text, "en") == sentence_spans(text, "zh")
        assert len(sentence_spans(text)) > 1


@given(st.text(alphabet="aB .!?。\n,1%{}<>", max_size=60))
def test_only_spaces_are_outside_sentences(text):
    spans = sentence_spans(text)
    ends = [0, *(edge for span in spans for edge in span), len(text)]
    assert ends == sorted(ends)
    assert all(text[slice(*span)] == text[slice(*span)].strip() != "" for span in spans)
    assert not any(text[a:b].strip() for a, b in zip(ends[::2], ends[1::2], strict=True))


@pytest.mark.parametrize(
    ("text", "most", "parts"),
    [
        ("one two, three four; five", 16, ["one two,", "three four; five"]),
        ("one two, three four; five", 20, ["one two, three four;", "five"]),
        ("one two three", 8, ["one two", "three"]),
        ("onetwothree", 4, ["onet", "woth", "ree"]),
        ("一二，三四、五", 4, ["一二，", "三四、五"]),
        ("1,234,567 is it", 9, ["1,234,567", "is it"]),
    ],
)
def test_clauses(text, most, parts):
    spans = clause_spans(text, (0, len(text)), lambda part: len(part) <= most)
    assert [text[slice(*span)] for span in spans] == parts


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("See https://a.b/c?d=1). Or www.x.org, now", "https://a.b/c?d=1 www.x.org"),
        ("mail a.b+c@d-e.org.", "a.b+c@d-e.org"),
        ("Hi {name}, {0}, {{x}} ${HOME} %s %(n)d %1$s.", "{name} {0} {{x}} ${HOME} %s %(n)d %1$s"),
        ("<b>No</b>, <br/>1,234.5 &amp; 3:10", "<b> </b> <br/> 1,234.5 &amp; 3:10"),
        ("3 < 5 and a1 b2c, 5% sure", "3 5 5%"),
    ],
)
def test_what_is_kept(text, kept):
    assert [text[slice(*span)] for span in kept_spans(text)] == kept.split()


def test_what_changed():
    assert changed("See <b>1.5</b> at https://a.b", "Ved <b>1,5 en https://a.b") == ["</b>"]


def reader(**options):
    some = {"fits": lambda part: len(part) < 60, "spells": lambda part: "z" not in part}
    return Reader(**some | options)


def test_names_stand_for_what_is_kept():
    text = "Go to http://z.z, said {z}. And on 5 May."
    parts, cut = reader().parts(text)
    assert (cut, [part.reads for part in parts]) == (0, ["Go to Ur, said Dan.", "And on 5 May."])
    assert parts[0].restored("Dan says: go to Ur!") == "{z} says: go to http://z.z!"
    for lost in ("Dan says: go!", "Dan, Ur, Ur", "Danube, Ur"):
        assert parts[0].restored(lost) is None
    pieces = around_kept(text, parts[0])
    assert [(text[slice(*one.span)], one.reads) for one in pieces] == [
        *(("Go to", "Go to"), ("http://z.z", None), (", said", ", said"), ("{z}", None)),
        (".", None),
    ]
    [_, of_numbers] = reader(protect="all").parts(text)[0]
    assert (of_numbers.reads, of_numbers.names) == ("And on Ur May.", {"Ur": "5"})
    assert [part.names for part in reader(protect="none").parts(text)[0]] == [{}, {}]


def test_a_name_that_the_text_has_stands_for_nothing_else():
    [part] = reader().parts("Ur is at z.z@z.z")[0]
    assert part.reads == "Ur is at Dan"


def test_the_same_address_many_times_is_kept_each_time():
    text = "a " + " b ".join(["z@z.z"] * 8)
    [part] = reader(fits=lambda _: True).parts(text)[0]
    assert part.restored(part.reads) == text
    pieces = around_kept(text, part)
    assert [text[slice(*one.span)] for one in pieces] == text.split()
    assert sum(one.reads is not None for one in pieces) == 8


def test_what_a_model_is_told_comes_before_each_sentence():
    parts, _ = reader().parts(">>deu<< One is. Two is.")
    assert [part.reads for part in parts] == [">>deu<< One is.", ">>deu<< Two is."]
    parts, _ = reader(whole=True).parts(">>deu<< One is. Two is.")
    assert [part.reads for part in parts] == [">>deu<< One is. Two is."]


def test_a_long_sentence_is_counted_once():
    text = "One is. " + ", ".join(["many words"] * 12)
    parts, cut = reader().parts(text)
    assert (cut, len(parts)) == (1, 4)
    assert all(len(part.reads) < 60 for part in parts)


@pytest.mark.parametrize(
    ("text", "translations", "expected"),
    [
        ("A is.  B is.\nC is.", ["x.", "y.", "z."], "x.  y.\nz."),
        ("一。二。", ["One.", "Two."], "One. Two."),
        ("A is. B is.", ["一。", "二。"], "一。二。"),
        ("一。二。", ["三。", "四。"], "三。四。"),
    ],
)
def test_joined_with_the_spaces_that_were_there(text, translations, expected):
    whole, places = joined(text, sentence_spans(text), translations)
    assert whole == expected
    assert [whole[slice(*place)] for place in places] == translations


def test_a_part_without_letters_is_not_read():
    assert [part.reads for part in reader(protect="all").parts("12")[0]] == [None]
