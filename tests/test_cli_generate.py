"""`pellucid generate`, run as a user runs it."""

import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
from functools import partial

import pytest
import torch
from pyarrow import parquet
from tokenizers.processors import TemplateProcessing

import pellucid
from pellucid.commands.printing import generation
from pellucid.commands.printing.generation import Text, Typist
from pellucid.models import Config, Encoder
from pellucid.models.checkpoints.generation import Generation
from pellucid.tasks.generation import generate, stream
from pellucid.tasks.sampling import Sampling
from pellucid.tasks.sources import looks
from tests import forked, writers
from tests.command_line import options_of


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The name of a directory with a model."""
    directory = tmp_path_factory.mktemp("writer")
    writers.writer().save(directory)
    return str(directory)


@pytest.fixture
def run(run):
    """Run `pellucid generate`."""
    return partial(run, "generate")


def printable(text):
    return re.sub("[\x00-\x08\x0b-\x1f\x7f-\x9f]", "\ufffd", text).replace("\r", " ")


def test_the_options_are_those_documented(run):
    status, out, _ = run("--help", width=100)
    assert status == 0
    assert options_of(out) == {
        "--file", "--column", "--delimiter", "--encoding", "--model", "--max-tokens",
        "--temperature", "--top-k", "--top-p", "--min-p", "--seed", "--samples",
        "--repetition-penalty", "--stop", "--chat", "--system", "--beams", "--show", "--strict",
        "--precision", "--output", "--overwrite", "--json", "--help",
    }  # fmt: skip


def test_prompts_read_in_bfloat16(run, model, monkeypatch):
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: True)
    given = ("Once upon", "--model", model, "--max-tokens", "3", "--json", "--precision")
    status, out, err = run(*given, "bfloat16")
    found = json.loads(out)
    assert (status, found["precision"]) == (0, "bfloat16")
    assert 0 < found["largest_difference"] < 0.02
    assert err == (
        f"pellucid: prompts are read in bfloat16: compared on {found['compared']} tokens, "
        "probabilities of the next one differ from those in float32 by "
        f"{found['largest_difference']:.2g} at most\n"
    )
    monkeypatch.setattr("torch.cpu._is_amx_tile_supported", lambda: False)
    status, out, err = run(*given, "auto")
    assert (status, json.loads(out)["precision"], err) == (0, "float32", "")
    assert run(*given, "bfloat16")[0] == 2


def test_a_checkpoint_that_samples_is_sampled_from(run, tmp_path):
    made = writers.writer()
    made.generation = Generation(do_sample=True, temperature=0.8, top_k=17)
    made.save(tmp_path)
    given = ("Once", "--model", str(tmp_path), "--max-tokens", "9")
    status, out, err = run(*given, "--seed", "3")
    expected = Sampling(temperature=0.8, top_k=17)
    [text] = generate(made, ["Once"], max_tokens=9, seed=3, sampling=expected)
    assert (status, out) == (0, printable("Once" + text.text) + "\n")
    assert err.startswith(
        "pellucid: tokens are sampled, as the model's generation_config.json says"
    )
    _, out, err = run(*given, "--top-k", "5", "--seed", "3", "--json")
    asked = json.loads(out)["sampling"]
    assert (asked["top_k"], asked["temperature"]) == (5, 0.8)
    _, out, err = run(*given, "--temperature", "0")
    [text] = generate(made, ["Once"], max_tokens=9, sampling=Sampling(temperature=0))
    assert (out, err) == (printable("Once" + text.text) + "\n", "")


def test_greedy_unless_asked_to_draw(run, model):
    expected = generate(pellucid.load(model), ["Once upon"], max_tokens=9)
    status, out, err = run("Once upon", "--model", model, "--max-tokens", "9")
    assert (status, err) == (0, "")
    assert out == printable(f"Once upon{expected[0].text}\n")


def test_the_model_says_how_little_it_repeats_itself(run, model, tmp_path):
    options = ("--max-tokens", "23", "--json", "--model")
    asked = pellucid.load(model)
    asked.generation = Generation(repetition_penalty=1.7)
    asked.save(tmp_path)
    plain = json.loads(run("Once", *options, model)[1])
    penalised = json.loads(run("Once", *options, str(tmp_path))[1])
    expected = generate(asked, ["Once"], max_tokens=23)
    assert penalised["sampling"]["repetition_penalty"] == 1.7
    assert penalised["texts"][0]["ids"] == expected[0].ids != plain["texts"][0]["ids"]
    given = json.loads(run("Once", *options, str(tmp_path), "--repetition-penalty", "1")[1])
    assert given["texts"][0]["ids"] == plain["texts"][0]["ids"]


def test_sampling_options_reach_the_model(run, model):
    sampling = Sampling(temperature=1.3, top_k=40, top_p=0.9, min_p=0.01, repetition_penalty=1.2)
    expected = generate(
        pellucid.load(model), ["Once"], max_tokens=9, sampling=sampling, samples=2, seed=5
    )
    options = "--temperature 1.3 --top-k 40 --top-p 0.9 --min-p 0.01 --repetition-penalty 1.2"
    more = "--samples 2 --seed 5 --max-tokens 9 --json"
    status, out, err = run("Once", "--model", model, *options.split(), *more.split())
    assert (status, err) == (0, "")
    said = json.loads(out)
    assert [text["text"] for text in said["texts"]] == [one.text for one in expected]
    assert [text["ids"] for text in said["texts"]] == [one.ids for one in expected]
    assert said["seed"] == 5
    assert said["sampling"]["top_p"] == 0.9


def test_a_seed_that_was_chosen_is_said_and_writes_the_same_again(run, model):
    options = ("Once", "--model", model, "--max-tokens", "9", "--temperature", "1", "--json")
    first = json.loads(run(*options)[1])
    again = json.loads(run(*options, "--seed", str(first["seed"]))[1])
    assert again["texts"][0]["ids"] == first["texts"][0]["ids"]


def test_several_stop_strings(run, model):
    whole = json.loads(run("Once", "--model", model, "--json")[1])["texts"][0]["text"]
    place = next(place for place in range(5, 50) if whole.find(whole[place : place + 3]) == place)
    word = whole[place : place + 3]
    status, out, _ = run("Once", "--model", model, "--stop", "zzz", "--stop", word, "--json")
    [text] = json.loads(out)["texts"]
    assert status == 0
    assert text["text"] == whole[:place]
    assert text["stopped"] == "stop string"


def test_prompts_of_a_file_and_of_standard_input(run, model, tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("Once upon\n\nThe ball\n", encoding="utf-8")
    status, out, err = run("--file", str(file), "--model", model, "--max-tokens", "5")
    one, other = (
        run(prompt, "--model", model, "--max-tokens", "5")[1]
        for prompt in ("Once upon", "The ball")
    )
    assert status == 0
    assert out == f"{one}\n{other}"
    assert err == f"pellucid: left out 1 empty line of '{file}': 2\n"
    status, piped, err = run("--model", model, "--max-tokens", "5", stdin=file.read_bytes())
    assert (status, err.count("\n")) == (0, 1)
    assert piped == out


def test_a_file_is_written_whole_and_with_all_characters(run, model, tmp_path):
    file = tmp_path / "out.txt"
    options = ("--model", model, "--max-tokens", "40")
    shown = run("Once", *options)[1]
    status, out, err = run("Once", *options, "-o", str(file))
    assert (status, out, err) == (0, "", f"wrote {file}\n")
    assert printable(file.read_text(encoding="utf-8")) == shown
    file = tmp_path / "out.json"
    status, out, _ = run("Once", *options, "-o", str(file), "--json")
    [told], [kept] = json.loads(out)["texts"], json.loads(file.read_bytes())["texts"]
    assert status == 0
    assert told["text"] == kept["text"]


@pytest.fixture
def prompts(tmp_path):
    """The name of a table with two prompts."""
    path = tmp_path / "prompts.csv"
    path.write_text("number,opening\n1,Once upon\n2,\n3,The ball\n", encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("kind", ["csv", "json", "parquet"])
def test_columns_are_read_and_written(run, model, prompts, tmp_path, kind):
    file = tmp_path / f"out.{kind}"
    options = ("--column", "opening", "--model", model, "--max-tokens", "5", "-o", str(file))
    status, out, err = run("--file", prompts, *options)
    assert (status, out) == (0, "")
    assert err.splitlines()[1:] == [f"wrote {file}"]
    rows = {
        "csv": lambda: list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")))),
        "json": lambda: json.loads(file.read_bytes())["texts"],
        "parquet": lambda: parquet.read_table(file).to_pylist(),
    }[kind]()
    expected = generate(pellucid.load(model), ["Once upon", "The ball"], max_tokens=5)
    assert [int(row["line"]) for row in rows] == [2, 4] if kind != "parquet" else [1, 2]
    assert [row["prompt"] for row in rows] == ["Once upon", "The ball"]
    assert [row["text"] for row in rows] == [one.text for one in expected]
    assert {row["stopped"] for row in rows} == {"max_tokens"}


def test_columns_that_are_not_there(refused, model, prompts):
    options = ("--model", model, "--file", prompts)
    assert "has the columns 'number' and 'opening'; name one" in refused(*options)
    assert "did you mean 'opening'" in refused(*options, "--column", "openin")


def test_control_characters_never_reach_the_terminal(run, tmp_path):
    """A model that says nothing but ESC, as often as it may."""
    model = writers.writer(logit_bias=True)
    [[escape]] = model.tokenizer.encode(["\x1b"])
    model.bias.data[escape] = 1e6
    model.save(tmp_path)
    options = ("--model", str(tmp_path), "--max-tokens", "7")
    status, out, _ = run("Once", *options)
    assert (status, out) == (0, "Once" + 7 * "\ufffd" + "\n")
    [text] = json.loads(run("Once", *options, "--json")[1])["texts"]
    assert text["text"] == 7 * "\x1b"
    assert "\x1b" not in run("Once", *options, "--show")[1]


def test_too_long_is_cut_with_a_warning_or_refused(run, model, tmp_path):
    file = tmp_path / "long.txt"
    file.write_text(writers.TEXT.replace("\n", " ") * 3, encoding="utf-8")
    options = ("--file", str(file), "--model", model, "--max-tokens", "5")
    status, out, err = run(*options)
    assert status == 0
    assert out
    assert re.fullmatch(
        r"pellucid: 1 prompt of 1 truncated to the last 59 tokens, .* \d+ tokens are lost.*\n", err
    )
    status, out, err = run(*options, "--strict")
    assert (status, out) == (2, "")
    assert re.fullmatch(r"pellucid: line 1 of '.*' has \d+ tokens, but .* 64 positions\n", err)


def test_the_end_of_the_positions_is_said(run, model):
    status, _, err = run("Once", "--model", model, "--max-tokens", "500")
    assert status == 0
    assert "1 text of 1 ended because the model has positions for 64 tokens" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["Once", "upon", "--model", "m"], 'one prompt; put it in quotes: "Once upon"'),
        (["", "--model", "m"], "the text is empty"),
        ([" \n", "--model", "m"], "the text is empty"),
        (["a\udcff", "--model", "m"], "bytes that are not UTF-8"),
        (["Once", "--file", "x", "--model", "m"], "give either texts or --file, not both"),
        (["Once", "--model", "/nowhere/at/all"], "model '/nowhere/at/all' is not a directory"),
        (["Once", "--model", "m", "--temperature", "-1"], "--temperature must be 0 (greedy) or a"),
        (["Once", "--model", "m", "--top-p", "0"], "--top-p must be above 0 and at most 1, not 0"),
        (["Once", "--model", "m", "--top-p", "1.01"], "--top-p must be above 0 and at most 1"),
        (["Once", "--model", "m", "--top-k", "0"], "--top-k must be at least 1, not 0"),
        (["Once", "--model", "m", "--min-p", "2"], "--min-p must be from 0 to 1, not 2"),
        (
            ["Once", "--model", "m", "--temperature", "0", "--top-k", "3"],
            "--top-k has no effect at --temperature 0",
        ),
        (["Once", "--model", "m", "--max-tokens", "two"], "Input should be a valid integer"),
        (["Once", "--model", "m", "--seed", "1.5"], "Invalid value for '--seed'"),
        (["Once", "--model", "m", "--seed", "-1"], "--seed must be from 0 to"),
        (["Once", "--model", "m", "--temperature", "nan"], "--temperature must be 0 (greedy) or"),
        (["Once", "--model", "m", "--repetition-penalty", "inf"], "must be above 0 and finite"),
        (["Once", "--model", "m", "--samples", "-2"], "--samples must be from 1 to 65,536, not -2"),
        (["Once", "--model", ""], "--model is empty"),
        (["Once", "--model", "m", "-o", "a.pdf"], "must end in .txt, .csv, .json or .parquet"),
        (["Once", "--model", "m", "-o", "no/a.csv"], "cannot write 'no/a.csv': No such file"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_and_status_2(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert err.startswith("pellucid: ")
    assert message in err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--max-tokens", "0"], "--max-tokens must be from 1 to 2,147,483,647, not 0"),
        (["--samples", "0"], "--samples must be from 1 to 65,536, not 0"),
        (["--samples", "2", "--temperature", "0"], "all 2 samples are identical"),
        (["--seed", "-1"], "--seed must be from 0 to"),
        (["--stop", ""], "stop contains an empty string"),
    ],
)
def test_what_is_wrong_with_numbers(run, model, options, message):
    status, out, err = run("Once", "--model", model, *options)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_files_that_are_no_prompts(run, model, tmp_path):
    file = tmp_path / "bytes.txt"
    for content, message in [(b"a\xff", "is not UTF-8 text: byte 1"), (b"\n \n", "is empty")]:
        file.write_bytes(content)
        status, out, err = run("--file", str(file), "--model", model)
        assert (status, out, err.count("\n")) == (2, "", 1)
        assert message in err


def test_a_model_that_writes_no_text(run, tmp_path):
    Encoder(Config(kind="encoder", vocabulary=11, width=8, heads=2, hidden=8)).save(tmp_path)
    status, _, err = run("Once", "--model", str(tmp_path))
    assert status == 2
    assert "must be a Decoder, not Encoder" in err
    bare = tmp_path / "bare"
    loaded = writers.writer()
    loaded.tokenizer = None
    loaded.save(bare)
    assert run("Once", "--model", bare)[2] == f"pellucid: model '{bare}' has no tokenizer\n"


def endless(directory):
    """A model that goes on for as long as one likes."""
    writers.writer(position="rotary", positions=None, stop=()).save(directory)
    return str(directory)


def test_ctrl_c_ends_with_what_was_written(tmp_path):
    options = ["Once", "--model", endless(tmp_path / "m"), "--max-tokens", "200000"]
    with subprocess.Popen(
        [*forked.command(), "generate", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.read(20).startswith(b"Once")  # as it is written, not at the end
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out.endswith(b"\n")
    assert err == b"pellucid: interrupted; 0 texts of 1 ended\n"


def test_ctrl_c_leaves_a_file_with_what_was_written(run, model, tmp_path, monkeypatch):
    def interrupted(*arguments, **options):
        for number, piece in enumerate(stream(*arguments, **options)):
            if number == 5:
                raise KeyboardInterrupt
            yield piece

    [whole] = generate(pellucid.load(model), ["Once"], max_tokens=5)
    monkeypatch.setattr(generation, "stream", interrupted)
    for name in ("out.txt", "out.json"):
        file = tmp_path / name
        status, out, err = run("Once", "--model", model, "-o", str(file), "--show")
        assert (status, out) == (130, "")
        assert err == f"pellucid: interrupted; 0 texts of 1 ended\nwrote {file}\n"
        said = file.read_text(encoding="utf-8")
        if name == "out.json":
            [text] = json.loads(said)["texts"]
            assert (text["ids"], text["stopped"]) == (whole.ids, "interrupted")
            said = text["prompt"] + text["text"]
        assert whole.text.startswith(said.strip().removeprefix("Once"))


def test_a_reader_that_leaves_early_is_no_error(tmp_path):
    options = ["Once", "--model", endless(tmp_path / "m"), "--max-tokens", "2000"]
    with subprocess.Popen(
        [*forked.command(), "generate", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        process.stdout.read(5)
        process.stdout.close()
        assert process.stderr.read() == b""


def test_on_a_terminal_the_speed_is_said(model):
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*forked.command(), "generate", "Once", "--model", model, "--max-tokens", "9"],
        stdout=subprocess.PIPE,
        stderr=theirs,
        timeout=120,
    )
    os.close(theirs)
    told = b""
    while b"tokens/s" not in told:
        told += os.read(ours, 4096)
    os.close(ours)
    assert done.returncode == 0
    assert re.search(rb"9 tokens in [\d.]+ s, \d+ tokens/s", told)


class Screen:
    """What was printed, call by call."""

    def __init__(self):
        self.calls = []

    def write(self, text):
        self.calls.append(text)

    def flush(self):
        pass


def test_texts_are_printed_in_order_the_first_as_it_grows():
    screen, texts = Screen(), [Text(1, "a", 0), Text(2, "b\x1b", 0)]
    typist = Typist(texts, screen)
    typist.print_new()
    assert screen.calls == []
    texts[1].text, texts[1].ids, texts[1].done = " two\x9b", [1], object()
    texts[0].text, texts[0].ids = " on", [2]
    typist.print_new()
    assert "".join(screen.calls) == "a on"
    texts[0].text = " one"
    typist.print_new()
    assert "".join(screen.calls) == "a one"
    texts[0].done = object()
    typist.print_new()
    assert "".join(screen.calls) == "a one\n\nb\ufffd two\ufffd\n"


@pytest.mark.parametrize("width", [30, 50, 120])
def test_show_is_a_table_without_colour_at_every_width(run, model, width):
    options = ("--model", model, "--max-tokens", "30", "--show")
    status, out, err = run("Once upon a time there was a girl", *options, width=width)
    assert (status, err) == (0, "")
    text, table = out.split("What each new word")
    assert text.startswith("Once upon a time")
    assert "\x1b" not in out
    assert max(map(len, table.splitlines()[1:])) <= width
    assert "←" in table
    assert re.search(r"← (\w|\ufffd).* \d+%", table)


def test_show_says_where_there_is_nothing_to_show(run, model):
    """The second word has the first before it and no other."""
    _, out, _ = run("Once", "--model", model, "--max-tokens", "9", "--show")
    first = out.partition("when it was generated")[2].split("\n")[2]
    assert re.fullmatch(r" *\S+ ← only words that are left out", first)
    assert "the word just before, the first word, punctuation" in " ".join(out.split())


def test_show_says_which_text_it_is_about(run, model):
    options = ("--model", model, "--max-tokens", "5", "--show")
    told = run("--file", "-", *options, stdin="Once upon\nThe ball\n")[1]
    assert re.findall("^Text .*", told, re.MULTILINE) == [
        "Text 1 of 2: Once upon",
        "Text 2 of 2: The ball",
    ]
    assert "Text 1" not in run("Once upon", *options)[1]


def test_show_of_a_prompt_with_a_mark_in_front(run, tmp_path):
    model = writers.writer()
    model.tokenizer.inner.post_processor = TemplateProcessing(
        single="<|end|> $A", special_tokens=[("<|end|>", 0)]
    )
    model.save(tmp_path)
    _, out, _ = run("Once upon", "--model", str(tmp_path), "--max-tokens", "9", "--show")
    assert "the word just before, punctuation and special tokens" in " ".join(out.split())
    assert "end|" not in out


def test_show_has_colours_where_the_terminal_has(run, model, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    status, out, _ = run("Once upon a time", "--model", model, "--max-tokens", "30", "--show")
    assert status == 0
    assert "Attended most to" in out
    assert "\x1b[" in out


def test_json_has_what_show_shows(run, model):
    options = ("--model", model, "--max-tokens", "30", "--json")
    assert "looks" not in json.loads(run("Once upon a time", *options)[1])["texts"][0]
    [text] = json.loads(run("Once upon a time", *options, "--show")[1])["texts"]
    assert text["looks"]
    for look in text["looks"]:
        assert sum(source["share"] for source in look["sources"]) < 1


def test_looks_are_the_rows_of_the_tokens_before():
    """Against dense weights, word by word."""
    model = writers.writer()
    prompt, whole = model.tokenizer.encode(
        ["Once upon a time", "Once upon a time there was a red ball"]
    )
    found = looks(model, prompt, whole[len(prompt) :])
    assert "".join(found.pieces) == "Once upon a time there was a red ball"
    assert [found.words[look.word] for look in found.new] == ["there", "was", "a", "red", "ball"]
    with torch.no_grad():
        _, seen = model(torch.tensor([whole]), watch=True)
    weights = torch.stack([record.weights.dense()[0].mean(0) for record in seen.records]).mean(0)
    red = next(look for look in found.new if found.words[look.word] == "red")
    places = [place for place, owner in enumerate(found.owners) if owner == red.word]
    rows = torch.stack([weights[place - 1] for place in places]).mean(0)
    shares = {}
    for place, owner in enumerate(found.owners):
        shares[owner] = shares.get(owner, 0.0) + float(rows[place])
    wanted = {
        owner: share
        for owner, share in shares.items()
        if owner not in (0, red.word, red.word - 1) and share > 0
    }
    assert {source.word: source.share for source in red.sources} == pytest.approx(wanted, rel=1e-4)
    assert [source.word for source in red.sources] == sorted(wanted, key=lambda word: -wanted[word])
