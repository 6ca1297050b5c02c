"""`pellucid train`: from a file to a model that the other commands read."""

import json

import pytest

import pellucid

SMALL = ["--steps", "3", "--width", "16", "--layers", "1", "--vocabulary", "300"]
NOUNS = ["house", "river", "bird", "stone", "tree", "road", "light"]
WORDS = ["red", "old", "small", "green", "long"]
TEXTS = [f"the {word} {noun} by the {other}" for word in WORDS for noun in NOUNS for other in NOUNS]


@pytest.fixture
def files(tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("\n".join(TEXTS))
    labelled = tmp_path / "labelled.csv"
    rows = [f"{one},{'warm' if 'red' in one else 'cold'}" for one in TEXTS]
    labelled.write_text("text,label\n" + "\n".join(rows))
    pairs = tmp_path / "pairs.tsv"
    pairs.write_text("\n".join(f"{one}\t{one.upper()}" for one in TEXTS))
    return {"text": text, "labelled": labelled, "pairs": pairs}


@pytest.mark.parametrize(
    ("what", "file", "options", "measure", "kind"),
    [
        ("decoder", "text", [], "bits_per_byte", "decoder"),
        ("encoder", "text", [], "perplexity", "encoder"),
        ("encoder", "pairs", ["--pairs", "1,2"], "found_first", "encoder"),
        ("classifier", "labelled", [], "accuracy", "encoder"),
        ("translator", "pairs", ["--source", "1", "--target", "2"], "bleu", "encoder-decoder"),
    ],
)
def test_a_file_becomes_a_model(what, file, options, measure, kind, files, tmp_path, run, refused):
    out = tmp_path / "model"
    status, printed, err = run("train", what, files[file], "-o", out, *SMALL, *options, "--json")
    assert status == 0, err
    measures = json.loads(printed)
    assert measures[measure] >= 0
    assert json.loads((out / "results.json").read_text()) == measures
    assert pellucid.load(out).kind == kind
    assert (out / "training" / "loss.svg").read_text().startswith("<svg")
    *_, judged = (out / "training" / "log.jsonl").read_text().splitlines()
    assert json.loads(judged)["attention"]["layer"] == 0
    assert "  -> " in json.loads(judged)["sample"] or "  <- " in json.loads(judged)["sample"]
    (picture,) = (out / "training" / "attention").iterdir()
    assert picture.read_text().startswith("<svg")
    _, printed, err = run("train", what, "-o", out, "--resume", "--json")
    assert json.loads(printed) == measures, err
    complaint = refused("train", what, files[file], "-o", out, *SMALL, *options)
    assert "--resume goes on with it" in complaint


@pytest.mark.parametrize(
    ("what", "content", "options", "complaint"),
    [
        ("decoder", "", [], "is empty"),
        ("decoder", "one line", [], "at least 1,000 characters"),
        ("decoder", "text " * 400, ["--vocabulary", "5000"], "5,000"),
        ("decoder", "text " * 400, ["--set", "depth=3"], "no option 'depth'"),
        ("decoder", "text " * 400, ["--set", "depth"], "NAME=VALUE"),
        ("decoder", "text " * 400, ["--learning-rate", "-1"], "--learning-rate must be above 0"),
        ("decoder", "text " * 400, ["--width", "0"], "width must be at least 1"),
        ("decoder", "text " * 400, ["--from", "/nowhere"], "nowhere"),
        ("decoder", "text " * 400, ["--config", "/nowhere.toml"], "nowhere.toml"),
        (
            "classifier",
            "text,label\n" + "\n".join(f"{n} text,a" for n in range(40)),
            [],
            "label 'a'",
        ),
        ("classifier", "text,label\none,a\ntwo\n", [], "line 3"),
        ("classifier", "text,label\none,a\ntwo,\n", [], "no label"),
        ("classifier", "a,b\none,a\n", [], "no column 'text'"),
        ("translator", "source,target\na,b\n", [], "at least 10 different texts"),
    ],
)
def test_what_cannot_be_trained_is_said_in_a_line(
    what, content, options, complaint, tmp_path, refused
):
    file = tmp_path / ("text.txt" if what == "decoder" else "rows.csv")
    file.write_text(content)
    out = tmp_path / "model"
    assert complaint in refused("train", what, file, "-o", out, *SMALL[:2], *options)
    assert not out.exists()


def test_options_come_from_a_file_and_the_command_line_goes_before(files, tmp_path, run):
    told = tmp_path / "options.toml"
    told.write_text("steps = 2\n[model]\nwidth = 24\nlayers = 1\n[training]\nseed = 5\n")
    out = tmp_path / "model"
    options = ["--vocabulary", "300", "--config", told, "--width", "16", "--set", "dropout=0.2"]
    status, _, err = run("train", "decoder", files["text"], "-o", out, *options)
    assert status == 0, err
    config = pellucid.load(out).config
    assert (config.width, config.layers, config.dropout) == (16, 1, 0.2)
    asked = json.loads((out / "training" / "run.json").read_text())["options"]
    assert (asked["steps"], asked["seed"]) == (2, 5)


def test_a_model_of_another_kind_is_no_base(files, tmp_path, run, refused):
    base = tmp_path / "base"
    assert run("train", "decoder", files["text"], "-o", base, *SMALL)[0] == 0
    options = ["--from", base, "--steps", "1", "--set", "dropout=0.3"]
    complaint = refused("train", "classifier", files["labelled"], "-o", tmp_path / "b", *options)
    assert "kind decoder" in complaint
    status, printed, err = run("train", "decoder", files["text"], "-o", tmp_path / "c", *options)
    assert status == 0, err
    assert "bits per byte" in printed
    assert pellucid.load(tmp_path / "c").config.dropout == 0.3


def test_a_trained_classifier_labels_texts(files, tmp_path, run):
    out = tmp_path / "model"
    assert run("train", "classifier", files["labelled"], "-o", out, *SMALL)[0] == 0
    status, printed, err = run("classify", "the red house", "--model", out, "--json")
    assert status == 0, err
    (item,) = json.loads(printed)["items"]
    assert json.loads(printed)["labels"] == ["cold", "warm"]
    assert sum(item["probabilities"].values()) == pytest.approx(1)
