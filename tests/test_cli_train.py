"""`pellucid train`: from a file to a model that the other commands read."""

import io
import json
import sys

import pytest
import sentencepiece

import pellucid
from pellucid.models import Config, Encoder
from pellucid.text.tokenizer_files import load_tokenizer
from tests.training.runs import SMALL, TEXTS


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
    assert "--resume continues the run there" in complaint


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


@pytest.mark.parametrize(
    ("cell", "options", "kind", "measure"),
    [
        (lambda text: str(len(text) / 8), [], "number", "mean_absolute_error"),
        (lambda text: "; ".join(text.split()[1:3]), ["--predict", "labels"], "labels", "micro_f1"),
    ],
)
def test_a_classifier_of_numbers_or_several_labels(cell, options, kind, measure, tmp_path, run):
    file, out = tmp_path / "rows.csv", tmp_path / "model"
    file.write_text("text,label\n" + "\n".join(f"{text},{cell(text)}" for text in TEXTS))
    status, printed, err = run("train", "classifier", file, "-o", out, *SMALL, *options, "--json")
    assert status == 0, err
    measures = json.loads(printed)
    assert (measures["kind"], measures["value"]) == (kind, measures[measure])
    assert measures["chance"]["permutations"] == 1000
    assert ("numbers are predicted" in err) == (kind == "number")
    status, printed, err = run("classify", "the red house", "--model", out, "--json")
    assert status == 0, err
    (item,) = json.loads(printed)["items"]
    assert item["margin" if kind == "number" else "probabilities"]
    assert run("classify", "the red house", "--model", out)[0] == 0
    status, printed, err = run("train", "classifier", "-o", out, "--resume")
    assert status == 0, err
    assert printed.startswith(f"Held-out {measures['figure']}: ")


def test_what_a_trained_model_found_is_printed(files, tmp_path, run):
    labelled = files["labelled"]
    _, printed, _ = run("train", "classifier", labelled, "-o", tmp_path / "a", *SMALL)
    told = " ".join(printed.split())
    assert "Held-out accuracy: " in told
    assert "With labels at random it is " in told
    answers = [f"{text}\t{text.split()[1]} it is" for text in TEXTS]
    files["pairs"].write_text("\n".join(answers))
    options = ["--pairs", "1,2", *SMALL]
    _, printed, _ = run("train", "encoder", files["pairs"], "-o", tmp_path / "b", *options)
    assert "held-out pairs among 4 different texts" in " ".join(printed.split())


def test_rows_that_are_left_out_are_said(files, tmp_path, run):
    long = " ".join(TEXTS[:7])
    more = f"\n{long}\t{long}\n{long} more\t{long}\n \tx\n"
    files["pairs"].write_text(files["pairs"].read_text() + more)
    judged = tmp_path / "judged.tsv"
    judged.write_text(f"{TEXTS[0]}\t{TEXTS[0]}\n{long}\t{long}\n" + f"{TEXTS[1]}\t \n" * 2)
    out, options = tmp_path / "model", ["--source", "1", "--target", "2", "--held-out", judged]
    options += ["--set", "positions=31", *SMALL, "--json"]
    status, printed, err = run("train", "translator", files["pairs"], "-o", out, *options)
    assert status == 0, err
    told = [
        "left out 1 blank row, 1 row of more than 31 tokens and 2 texts equal to a held-out one"
    ]
    told += ["left out 2 blank rows and 1 row of more than 31 tokens of the held-out data"]
    assert err.splitlines()[:2] == [f"pellucid: {one}" for one in told]
    assert json.loads(printed)["left_out"] == told


@pytest.mark.parametrize(
    ("what", "options", "columns"),
    [
        ("classifier", ["--text", "1", "--label", "2"], "{0},{1}"),
        ("decoder", ["--column", "2"], "{1},{0}"),
        ("encoder", ["--column", "2"], "{1},{0}"),
    ],
)
def test_columns_by_number(what, options, columns, tmp_path, run):
    file, out = tmp_path / "rows.csv", tmp_path / "model"
    rows = [columns.format(one, "warm" if "red" in one else "cold") for one in TEXTS]
    file.write_text("\n".join(rows))
    status, _, err = run("train", what, file, "-o", out, *SMALL, *options)
    assert status == 0, err


