"""`pellucid watch` and `pellucid heads`, run as a user runs them."""

import json
import shutil

import pytest

import pellucid
from pellucid import pretrained
from tests.command_line import options_of

TEXT = "I will write about the rain"


@pytest.mark.parametrize("command", ["watch", "heads"])
def test_the_options_are_those_documented(run, command):
    status, out, _ = run(command, "--help")
    assert status == 0
    assert options_of(out) == {
        "watch": {
            "--file", "--encoding", "--target", "--model", "--layers", "--max-tokens", "--top",
            "--save",
            "--overwrite", "--json", "--help",
        },
        "heads": {
            "--sort", "--model", "--max-tokens", "--column", "--delimiter", "--encoding", "--over",
            "--workers", "--part", "--output", "--overwrite", "--probe", "--only", "--length",
            "--texts", "--most", "--controls", "--by", "--no-check", "--seed", "--json", "--help",
        },
    }[command]  # fmt: skip


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_a_text_at_every_width(run, width):
    status, out, err = run("watch", TEXT, width=width)
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= width
    told = " ".join(out.split())
    for part in ("Pellucid's decoder reads 7 tokens", "What the heads do", "Every head", "5.3"):
        assert part in told
    assert "The strongest links between words" in told
    assert "6 attention calls recorded in " in told
    assert "…" not in out
    assert "\x1b" not in out


def test_json_is_all_of_it(run):
    status, out, err = run("watch", TEXT, "--json", "--layers", "1,-1", "--top", "2")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert found["tokens"] == 7
    assert {row["layer"] for row in found["heads"]} == {1, 5}
    assert len(found["heads"]) == 8
    assert len(found["links"]) == 2
    assert found["unseen"] == {}
    assert found["bytes_dense"] == 2 * 4 * 7 * 7 * 4


def test_a_recording_is_saved_and_shown(run, tmp_path):
    path = tmp_path / "rain.safetensors"
    status, out, err = run("watch", TEXT, "--save", path, "--json")
    assert (status, err) == (0, f"wrote {path}\n")
    first = json.loads(out)["heads"]
    status, out, err = run("heads", path, "--json")
    assert (status, err) == (0, "")
    # What a score is off by, its weight is off by as a share, and an entropy by little more.
    scores = [record.weights.scaled[...] for record in pellucid.Recording.load(path).records]
    off = 8 * 2**-23 * (1 + max(float(one.abs().max()) for one in scores))

    def close(number):
        return pytest.approx(number, rel=off, abs=off) if isinstance(number, float) else number

    assert json.loads(out)["heads"] == [
        {name: close(number) for name, number in row.items()} for row in first
    ]
    _, out, _ = run("heads", path, "--sort", "previous", "--json")
    shares = [row["previous"] for row in json.loads(out)["heads"]]
    assert shares == sorted(shares, reverse=True)
    status, out, err = run("heads", path)
    assert (status, err) == (0, "")
    assert "Decoder: 24 heads" in out
    assert max(map(len, out.splitlines())) <= 80


def test_a_file_is_read(run, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text("\ufeff" + TEXT, encoding="utf-8")
    status, out, _ = run("watch", "--file", path, "--top", 0)
    assert status == 0
    assert "reads 7 tokens" in out
    assert "links" not in out


def test_what_is_too_long_can_be_cut(run, refused, tmp_path):
    path = tmp_path / "text.txt"
    path.write_text(" rain" * 600, encoding="utf-8")
    assert refused("watch", "--file", path) == (
        "the text has 601 tokens, but Pellucid's decoder has 256 positions; "
        "--max-tokens 256 reads the first 256"
    )
    status, out, err = run("watch", "--file", path, "--max-tokens", 29, "--layers", 0)
    assert (status, err) == (0, "")
    assert "reads 29 tokens" in out


def test_what_is_cut_keeps_some_of_the_text(run, refused):
    assert refused("watch", TEXT, "--max-tokens", 1) == (
        "--max-tokens must be 2 or more for Pellucid's decoder, which adds 1 special token; got 1"
    )
    assert "reads 3 tokens" in run("watch", TEXT, "--max-tokens", 3)[1]


def test_a_model_without_positions_reads_what_its_tokenizer_calls_long(run, checkpoint):
    text = "Write a poem about rain. " * 11
    _, out, err = run("watch", text, "--model", checkpoint("t5"), "--layers", "encoder.*", "--json")
    assert err == ""
    assert json.loads(out)["tokens"] > 53


def test_a_tokenizer_of_another_model(refused, checkpoint, tmp_path):
    import torch
    import transformers

    config = transformers.BertConfig(
        vocab_size=13, hidden_size=33, num_hidden_layers=1, num_attention_heads=3,
        intermediate_size=37,
    )  # fmt: skip
    torch.manual_seed(31)
    shutil.copytree(checkpoint("bert"), tmp_path / "copy", ignore=lambda *_: {"model.safetensors"})
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "copy")
    told = refused("watch", TEXT, "--model", tmp_path / "copy")
    assert told.startswith("tokenizer and model of copy do not match: the text has token ")
    assert told.endswith(", but the model's vocabulary ends at 12")


