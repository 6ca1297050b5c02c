"""In bfloat16, compiled and with blocks that run again, training teaches what it does plainly."""

import re
import shutil
from functools import partial

import pytest
import torch

import pellucid
from pellucid.layers.bfloat16 import fast_dtype
from pellucid.layers.block import Block
from pellucid.training.objectives.pairs import TEMPERATURE
from pellucid.training.settings import Settings
from tests.training.tiny import STEPS, kinds, trainer, weights

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
LOW, HIGH = torch.bfloat16, torch.float32
# The compiler's own, of which it hides the second where no test makes errors of warnings.
QUIET = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:The .grad attribute")
OF_BFLOAT16 = 2**-8
"""One in the last place of its 8 bits: what a number that is rounded is off by, at the most."""


def has(monkeypatch, *, tiles=False, bfloat16=False):
    """A CPU with or without tiles, and a GPU with or without bfloat16 of its own."""
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)

    def supported(including_emulation=True):
        return bfloat16 or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)


@pytest.mark.parametrize("tiles", [False, True])
@pytest.mark.parametrize("bfloat16", [False, True])
def test_what_a_device_is_fastest_in(tiles, bfloat16, monkeypatch):
    has(monkeypatch, tiles=tiles, bfloat16=bfloat16)
    fastest = {CPU: LOW if tiles else HIGH, CUDA: LOW if bfloat16 else HIGH, MPS: HIGH}
    for device, dtype in fastest.items():
        assert fast_dtype(device) == dtype
        assert Settings(steps=3).dtype(device) == dtype
        assert Settings(steps=3, precision="float32").dtype(device) == HIGH
        assert Settings(steps=3, precision="bfloat16").dtype(device) == LOW


@pytest.mark.parametrize(
    ("precision", "tiles", "expected"),
    [
        ("auto", True, LOW),
        ("auto", False, HIGH),
        ("float32", True, HIGH),
        ("bfloat16", False, LOW),
    ],
)
def test_matrices_are_multiplied_in_what_was_asked(
    precision, tiles, expected, tmp_path, monkeypatch
):
    has(monkeypatch, tiles=tiles)
    run = trainer("decoder", tmp_path, precision=precision)
    found = set()
    for block in run.objective.modules():
        if isinstance(block, Block):
            block.feed_forward.up.register_forward_hook(lambda *said: found.add(said[-1].dtype))
    run.update()
    assert found == {expected}
    run.objective.eval()
    found.clear()
    with torch.no_grad():
        run.objective.measure()
    assert found == {HIGH}  # what is judged is what people will load


@pytest.mark.parametrize("kind", kinds("decoder", "translator"))
def test_what_bfloat16_costs_is_told(kind, tmp_path, monkeypatch):
    has(monkeypatch, tiles=True)
    assert trainer(kind, tmp_path / "plain", precision="float32").precision_told() is None
    run = trainer(kind, tmp_path / "low", precision="auto")
    before = torch.get_rng_state()
    told = run.precision_told()
    assert torch.equal(torch.get_rng_state(), before)
    exact, low = map(float, re.findall(r"[0-9]+\.[0-9]+", told))
    assert exact != low == pytest.approx(exact, rel=OF_BFLOAT16)
    run.objective.eval()
    part = run.objective.batch(0)
    torch.manual_seed(run._seed())
    with torch.no_grad():
        assert exact == pytest.approx(
            float(run.objective(part)) / run.objective.targets(part), abs=1e-5
        )
    assert "faster" not in told
    has(monkeypatch, tiles=False)
    told = trainer(kind, tmp_path / "slow", precision="bfloat16").precision_told()
    assert told.endswith("; it is no faster here, and precision=float32 loses no digits")


