"""Words end where their readers say, in every script."""

import unicodedata

import pytest

from pellucid.tasks import words as module
from pellucid.tasks.words import strings, telling_words, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Don't touch the T-shirt!", ["don't", "touch", "the", "t-shirt"]),
        ("My cat's rain’s 2nd e-mail 3.14 _x", ["my", "cat", "rain", "2nd", "e-mail"]),
        (
            "A 4K TV, 2fa; covid-19 - 12 3d-printed",
            ["a", "4k", "tv", "2fa", "covid-19", "3d-printed"],
        ),
        ("12-34 and 5-a or -b", ["and", "a", "or", "b"]),
        ("dis\u00adcount w\u2060ord\ufeff", ["discount", "word"]),
        ("नमस्ते दुनिया, हिन्दी।", ["नमस्ते", "दुनिया", "हिन्दी"]),
        ("كِتَابٌ جَدِيدٌ", ["كِتَابٌ", "جَدِيدٌ"]),
        ("كـــتاب", ["كتاب"]),
        ("l'e\u0301te\u0301 fore\u0302t", ["l'été", "forêt"]),
        ("বাংলা தமிழ் తెలుగు", ["বাংলা", "தமிழ்", "తెలుగు"]),
        ("고양이가 잠을", ["고양이가", "잠을"]),
        ("שָׁלוֹם עולם", ["שָׁלוֹם", "עולם"]),
        ("STRASSE straße ﬁn", ["strasse", "strasse", "fin"]),
        ("我爱 Python 编程 สวัสดี", ["python"]),
    ],
)
def test_words_are_whole(text, found):
    normal = [unicodedata.normalize("NFKC", word) for word in found]
    assert words(text) == normal
    assert words(unicodedata.normalize("NFD", text)) == normal


def test_strings_are_of_one_script_and_keep_their_marks():
    assert ["".join(run) for run in strings("東京でコーヒーを飲む。我爱 ok")] == [
        "東京", "で", "コーヒー", "を", "飲", "む", "我爱",
    ]  # fmt: skip
    assert list(strings("ที่ดี")) == [("ที่", "ดี")]


TOPICS = {
    "hindi": (
        {"बिल्ली": ["मेरी बिल्ली सोती है", "बिल्ली दूध पीती है", "काली बिल्ली है"]},
        {"शेयर": ["शेयर बाज़ार गिर गया है", "उसने शेयर बेचे है", "शेयर की कीमत बढ़ी है"]},
    ),
    "vowelled Arabic": (
        {"قِطَّةٌ": ["قِطَّةٌ تَنَامُ فِي البَيْتِ", "رَأَيْتُ قِطَّةٌ فِي الحَدِيقَةِ"]},
        {"كِتَابٌ": ["كِتَابٌ جَدِيدٌ فِي المَكْتَبَةِ", "قَرَأْتُ كِتَابٌ فِي اللَّيْلِ"]},
    ),
    "decomposed French": (
        {"déménagement": ["Le de\u0301me\u0301nagement a lieu", "un déménagement a lieu"]},
        {"forêt": ["La fore\u0302t a brûlé", "une forêt a brûlé aussi, la forêt"]},
    ),
    "Chinese": (
        {"猫": ["我的猫喜欢睡觉", "这只猫在抓老鼠", "小猫喝牛奶", "猫咪在沙发上睡觉"]},
        {"股票": ["股票价格今天下跌", "他卖掉了所有股票", "股票市场上涨了", "投资者担心股票"]},
        {"北京": ["北京天安门广场很大", "我爱北京天安门", "去北京旅游", "北京的天安门"]},
    ),
    "Japanese": (
        {"猫": ["猫がマットの上で眠る", "私の猫はかわいい", "猫はネズミを追いかける"]},
        {"コーヒー": ["コーヒーを飲むのが好き", "朝のコーヒーは美味しい", "コーヒー豆を買った"]},
        {"電車": ["東京駅で電車に乗る", "電車が遅れている", "電車の時刻表"]},
    ),
    "Thai": (
        {"กาแฟ": ["ฉันชอบดื่มกาแฟตอนเช้า", "ร้านกาแฟอยู่ใกล้บ้าน", "กาแฟเย็นอร่อยมาก"]},
        {"แมว": ["แมวของฉันชอบนอน", "แมวจับหนู", "แมวตัวนี้น่ารัก"]},
    ),
}


@pytest.mark.parametrize("language", TOPICS)
def test_the_word_that_tells_a_group_apart(language):
    topics = {word: texts for topic in TOPICS[language] for word, texts in topic.items()}
    found = telling_words(list(topics.values()))
    wanted = [unicodedata.normalize("NFKC", word) for word in topics]
    assert [own[0] for own in found] == wanted


def test_strings_that_occur_only_in_longer_ones_are_no_words():
    one = ["北京天安门广场", "爱北京天安门", "去北京", "天安门关了"]
    found = telling_words([one, ["股票市场", "股票下跌"]])
    assert found[0][:2] == ["北京", "天安门"]
    assert not {"天安", "安门", "京天"} & set(found[0])


def test_words_of_grammar_tell_nothing_in_any_language():
    """ "og" is the most frequent in both groups, and no list has it."""
    one = [f"og hund {n} og og løb" for n in "abcdefg"]
    other = [f"og skib {n} og og hav" for n in "hijklmno"]
    found = telling_words([one, other])
    assert (set(found[0][:2]), set(found[1][:2])) == ({"hund", "løb"}, {"skib", "hav"})
    assert "og" not in found[0] + found[1]


def test_telling_words_by_hand():
    # 3.5 words a group. First: 3 log(1 + 3.5 / 4) = 1.89 and log(1 + 3.5) = 1.50; second:
    # 2 log(1 + 3.5 / 2) = 2.02; b1b is more frequent in the first.
    assert telling_words([["a1a b1b b1b b1b"], ["b1b", "c1c c1c's"]], 2) == [
        ["b1b", "a1a"],
        ["c1c"],
    ]
    # Where there are no others, the most frequent count.
    assert telling_words([["no and 12 no !"], ["12 !"], ["and rain"]]) == [
        ["no", "and"],
        [],
        ["rain"],
    ]


def test_strings_are_counted_in_the_first_texts_only(monkeypatch):
    monkeypatch.setattr(module, "MOST_TEXTS", 2)
    assert telling_words([["股票涨", "股票跌", "猫", "猫", "猫"]]) == [["股票"]]


@pytest.mark.parametrize(
    ("bare", "pointed", "other"),
    [("كتاب", "كِتَابٌ", "قطة"), ("שלום", "שָׁלוֹם", "חתול")],
)
def test_a_word_with_its_vowel_points_is_the_same_word(bare, pointed, other):
    plain, marked = (unicodedata.normalize("NFKC", word) for word in (bare, pointed))
    texts = [f"{bare} {bare} {pointed}", pointed]
    # As it is written most, and once; of equally many the first.
    assert telling_words([texts, [other]]) == [[plain], [other]]
    assert telling_words([[*texts, pointed], [other]]) == [[marked], [other]]
    assert telling_words([[bare], [pointed, other]])[1][0] == other
