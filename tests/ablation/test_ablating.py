"""Every head knocked out in turn: beside ablations by hand, in float64."""

import json
from copy import deepcopy

import pytest
import torch

import pellucid
from pellucid import errors
from pellucid.ablation import trial
from pellucid.ablation.controls import seed_of, turned
from pellucid.ablation.measures import Answer, fall
from pellucid.lens import replays
from tests import writers
from tests.ablation import by_hand
from tests.ablation.by_hand import IDS, SOURCE


@pytest.fixture(scope="module")
def writer():
    return writers.writer(layers=3)


@pytest.fixture(scope="module")
def found(writer):
    return pellucid.ablate(writer, IDS, controls=0)


def budget(model, name, head, change, *ids):
    """The truth, and how far the plain formula in float32 is from it, with some rounding."""
    exact = deepcopy(model).double()
    truth = by_hand.divergence(exact, change(exact, name, head), *ids)
    plain = by_hand.divergence(model, change(model, name, head), *ids)
    return truth, 4 * float((plain - truth).abs().max()) + 1e-6 * float(truth.max())


def test_each_head_as_by_hand(writer, found):
    assert [row.place for row in found] == [f"{x}.{y}" for x in range(3) for y in range(3)]
    exact = deepcopy(writer).double()
    for row in found:
        truth, error = budget(writer, row.name, row.head, by_hand.without, IDS)
        assert float(truth.mean()) > 100 * error
        assert row.effect == row.kl
        assert abs(row.effect - float(truth.mean())) <= error
        assert abs(row.kl_last - float(truth[-1])) <= error
        other = by_hand.without(exact, row.name, row.head)
        rise = float(by_hand.loss(other, IDS) - by_hand.loss(exact, IDS))
        assert row.loss == pytest.approx(rise, abs=2e-6)


def test_the_mean_takes_its_place_where_that_is_asked(writer):
    found = pellucid.ablate(writer, IDS, by="mean", layers=1, controls=0)
    assert {row.layer for row in found} == {1}
    for row in found:
        truth, error = budget(writer, row.name, row.head, by_hand.with_mean, IDS)
        assert abs(row.effect - float(truth.mean())) <= error


def test_all_attention_of_an_encoder_decoder():
    model = by_hand.translator()
    found = pellucid.ablate(
        model, {"source": SOURCE, "target": IDS}, measure="loss", controls=2, top=1
    )
    assert {row.stack for row in found} == {"e", "d", "x"}
    assert len(found) == 12
    exact = deepcopy(model).double()
    for row in found:
        other = by_hand.without(exact, row.name, row.head)
        rise = float(by_hand.loss(other, SOURCE, IDS) - by_hand.loss(exact, SOURCE, IDS))
        assert row.effect == pytest.approx(rise, abs=5e-6)
    assert [len(one) for one in found.controls.values()] == [2]


def test_a_function_of_the_output_is_a_measure(writer):
    found = pellucid.ablate(
        writer, IDS, measure=lambda logits: logits[:, -1, 7], layers=-1, controls=0
    )
    exact = deepcopy(writer).double()
    with torch.no_grad():
        plain = exact(IDS)[0, -1, 7]
        for row in found:
            changed = by_hand.without(exact, row.name, row.head)(IDS)[0, -1, 7]
            assert row.effect == pytest.approx(float(plain - changed), abs=1e-5)


def test_only_later_blocks_run_again(writer, found):
    calls = []
    for number, block in enumerate(writer.decoder.blocks):
        block.register_forward_hook(lambda *_, n=number: calls.append(n))
    attending = [f"decoder.blocks.{n}.attention" for n in range(3)]
    replay = replays.Replay(writer, lambda items: writer(IDS.repeat(items, 1)), attending)
    inner = [block.feed_forward for block in writer.decoder.blocks]
    ran = []
    handles = [
        part.register_forward_hook(lambda *_, n=n: ran.append(n)) for n, part in enumerate(inner)
    ]
    with torch.no_grad():
        again = replay.last_block(replay.first([attending[2]]), 5)
        assert ran == [2]
        assert again.shape == (5, 11, 24)
        ran.clear()
        logits = replay.end(again[:, 3:5])
        assert (ran, logits.shape) == ([], (5, 2, writers.VOCABULARY))
        assert torch.allclose(logits[4], writer(IDS)[0, 3:5], atol=1e-5)
    for one in (*handles,):
        one.remove()
    for block in writer.decoder.blocks:
        block._forward_hooks.clear()
        assert "forward" not in vars(block)


def test_a_model_that_does_not_follow_its_blocks_runs_whole(writer, found, monkeypatch):
    monkeypatch.setattr(replays, "_are_close", lambda *_: False)
    whole = pellucid.ablate(writer, IDS, controls=0)
    for row, other in zip(found, whole, strict=True):
        assert row.effect == pytest.approx(other.effect, rel=1e-4)