def test_the_weights_are_compared_where_they_are_larger(run):
    assert "as weights" not in run("watch", "rain", "--layers", "0")[1]
    assert "dense weights would take" in run("watch", " rain" * 251, "--layers", "0")[1]


def test_the_legend_says_that_shares_overlap(run):
    told = " ".join(run("watch", TEXT, "--layers", "0")[1].split())
    assert "They overlap and need not sum to 100%." in told


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_a_decoder(run, checkpoint, family):
    status, out, err = run("watch", TEXT, "--model", checkpoint(family))
    assert (status, err) == (0, "")
    assert "next" not in out.split("Every head")[1].split("role")[0]  # which it never sees


def test_an_encoder_decoder_reads_both(run, refused, checkpoint):
    path = checkpoint("t5")
    status, out, err = run("watch", TEXT, "--model", path, "--target", "a rain", "--json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    names = [row["name"] for row in found["heads"]]
    assert found["tokens"] != found["target_tokens"]
    assert sum("EncDecAttention" in name for name in names) == 6
    cross = next(row for row in found["heads"] if "EncDecAttention" in row["name"])
    assert cross["itself"] is None
    assert cross["first"] is not None
    layers = list(dict.fromkeys((row["stack"], row["layer"]) for row in found["heads"]))
    assert layers == [("e", 0), ("e", 1), ("d", 0), ("x", 0), ("d", 1), ("x", 1)]
    kept = {row["name"]: row["stack"] for row in found["heads"]}
    assert all(link["stack"] == kept[link["name"]] for link in found["links"])
    told = " ".join(run("watch", TEXT, "--model", path)[1].split())
    for part in ("x1.0", "d0.2", "x0 ", "e encoder, d decoder, x cross-attention"):
        assert part in told
    told = run("watch", TEXT, "--model", path, "--layers", "encoder.*")[1]
    assert "1.2" in told
    assert "e1" not in told
    both = json.loads(run("watch", TEXT, "--model", path, "--json")[1])
    assert both["tokens"] == both["target_tokens"]
    assert run("watch", TEXT, "--model", path, "--target", "a")[0] == 0
    assert "--target is empty" in refused("watch", TEXT, "--model", path, "--target", " ")
    assert "--target needs an encoder-decoder" in refused("watch", TEXT, "--target", "a")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give either a text, like"),
        (["a", "--file", "b"], "give either a text, like"),
        (["a", "b"], 'watch takes one text; put it in quotes: "a b"'),
        ([" "], "the text is empty"),
        (["--file", "nowhere"], "cannot read 'nowhere': No such file"),
        (["--file", "."], "cannot read '.': Is a directory"),
        (["a", "--layers", "0,,1"], "--layers must be numbers or names separated by commas"),
        (["a", "--layers", "17"], "there is no layer 17"),
        (["a", "--layers", "decoder.final_norm"], "made no attention call that can be recorded"),
        (["a", "--top", "-1"], "--top must be 0 or more, not -1"),
        (["a", "--max-tokens", "0"], "--max-tokens must be 1 or more, not 0"),
        (["a", "--model", "/nowhere"], "model '/nowhere' is not a directory"),
        (["a", "--save", "/nowhere/a"], "cannot write '/nowhere/a'"),
    ],
)
def test_what_cannot_be_is_one_line(refused, arguments, complaint):
    assert complaint in refused("watch", *arguments)


def test_files_that_are_no_text(refused, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"abc\xff\xfe")
    complaint = refused("watch", "--file", path)
    assert "is not UTF-8 text: byte 3, in line 1, is 0xff" in complaint
    assert complaint.endswith("the file is read with --encoding windows-1252")
    assert "--encoding goes with --file" in refused("watch", "a text", "--encoding", "latin-1")
    path.write_bytes(b"\xef\xbb\xbfab\xff")
    complaint = refused("watch", "--file", path)
    assert "is not UTF-8 text: byte 5, in line 1, is 0xff" in complaint
    path.write_bytes(b" \n")
    assert refused("watch", "--file", path).endswith("is empty: there is nothing to read")