# The others stop and go on in `test_loop`.
@pytest.mark.parametrize("kind", kinds("translator", "masked", "contrastive"))
def test_bfloat16_leaves_the_weights_as_they_are_and_resumes(kind, tmp_path):
    whole = trainer(kind, tmp_path / "whole", precision="bfloat16")
    expected = whole.run()
    states = [part for one in whole.optimiser.state.values() for part in one.values()]
    for tensor in (*weights(whole).values(), *whole.mean.tensors.values(), *states):
        assert tensor.dtype == HIGH
    assert {one.dtype for one in pellucid.load(tmp_path / "whole").parameters()} == {HIGH}
    stopped = trainer(kind, tmp_path / "parts", precision="bfloat16")
    for _ in range(3):
        stopped.update()
        stopped.step += 1
    stopped._save()
    again = trainer(kind, tmp_path / "parts", precision="bfloat16")
    assert again.run(resume=True) == expected
    torch.testing.assert_close(weights(again), weights(whole), rtol=0, atol=0)


@pytest.mark.parametrize("kind", kinds("decoder", "contrastive", "guided"))
def test_bfloat16_teaches_nearly_the_same(kind, tmp_path):
    runs = [trainer(kind, tmp_path / one, precision=one) for one in ("float32", "bfloat16")]
    for _ in range(STEPS):
        plain, low = (run.update()[0] for run in runs)
        for run in runs:
            run.step += 1
        assert plain != low
        # What is divided by a temperature has errors that are too, as soon as weights differ.
        most = OF_BFLOAT16 / 2 if runs[0].step == 1 else OF_BFLOAT16
        grows = kind == "contrastive" and runs[0].step > 1
        assert low == pytest.approx(plain, rel=most / TEMPERATURE if grows else most)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", kinds("masked", "guided"))
def test_blocks_that_run_again_teach_the_same_to_the_bit(kind, precision, tmp_path):
    dropout = {"dropout": 0.2, "attention_dropout": 0.3}
    plain, again = (
        trainer(kind, tmp_path / str(on), checkpointing=on, precision=precision, model=dropout)
        for on in (False, True)
    )
    calls = dict.fromkeys((plain, again), 0)

    def count(run):
        calls[run] += 1

    for run in (plain, again):
        (first, *_) = (one for one in run.objective.modules() if isinstance(one, Block))
        first.feed_forward.up.register_forward_hook(lambda *_, run=run: count(run))
        for _ in range(3):
            run.update()
            run.step += 1
    assert calls[again] == 2 * calls[plain] > 0
    torch.testing.assert_close(weights(again), weights(plain), rtol=0, atol=0)


@pytest.fixture
def compiler(monkeypatch):
    """The part of torch's that finds what to compile; to make machine code of it takes a minute."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@QUIET
@pytest.mark.usefixtures("compiler")
@pytest.mark.parametrize("kind", ["decoder", pytest.param("guided", marks=pytest.mark.slow)])
def test_compiled_blocks_teach_the_same_and_resume(kind, tmp_path):
    check_compiled(kind, tmp_path, anew=False)


@pytest.mark.slow
@QUIET
@pytest.mark.skipif(
    shutil.which("c++") is None, reason="torch compiles for a CPU by a C++ compiler"
)
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", ["decoder", "translator"])
def test_machine_code_teaches_the_same_and_resumes(kind, checkpointing, tmp_path):
    torch.compiler.reset()
    check_compiled(kind, tmp_path, anew=True, checkpointing=checkpointing)


def check_compiled(kind, directory, anew, **options):
    # Of dropout, compiled code would draw other random numbers.
    options |= {"model": {"dropout": 0.0, "layers": 1 + anew}, "save_every": STEPS - 1}
    plain = trainer(kind, directory / "plain", **options).run()
    compiled = trainer(kind, directory / "compiled", compile=True, **options)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    expected = compiled.run()
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > before
    # Sums in another order: some last places of 24 bits, over 6 steps.
    assert expected == pytest.approx(plain, rel=1e-5)
    shutil.rmtree(directory / "compiled" / "training" / "checkpoints" / f"step-{STEPS:07d}")
    if anew:
        torch.compiler.reset()  # as in another process
    again = trainer(kind, directory / "compiled", compile=True, **options)
    again._resume()
    assert again.step == STEPS - 1
    assert again.run(resume=True) == expected
    torch.testing.assert_close(weights(again), weights(compiled), rtol=0, atol=0)
    loaded = pellucid.load(directory / "compiled").state_dict()
    same = {name.removeprefix("model."): one for name, one in again.mean.tensors.items()}
    torch.testing.assert_close({name: loaded[name] for name in same}, same, rtol=0, atol=0)