def test_few_logits_are_held(writer, found, monkeypatch):
    held = []
    real = trial.tensor_of

    def noted(output):
        held.append(real(output).numel())
        return real(output)

    monkeypatch.setattr(trial, "tensor_of", noted)
    monkeypatch.setattr(trial, "MOST_LOGITS", 5 * writers.VOCABULARY)
    again = pellucid.ablate(writer, IDS, controls=0)
    assert sorted(held)[-2] <= 5 * writers.VOCABULARY < sorted(held)[-1]  # that of the plain run
    for row, other in zip(found, again, strict=True):
        assert row.effect == pytest.approx(other.effect, rel=1e-4)


def test_a_head_that_nothing_reads_matters_nothing(writer):
    model = by_hand.without(writer, "decoder.blocks.1.attention", 2)
    model.decoder.blocks[1].attention.output.weight.data[:, :8] *= 9
    found = pellucid.ablate(model, IDS, layers=1, controls=19, top=3)
    small, _, large = sorted(found, key=lambda row: row.effect)
    assert (small.place, small.effect, small.above) == ("1.2", 0, 0)
    assert (small.random, small.chance, small.matters) == (0, 1, False)
    assert (large.place, large.above) == ("1.0", 1)
    assert found.ranked()[0] is large
    controls = found.controls["1.0"]
    assert large.random == pytest.approx(sum(controls) / 19)
    assert large.deviation == pytest.approx(float(torch.tensor(controls).std()), rel=1e-4)
    as_much = sum(one >= large.effect for one in controls)
    assert large.chance == pytest.approx((1 + as_much) / 20)
    assert large.beaten == pytest.approx(1 - as_much / 19)


@pytest.mark.parametrize("by", ["zero", "mean"])
def test_random_heads_as_by_hand(writer, by):
    name = "decoder.blocks.1.attention"
    found = pellucid.ablate(writer, IDS, by=by, layers=1, controls=3, top=2, seed=4)
    with pellucid.watch(writer, values=True) as seen, torch.no_grad():
        writer(IDS)
    output = writer.get_submodule(name).output
    for place, controls in found.controls.items():
        head = int(place[2:])
        mine = slice(8 * head, 8 * head + 8)
        given = seen.record(name).context[0, head]
        left = 0 * given if by == "zero" else given.mean(0).expand_as(given)
        turns = turned(given - left, output.weight.data[:, mine], 3, seed_of(4, name, head))

        def putting(value, mine=mine):
            def put(module, inputs):
                x = inputs[0].clone()
                x[..., mine] = value
                return (x,)

            other = deepcopy(writer).double()
            other.get_submodule(name).output.register_forward_pre_hook(put)
            return other

        for control, turn in zip(controls, turns, strict=True):
            truth = by_hand.divergence(putting(left + turn), putting(left), IDS).mean()
            assert control == pytest.approx(float(truth), rel=1e-4)


def test_the_table_is_for_json_and_for_people(found):
    rows = json.loads(json.dumps(found.to_dicts(), allow_nan=False))
    assert [row["effect"] for row in rows] == [row.effect for row in found]
    assert (rows[0]["chance"], found[0].matters) == (None, None)
    shares = sorted(row["above"] for row in rows)
    assert shares == pytest.approx([n / 8 for n in range(9)])
    best = found.ranked()[:1]
    assert best.about is found.about
    assert f"{best[0].effect:.3g}" in repr(best)


# A run that is stopped


class StopError(Exception):
    pass


def stopping(after):
    def step(name, done, of):
        if name.startswith(after[0]) and done >= after[1]:
            raise StopError

    return step


@pytest.mark.parametrize("after", [("knocking", 3), ("trying", 5)])
def test_a_stopped_run_goes_on(writer, tmp_path, after, monkeypatch):
    monkeypatch.setattr(trial, "BATCH_TOKENS", 2 * IDS.shape[1])
    path = tmp_path / "figures.jsonl"
    options = {"controls": 7, "top": 2, "seed": 3, "layers": [0, 2]}
    whole = pellucid.ablate(writer, IDS, **options)
    with pytest.raises(StopError):
        pellucid.ablate(writer, IDS, resume=path, progress=stopping(after), **options)
    before = path.read_bytes()
    path.write_bytes(before + b'{"key": "decoder.bl')  # as where the machine stops
    figures = []
    for method in ("figures", "figures_before"):
        real = getattr(trial.Trial, method)

        def counted(self, items, *more, real=real):
            figures.extend(items)
            return real(self, items, *more)

        monkeypatch.setattr(trial.Trial, method, counted)
    again = pellucid.ablate(writer, IDS, resume=path, **options)
    assert path.read_bytes().startswith(before)
    assert len(figures) == 6 + 14 - (before.count(b"\n") - 1)
    for row, other in zip(again, whole, strict=True):
        assert row.effect == pytest.approx(other.effect, rel=1e-5)
    for place, controls in whole.controls.items():
        assert again.controls[place] == pytest.approx(controls, rel=1e-4)
    figures.clear()
    pellucid.ablate(writer, IDS, resume=path, **options)
    assert not figures