def test_without_sacrebleu_no_translator_is_begun(files, tmp_path, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    complaint = refused("train", "translator", files["pairs"], "-o", tmp_path / "model")
    assert complaint == (
        "BLEU needs sacrebleu: pip install 'pellucid[train]' "
        "(in a checkout: pip install -e '.[train]')"
    )
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--set", "seed=a"], "--seed must be of type int, not 'a'"),
        (["--set", "batch_tokens=0"], "batch_tokens must be at least 1, not 0"),
        (["--set", "batch_tokens=x"], "batch_tokens must be of type int, not 'x'"),
        (["--set", "positions=x"], "positions must be an int, not 'x'"),
        (["--set", "dropout=2"], "dropout must be in [0, 1), not 2"),
        (["--set", "shard=true"], "shard=true needs several processes: torchrun"),
        (["--set", "droput=0"], "no option 'droput'; did you mean dropout"),
        (["--set", "zzz=0"], "no option 'zzz'; docs/train.md lists"),
        (["--set", "vocabulary=x"], "--vocabulary must be an int, not 'x'"),
        (["--set", "column=0.5"], "--column must be a text, not 0.5"),
        (["-o", " "], "it is empty; name a directory"),
        (["-o", ""], "it is empty; name a directory"),
    ],
)
def test_options_are_refused_before_anything_is_read(options, complaint, tmp_path, refused):
    out = tmp_path / "model"
    told = refused("train", "decoder", "/nowhere.txt", "-o", out, *options)
    assert complaint in told
    assert not out.exists()


@pytest.mark.parametrize(
    ("pairs", "named"),
    [("source,source", "'source' and 'source'"), ("1", "'1'"), ("a,b,c", "'a', 'b' and 'c'")],
)
def test_pairs_are_two_columns(pairs, named, files, tmp_path, refused):
    options = ["-o", tmp_path / "model", "--pairs", pairs]
    told = refused("train", "encoder", files["pairs"], *options)
    assert told == f"name two different columns, not {named}"


def test_a_file_of_options_has_any_by_name(files, tmp_path, run):
    told, out, judged = (tmp_path / name for name in ("options.toml", "model", "judged.csv"))
    told.write_text(
        f'steps = 2\nvocabulary = 300\nwidth = 16\ntext = 1\nlabel = "2"\nlayers = 1\n'
        f'held-out = "{judged}"\nbalanced = true\npredict = "label"\n'
    )
    _, *rows = files["labelled"].read_text().splitlines()
    files["labelled"].write_text("\n".join(rows[:100]))
    judged.write_text("\n".join(rows[100:]))
    options = ["--config", told, "--set", "vocabulary=290", "--steps", "3"]
    status, _, err = run("train", "classifier", files["labelled"], "-o", out, *options)
    assert status == 0, err
    asked = json.loads((out / "training" / "run.json").read_text())
    assert (asked["vocabulary"], asked["columns"], asked["options"]["steps"]) == (290, [1, 2], 3)
    assert asked["held_out"] == [str(judged)]
    assert (asked["balanced"], asked["predict"]) == (True, "label")
    told.write_text(f'from = "{out}"\n')
    options = ["--config", told, "--column", "1", *SMALL[:2]]
    status, _, err = run("train", "encoder", files["labelled"], "-o", tmp_path / "b", *options)
    assert "has no mask token" in err


def test_a_model_with_sentence_pieces_is_a_base(files, tmp_path, run, refused):
    base, content = tmp_path / "base", io.BytesIO()
    base.mkdir()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=content,
        vocab_size=83,
        hard_vocab_limit=False,
        minloglevel=2,
        **{"bos_id": -1, "pad_id": 0, "eos_id": 1, "unk_id": 2},
    )
    (base / "spiece.model").write_bytes(content.getvalue())
    tokenizer = load_tokenizer(base)
    sizes = {"vocabulary": len(tokenizer), "width": 14, "layers": 1, "heads": 2, "hidden": 19}
    model = Encoder(Config(kind="encoder", **sizes))
    model.tokenizer = tokenizer
    model.save(base)
    options = ["--from", base, "--steps", "2", "--json"]
    status, _, err = run(
        "train", "classifier", files["labelled"], "-o", tmp_path / "model", *options
    )
    assert status == 0, err
    assert pellucid.load(tmp_path / "model").tokenizer.encode(["red"]) == tokenizer.encode(["red"])
    complaint = refused("train", "encoder", files["text"], "-o", tmp_path / "other", *options)
    assert complaint == f"'{base}' has no mask token, such as [MASK]"


def test_without_arguments_the_commands_are_listed(run):
    status, printed, err = run("train")
    assert (status, err) == (0, "")
    assert printed == run("train", "--help")[1]


def test_the_end_says_what_was_confused_and_how_to_go_on(files, tmp_path, run):
    out = tmp_path / "a model"
    status, printed, err = run("train", "classifier", files["labelled"], "-o", out, *SMALL)
    assert status == 0, err
    *_, title, header, cold, warm = printed.splitlines()
    assert title.startswith("Confusion matrix")
    assert header.split() == ["label", "1", "2"]
    assert (cold.split()[:2], warm.split()[:2]) == (["1", "cold"], ["2", "warm"])
    *_, last = err.splitlines()
    assert last.endswith(f"use it with: pellucid classify --model '{out}'")