def test_a_text_in_another_encoding(run, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("Ein schönes Gedicht".encode("latin-1"))
    status, out, _ = run("watch", "--file", path, "--encoding", "latin-1", "--json")
    _, told, _ = run("watch", "Ein schönes Gedicht", "--json")
    assert status == 0
    assert out == told


def test_a_model_that_cannot_be_watched(refused, checkpoint):
    assert "does not run on text" in refused("watch", TEXT, "--model", checkpoint("vit"))


def test_recordings_that_are_none(run, refused, tmp_path):
    assert "no file" in refused("heads", tmp_path / "nowhere")
    (tmp_path / "other").write_text("not a recording")
    assert "is not a recording" in refused("heads", tmp_path / "other")
    run("watch", TEXT, "--save", tmp_path / "whole")
    (tmp_path / "cut").write_bytes((tmp_path / "whole").read_bytes()[:9999])
    assert "truncated" in refused("heads", tmp_path / "cut")
    assert "--sort must be one of layer, head" in refused(
        "heads", tmp_path / "whole", "--sort", "a"
    )


PROBE = ("heads", "--probe", "--texts", "1", "--length", "72")


@pytest.mark.parametrize("width", [40, 80])
def test_heads_are_probed(run, width):
    status, out, err = run(*PROBE, "--only", "induction, retrieval,first token", width=width)
    assert (status, err) == (0, "")
    assert max(map(len, out.splitlines())) <= width
    told = " ".join(out.split())
    for part in (
        "Pellucid's decoder: heads on texts made for the purpose",
        "Induction: looks at what followed the same token in the first half (Olsson et al. 2022)",
        "of 24 look so. Log-probability of the repeated tokens, in nats per token: -",
        "where it cannot. The model does not do this",
        "Retrieval: looks at the token of the needle that is to be written next",
        "First token: looks at the first token (Xiao et al. 2024)",
        "Names that are earned none Score: ",
    ):
        assert part in told


def test_probes_as_json(run):
    status, out, err = run(*PROBE, "--no-check", "--json", "--seed", "3")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert len(found["checks"]) == 7
    assert len(found["heads"]) == 7 * 24
    assert found["skipped"] == {}
    assert {row["effect"] for row in found["heads"]} == {None}
    again = json.loads(run(*PROBE, "--no-check", "--json", "--seed", "3", "--only", "induction")[1])
    assert again["heads"] == [row for row in found["heads"] if row["probe"] == "induction"]


def test_probes_that_cannot_be(refused, tmp_path):
    def told(*options):
        return refused("heads", "--probe", *options)

    assert "FILE does not go with --probe" in told(tmp_path / "a.safetensors")
    assert "--probe does not go with --over" in told("--over", tmp_path)
    assert "--sort does not go with --probe" in told("--sort", "layer")
    assert "--length goes with --probe" in refused("heads", "--length", "20")
    assert "no probe is called 'sinks'" in told("--only", "sinks")
    assert "--length is 300, but Pellucid's decoder has 256 positions" in told("--length", "300")
    assert "controls must be 19 or more" in told("--controls", "3")
    assert "most must be 1 or more" in told("--most", "0")
    assert "--by goes with --probe" in refused("heads", "--by", "zero")
    assert "Pellucid's translator is an encoder-decoder" in told("--model", "translator")
    assert "Pellucid's sentiment is an encoder; --probe" in told("--model", "sentiment")
    assert "cannot probe for retrieval: length must be" in told(
        "--only", "retrieval", "--length", "20"
    )


def test_a_pipe_gets_no_progress_and_no_colour(run):
    status, out, err = run("watch", TEXT, "--layers", "0")
    assert (status, err) == (0, "")
    assert out
    assert "\x1b" not in out


def test_the_name_of_a_file_as_a_text(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rain.txt").write_text(TEXT)
    status, out, err = run("watch", "rain.txt")
    assert (status, bool(out)) == (0, True)
    assert err == "pellucid: 'rain.txt' is read as a text; use --file 'rain.txt' to read the file\n"


def test_a_translator_of_pellucids_own_reads_both_texts(run):
    texts = "In the beginning", "En el principio"
    status, out, err = run(
        *("watch", texts[0], "--target", texts[1], "--model", pretrained.TRANSLATOR),
        *("--json", "--top", "0"),
    )
    assert (status, err) == (0, "")
    seen = json.loads(out)
    assert {row["stack"] for row in seen["heads"]} == {"e", "d", "x"}
    tokenizer = pellucid.load(pretrained.TRANSLATOR).tokenizer.inner
    lengths = [len(tokenizer.encode(text).ids) for text in texts]
    assert [seen["tokens"], seen["target_tokens"]] == lengths