def test_a_file_of_another_run_is_refused(writer, tmp_path):
    path = tmp_path / "figures.jsonl"
    pellucid.ablate(writer, IDS, layers=0, controls=0, resume=path)
    before = path.read_bytes()
    for told, options in {
        "of a run with by ": {"by": "mean"},
        "of a run with measure ": {"measure": "loss"},
        "of a run with seed 0, not 5": {"seed": 5},
        "of a run with tokens 11, not 7": {"inputs": IDS[:, :7]},
        "of another text or model": {"inputs": IDS.flip(1)},
    }.items():
        with pytest.raises(errors.ArgumentError, match=told):
            pellucid.ablate(writer, **{"inputs": IDS, "resume": path, **options})
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"a,b\n", b"\x89PNG", b"[1]\n", b'{"a": 1}\n', b"\xff\n"])
def test_another_file_stays(writer, tmp_path, content):
    path = tmp_path / "mine"
    path.write_bytes(content)
    with pytest.raises(errors.ExistsError, match="holds no figures of heads"):
        pellucid.ablate(writer, IDS, resume=path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("line", [b"[]", b'{"key": 1}', b'{"key": "decoder.blocks.0.attention 0"}'])
def test_a_damaged_file_is_said(writer, tmp_path, line):
    path = tmp_path / "figures.jsonl"
    pellucid.ablate(writer, IDS, layers=0, controls=0, resume=path)
    [first, *_] = path.read_bytes().splitlines()
    path.write_bytes(first + b"\n" + line + b"\n")
    with pytest.raises(errors.FileError, match="is damaged"):
        pellucid.ablate(writer, IDS, layers=0, controls=0, resume=path)


# What does not fit


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"by": "noise"}, "by must be one of zero, mean, not 'noise'"),
        ({"measure": "cosine"}, "measure must be 'kl', 'loss' or a function"),
        ({"controls": -1}, "controls must be 0 or more"),
        ({"top": -1}, "top must be 0 or more"),
        ({"inputs": IDS.repeat(2, 1)}, "inputs must be of one text"),
        ({"layers": 3}, "there is no layer 3; the last layer is 2"),
        ({"inputs": {"x": IDS}}, "targets must be given"),
        ({"inputs": {"ids": [[1, 2]]}}, "inputs must be tensors; 'ids' is list"),
        ({"inputs": IDS[:, :1], "measure": "loss"}, "give two or more tokens"),
        ({"targets": IDS[0] + 300}, "targets must be from 0 to 299, or -100"),
        ({"targets": IDS[0, :3]}, "not logits of each position"),
        (
            {"measure": lambda logits: logits.mean()},
            "a number for each item of the batch: 3, not 1",
        ),
    ],
)
def test_what_does_not_fit(writer, options, told):
    with pytest.raises(errors.PellucidError, match=told):
        pellucid.ablate(writer, **{"inputs": IDS, **options})


def test_a_model_in_training_mode(writer):
    model = deepcopy(writer).train()
    with pytest.raises(errors.ArgumentError, match=r"training mode.*call model\.eval\(\) first"):
        pellucid.ablate(model, IDS)


def test_a_compiled_model_runs_as_it_is_written(writer, found):
    def backend(graph, inputs):
        raise AssertionError("it was compiled")

    again = pellucid.ablate(torch.compile(writer, backend=backend), IDS, layers=2, controls=2)
    for row, other in zip(again, found[6:], strict=True):
        assert row.effect == pytest.approx(other.effect, rel=1e-4)


def test_no_attention():
    model = torch.nn.Sequential(torch.nn.Embedding(300, 7), torch.nn.Linear(7, 300)).eval()
    with pytest.raises(errors.ArgumentError, match="no attention call that can be recorded"):
        pellucid.ablate(model, IDS)


def test_nothing_is_left_behind(writer):
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in writer.modules())
    assert not any("forward" in vars(one) for one in writer.modules())


def test_the_same_numbers_in_other_places_are_another_text(writer):
    names = [f"decoder.blocks.{layer}.attention" for layer in range(3)]

    def fingerprint(read):
        measure = Answer(name="answer", about="", read=read, change=fall)
        run = trial.runs_of(writer, {"ids": IDS}, writer)
        subject = trial.Subject(model=writer, run=run, tokens=IDS.shape[1], measure=measure)
        return trial.Trial(subject, names).fingerprint()

    one = fingerprint(lambda logits: logits[:, -1])
    other = fingerprint(lambda logits: logits[:, -1].flip(-1))
    assert one == fingerprint(lambda logits: logits[:, -1])
    assert one[:2] == pytest.approx(other[:2], rel=1e-6)
    assert one != pytest.approx(other, rel=1e-3)
