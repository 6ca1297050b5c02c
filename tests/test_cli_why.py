"""`pellucid why`, run as a user runs it."""

import json

import pytest

from pellucid.readers.score_terms import explain_score
from tests.checkpoints import SENTENCE
from tests.command_line import options_of

TEXT = "In the beginning God created the heaven and the earth. In the beginning God created the"
ASKED = ("why", TEXT, "--head", "5.3")


def test_the_options_are_those_documented(run):
    status, out, _ = run("why", "--help")
    assert status == 0
    assert options_of(out) == {
        "--file", "--encoding", "--target", "--model", "--head", "--query", "--key", "--against",
        "--top", "--max-tokens", "--svg", "--html", "--overwrite", "--json", "--help",
    }  # fmt: skip


@pytest.mark.parametrize("width", [40, 80, 120])
def test_a_score_at_every_width(run, width):
    status, out, err = run(*ASKED, width=width)
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= width
    told = " ".join(out.split())
    assert "why head 5.3 looks from “ the” 17 at “ heaven” 7 The weight is 64%, most of all" in told
    assert "Nothing is missing but rounding" in told
    assert "\x1b" not in out
    table = out[out.index("across") :].splitlines()[1:]
    rows = [line.split() for line in table[1 : table.index("")]]
    numbers = [float(number) for row in rows for number in row[1:]]
    score = float(told.partition("The score is ")[2].split()[0].rstrip("."))
    assert sum(numbers) == pytest.approx(score, abs=0.0006 * len(numbers))


def test_json_adds_up(run):
    status, out, err = run(*ASKED, "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["query"] == {"position": 17, "text": " the"}
    assert found["key"] == {"position": 7, "text": " heaven"}
    assert (found["rank"], found["is_exact"], found["against"]) == (1, True, None)
    assert sum(map(sum, found["terms"])) == pytest.approx(found["score"], abs=1e-5)
    for side in ("query_parts", "key_parts"):
        amounts = [part["amount"] for part in found[side]]
        assert sum(amounts) == pytest.approx(found["score"], abs=1e-5)
    # The key holds the word before it, which head 2.2 has written there.
    heads = {one["part"]: one["amount"] for one in found["key_parts"] if one["head"] is not None}
    assert max(heads, key=heads.get) == "2.2"
    assert len(heads) == 20


def test_one_key_against_another(run):
    whole = [json.loads(run(*ASKED, "--key", key, "--json")[1]) for key in ("heaven", "earth")]
    both = json.loads(run(*ASKED, "--key", "7", "--against", "-8", "--json")[1])
    assert both["against"] == {"position": 10, "text": " earth"}
    assert both["score"] == pytest.approx(whole[0]["score"] - whole[1]["score"], abs=1e-5)
    assert [one["rank"] for one in whole] == [1, 2]
    told = " ".join(run(*ASKED, "--key", "heaven", "--against", "earth")[1].split())
    assert "at “ heaven” 7 rather than at “ earth” 10" in told
    assert f"The score is {both['score']:.3f} higher than there" in told


def test_a_table_adds_up_however_it_is_cut():
    found = explain_score(TEXT, head="5.3", step=lambda *_: None)
    names, other, whole = found.table(99, 99)
    assert (len(names), names[:2], other[:2]) == (26, ["ff0", "ff1"], ["ff0", "2.2"])
    for rows, columns in ((2, 3), (9, 26)):
        of_query, of_key, terms = found.table(rows, columns)
        assert terms.shape == (rows, columns) == (len(of_query), len(of_key))
        assert float(terms.sum()) == pytest.approx(found.why.score, abs=1e-5)
        assert of_query[:-1] == names[: rows - 1]
        assert of_query[-1] == "rest"
        assert float((terms[0, 0] - whole[0, 0]).abs()) < 1e-9
    assert found.top(1) == [("ff0", "2.2", pytest.approx(0.625, abs=1e-3))]


def test_biases_are_together_and_stacks_have_letters(run):
    sentence = "The old man went to the sea"
    found = explain_score(sentence, head="x3.1", model="translator", step=lambda *_: None)
    assert {name[0] for name in found.names.values() if "ff" in name} == {"d", "e"}
    of_query, of_key, _ = found.table(99, 99)
    assert {"x0.0", "d3.3", "dff2", "token"} <= {*of_query}
    assert {"e3.0", "eff3", "token"} <= {*of_key}
    assert found.tokens[0] != found.key_tokens[0]
    told = run("why", sentence, "--model", "translator", "--head", "e1.0", "--query", "man")[1]
    assert "The letters e, d and x stand" in " ".join(told.split())
    found = explain_score(sentence, head="0.1", model="minilm", step=lambda *_: None)
    assert {*found.table(99, 99)[0]} == {"token", "position", "type", "biases"}


def test_pictures(run, tmp_path):
    svg, html = tmp_path / "why.svg", tmp_path / "why.html"
    status, _, err = run(*ASKED, "--svg", svg, "--html", html)
    assert status == 0
    assert err == f"wrote {svg}\nwrote {html}\n"
    for path in (svg, html):
        drawn = path.read_text(encoding="utf-8")
        assert "ff0 x 2.2: +0.62" in drawn
        assert "<script" not in drawn


def test_a_model_of_transformers(checkpoint):
    for family in ("gptj", "llama"):
        model = str(checkpoint(family))
        found = explain_score(SENTENCE, head="1.1", model=model, step=lambda *_: None)
        assert found.why.is_exact
        assert "".join(found.tokens) == SENTENCE


def test_what_is_refused(refused):
    assert "name a head with --head, like --head 2.0" in refused("why", TEXT)
    for head in ("5", "-1.0", "5.3.1", "last"):
        told = refused("why", TEXT, f"--head={head}")
        assert told == f"--head must be a layer and a head, like 2.0, not '{head}'"
    assert "its heads are 0.0 to 5.3" in refused("why", TEXT, "--head", "5.4")
    assert "its heads are 0.0 to 5.3" in refused("why", TEXT, "--head", "e5.3")
    told = refused("why", "A dog", "--model", "translator", "--head", "5.3")
    assert told.endswith("its heads are e0.0 to e3.3, d0.0 to d3.3 and x0.0 to x3.3")
    assert "--query: no token is 'hell'; the tokens are 0 <|end|>, 1 In, 2 the" in refused(
        *ASKED, "--query", "hell"
    )
    assert "--key: tokens 2, 6, 9, 13 and 17 are 'the'; give one" in refused(*ASKED, "--key", "the")
    assert "--query must be from -18 to 17, not 40" in refused(*ASKED, "--query", "40")
    assert "cannot look from token 3 to 9, which comes later" in refused(
        *ASKED, "--query", "3", "--key", "9"
    )
    assert "--against is the key itself, 3" in refused(*ASKED, "--key", "3", "--against", "3")
    assert "--top must be 0 or more" in refused(*ASKED, "--top", "-1")
    assert "--max-tokens must be 1 or more" in refused(*ASKED, "--max-tokens", "0")
    assert "is not one" in refused(*ASKED, "--target", "a")
