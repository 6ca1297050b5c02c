"""What is said of a run: to people on a terminal and without one, and to programs in the log."""

import io
import json
import math
import re
import subprocess
import sys
import types
from importlib.util import find_spec
from xml.etree import ElementTree

import pytest
import torch
from rich.console import Console

from pellucid.commands.printing import training as printing
from pellucid.commands.printing.training import LiveLine
from pellucid.errors import FileError
from pellucid.training import report, tensorboard
from pellucid.training.attention_snapshot import Glance
from pellucid.training.progress_line import Mean, duration
from pellucid.training.report import Report

NAN = math.nan


class Clock:
    """It stands still unless a test moves it."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (printing, report):
        monkeypatch.setattr(module, "perf_counter", clock)
    return clock


@pytest.fixture(autouse=True)
def _no_board(monkeypatch):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)


def terminal(width=100, is_terminal=True):
    # Neither colours nor the size depend on where the tests run.
    return Console(
        file=io.StringIO(),
        force_terminal=is_terminal,
        force_interactive=is_terminal,
        color_system=None,
        width=width,
        legacy_windows=False,
        _environ={},
    )


def reporting(directory, steps, tokens, *, console, **options):
    return Report(directory, steps, tokens, line=LiveLine(steps, console), **options)


def steps(made, clock, first, last, loss=3.0):
    for step in range(first, last + 1):
        clock.now += 1
        made.step(step, loss, 0.5, 1e-3, 0)


def lines(directory):
    return [json.loads(line) for line in (directory / "log.jsonl").read_text().splitlines()]


def shown(made, width):
    console = terminal(width)
    console.print(made.line)
    return console.file.getvalue()


def test_the_log_says_what_was_measured(tmp_path, clock):
    made = reporting(tmp_path, 100, 400, work=3.0, peak=2400.0, console=terminal(is_terminal=False))
    clock.now += 0.5
    made.step(1, 8.25, 1.5, 2e-5, 0)
    clock.now += 2.0
    made.step(2, NAN, math.inf, 4e-5, 1, tokens=300)
    clock.now += 3.0
    made.judged(2, {"loss": 7.5, "accuracy": NAN}, True, "fish")
    clock.now += 7.0
    made.saved()
    steps(made, clock, 3, 3)
    assert lines(tmp_path) == [
        {
            "step": 1,
            "loss": 8.25,
            "norm": 1.5,
            "learning_rate": 2e-5,
            "tokens": 400,
            "tokens_per_second": 800.0,
            "share_of_peak": 1.0,
            "seconds": 0.5,
        },
        {
            "step": 2,
            "loss": None,
            "norm": None,
            "learning_rate": 4e-5,
            "tokens": 300,
            "tokens_per_second": 150.0,
            "share_of_peak": 0.1875,
            "seconds": 2.0,
        },
        {
            "step": 2,
            "held_out": {"loss": 7.5, "accuracy": None},
            "best": True,
            "sample": "fish",
            "seconds": 3.0,
        },
        lines(tmp_path)[3],
    ]
    assert lines(tmp_path)[3]["seconds"] == 1.0  # evaluation and checkpoint are no part of it


@pytest.mark.parametrize("half", ["", '{"step": 6, "lo', '{"step": 6}', "\udcff\x00[1]\n7\n{}\n"])
def test_a_run_that_went_on_has_the_log_of_one_that_never_stopped(tmp_path, clock, half):
    def run(name, first, last, resumed=False):
        directory = tmp_path / name
        directory.mkdir(exist_ok=True)
        made = reporting(directory, 9, 400, console=terminal(is_terminal=False))
        if resumed:
            made.resumed(first - 1, [])
        for start in range(first, last + 1, 2):
            steps(made, clock, start, min(start + 1, last), loss=8 / start)
            made.judged(start + 1, {"loss": 4 / start}, True, "")
        return [(directory / file).read_bytes() for file in ("log.jsonl", "loss.svg")]

    whole = run("whole", 1, 8)
    run("stopped", 1, 6)
    with (tmp_path / "stopped" / "log.jsonl").open("a", errors="surrogateescape") as log:
        log.write(half)
    assert run("stopped", 5, 8, resumed=True) == whole


def test_no_step_does_more_than_the_machine_can(tmp_path, clock):
    """Its peak may have been measured while somebody else kept it busy."""
    made = reporting(tmp_path, 9, 400, work=3.0, peak=800.0, console=terminal(is_terminal=False))
    steps(made, clock, 1, 1)
    clock.now += 1
    made.step(2, 3.0, 0.5, 1e-3, 0, tokens=200)
    assert [line["share_of_peak"] for line in lines(tmp_path)] == [1.0, 0.5]
    assert "75% of peak" in shown(made, 100) or "74% of peak" in shown(made, 100)


def a_glance():
    weights = torch.tensor([[0.25, 0.75, 0.0], [0.001, 0.0, 0.999]])
    sides = {"rows": ("los", "gatos"), "columns": ("the", "cats", ".")}
    names = {"text": "the cats . → los gatos", "layer": 1, "head": 2, "is_cross": True}
    return Glance(weights=weights, entropy=0.28768, **sides, **names)


def test_an_evaluation_shows_what_a_head_sees(tmp_path, clock):
    console = terminal(width=40, is_terminal=False)
    with reporting(tmp_path, 9, 400, console=console) as made:
        made.judged(3, {"loss": 2.5}, True, "", a_glance())
    assert [line.rstrip() for line in console.file.getvalue().splitlines()] == [
        "step 3: loss 2.5  (best so far)",
        "    cross-attention, layer 1, head 2, entropy 0.29 nats",
        "           the  cats    .",
        "      los   25    75    ·",
        "    gatos    ·     ·  100",
    ]
    assert lines(tmp_path)[0]["attention"] == {"layer": 1, "head": 2, "entropy": 0.2877}
    (picture,) = (tmp_path / "attention").iterdir()
    assert picture.name == "step-0000003.svg"
    said = " ".join(ElementTree.fromstring(picture.read_text()).itertext())
    for part in ("After 3 steps", "the cats . → los gatos", "gatos → .: 99.9%", "75%"):
        assert part in said


def test_a_picture_that_cannot_be_written_is_an_error_of_ours(tmp_path, clock):
    (tmp_path / "attention").touch()
    made = reporting(tmp_path, 9, 400, console=terminal())
    with pytest.raises(FileError, match="attention"):
        made.judged(3, {"loss": 2.5}, True, "", a_glance())


def test_a_run_that_begins_anew_has_a_new_log(tmp_path, clock):
    for last in (5, 2):
        steps(reporting(tmp_path, 9, 400, console=terminal(is_terminal=False)), clock, 1, last)
    assert [line["step"] for line in lines(tmp_path)] == [1, 2]


def test_without_a_terminal_there_is_a_line_every_ten_seconds(tmp_path, clock):
    console = terminal(width=20, is_terminal=False)
    with reporting(tmp_path, 2000, 400, work=3.0, peak=2400.0, console=console) as made:
        made.resumed(1000, ["step-0001250", "step-0001500"])
        steps(made, clock, 1001, 1019, loss=3.0)
        clock.now += 1
        made.step(1020, NAN, 1.0, 1e-3, 1)
        made.judged(1020, {"loss": 2.5, "bits_per_byte": 1.25}, True, "one\ntwo\x1b[31m")
    assert console.file.getvalue().splitlines() == [
        "resuming from step 1,000 of 2,000",
        "skipped damaged checkpoints: step-0001250 and step-0001500",
        "step 1,010/2,000  50%  loss 3.000  400 tokens/s  50% of peak  16 min left",
        "step 1,020/2,000  51%  loss 3.000  400 tokens/s  50% of peak  16 min left  1 skipped",
        "step 1,020: loss 2.5  bits per byte 1.25  (best so far)",
        "    one",
        "    two�[31m",
    ]


def test_a_terminal_has_one_line_that_says_less_where_it_is_narrow(tmp_path, clock):
    made = reporting(tmp_path, 2000, 400, work=3.0, peak=2400.0, console=terminal())
    assert shown(made, 40).split() == ["step", "0/2,000", "0%"]
    steps(made, clock, 1, 500)
    made.judging(3, 4)

    def said(width):
        line = shown(made, width)
        assert line.count("\n") == 1
        return re.sub("━[━╸]* +", "", line.rstrip())

    long = "25%  loss 3.000  400 tokens/s  50% of peak  25 min left  judging: 75%"
    assert said(100) == f"step 500/2,000  {long}"
    assert said(83) == long
    assert said(80) == "25%  loss 3.000  400 tokens/s  25 min left  judging: 75%"
    assert said(60) == "25%  loss 3.000  25 min left  judging: 75%"
    assert said(45) == "25%  loss 3.000  25 min left"
    assert said(30) == "25%  loss 3.000"


def test_the_line_is_gone_afterwards_and_what_was_printed_stays(tmp_path, clock):
    console = terminal()
    with pytest.raises(KeyboardInterrupt):
        interrupt(reporting(tmp_path, 9, 400, console=console), clock)
    written = console.file.getvalue()
    assert "step 3: loss 2\n" in written
    assert written.endswith("\x1b[?25h\r\x1b[1A\x1b[2K")  # a cursor, and the line wiped out


def interrupt(made, clock):
    with made:
        steps(made, clock, 1, 3)
        made.judged(3, {"loss": 2.0}, False, "")
        raise KeyboardInterrupt


def test_the_time_left_counts_evaluations_too(tmp_path, clock):
    made = reporting(tmp_path, 100, 400, console=terminal())
    steps(made, clock, 1, 10)
    assert "  90 s left" in shown(made, 100)
    clock.now += 4
    made.judged(10, {"loss": 2.0}, False, "")
    clock.now += 1
    made.saved()
    assert "  2 min left" in shown(made, 100)  # 1.5 s a step


def test_others_than_the_first_process_say_nothing(tmp_path, clock):
    console = terminal()
    with reporting(tmp_path, 9, 400, is_first=False, console=console) as made:
        made.resumed(1, ["step-0000002"])
        made.judging(1, 2)
        steps(made, clock, 2, 30)
        made.judged(3, {"loss": 2.0}, True, "x")
        made.saved()
    assert console.file.getvalue() == ""
    assert list(tmp_path.iterdir()) == []


def test_the_curve_is_drawn_of_what_is_a_number(tmp_path, clock):
    made = reporting(tmp_path, 9, 400, console=terminal())
    clock.now += 1
    made.step(1, NAN, NAN, 1e-3, 1)
    made.judged(1, {"loss": 9.0}, True, "")
    assert not (tmp_path / "loss.svg").exists()
    steps(made, clock, 2, 3)
    made.judged(3, {"accuracy": 0.5}, True, "")
    svg = (tmp_path / "loss.svg").read_text()
    assert "held out 9.000" in " ".join(ElementTree.fromstring(svg).itertext())


def test_a_log_that_cannot_be_written_is_an_error_of_ours(tmp_path, clock):
    (tmp_path / "log.jsonl").mkdir()
    made = reporting(tmp_path, 9, 400, console=terminal())
    with pytest.raises(FileError, match=r"log\.jsonl"):
        steps(made, clock, 1, 1)
    with pytest.raises(FileError, match="cannot write"):
        steps(reporting(tmp_path / "none", 9, 400, console=terminal()), clock, 1, 1)


class Writer:
    def __init__(self, directory, purge_step):
        self.scalars, self.texts, self.is_closed, self.purge_step = [], [], False, purge_step
        Writer.made = self

    def add_scalar(self, name, number, step):
        if number == 666:
            raise OSError("no space left")
        self.scalars.append((name, number, step))

    def add_text(self, name, text, step):
        self.texts.append((name, text, step))

    def close(self):
        self.is_closed = True


@pytest.fixture
def _board(monkeypatch):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: name)
    module = types.SimpleNamespace(SummaryWriter=Writer)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)


@pytest.mark.usefixtures("_board")
def test_tensorboard_has_the_same_numbers(tmp_path, clock):
    with reporting(tmp_path, 9, 400, console=terminal()) as made:
        made.resumed(4, [])
        steps(made, clock, 5, 5)
        made.judged(5, {"loss": 2.0, "accuracy": NAN}, True, "x\ny", a_glance())
        made.judged(7, {}, True, "")
    (sample, attention) = Writer.made.texts
    assert sample == ("sample", "    x\n    y", 5)
    assert attention[0] == "attention"
    assert "\n          los   25    75    ·\n" in attention[1]
    assert Writer.made.purge_step == 5
    assert Writer.made.is_closed
    assert Writer.made.scalars == [
        ("train/loss", 3.0, 5),
        ("train/norm", 0.5, 5),
        ("train/learning_rate", 1e-3, 5),
        ("train/tokens", 400, 5),
        ("train/tokens_per_second", 400.0, 5),
        ("train/seconds", 1.0, 5),
        ("held_out/loss", 2.0, 5),
    ]


@pytest.mark.usefixtures("_board")
def test_tensorboard_never_ends_a_run(tmp_path, clock, monkeypatch):
    console = terminal(is_terminal=False)
    with reporting(tmp_path, 9, 400, console=console) as made:
        steps(made, clock, 1, 4, loss=666)
    assert console.file.getvalue() == "TensorBoard failed: no space left\n"
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with reporting(tmp_path, 9, 400, console=terminal()) as made:
        steps(made, clock, 1, 4)
    assert len(lines(tmp_path)) == 4


def test_tensorboard_itself_reads_what_was_written(tmp_path, clock, monkeypatch):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr(tensorboard, "find_spec", find_spec)
    console = terminal(is_terminal=False)
    with reporting(tmp_path, 9, 400, console=console) as made:
        steps(made, clock, 1, 3)
        made.judged(3, {"loss": 2.5}, True, "fish", a_glance())
    assert "TensorBoard" not in console.file.getvalue()
    read = accumulator.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    losses = [(one.step, one.value) for one in read.Scalars("train/loss")]
    assert losses == [(1, 3.0), (2, 3.0), (3, 3.0)]
    assert [one.value for one in read.Scalars("held_out/loss")] == [2.5]
    for name, said in {"sample": "    fish", "attention": "    gatos    ·     ·  100"}.items():
        (text,) = read.Tensors(f"{name}/text_summary")
        assert said in text.tensor_proto.string_val[0].decode()


def test_reporting_needs_no_torch():
    code = "import sys, pellucid.training.report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_mean_is_right_from_its_first_number_on():
    mean = Mean(0.9)
    mean.add(400, 2.0)
    assert mean.value == 200
    mean.add(800, 1.0)
    assert mean.value == pytest.approx((0.9 * 400 + 800) / (0.9 * 2 + 1))


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.4, "0 s"),
        (99, "99 s"),
        (100, "2 min"),
        (5999, "100 min"),
        (6000, "1.7 h"),
        (2e5, "2.3 days"),
    ],
)
def test_durations_are_for_people(seconds, said):
    assert duration(seconds) == said
