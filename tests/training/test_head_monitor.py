"""What is told of the heads while a model trains, and that QK-clip bounds their logits."""

import json

import pytest
import torch

import pellucid
from pellucid.errors import ArgumentError
from pellucid.layers.block import HeadAttention
from pellucid.models import Config, Decoder
from pellucid.training.head_monitor import clip_logits
from tests.training.tiny import trainer, weights


def attentions(run):
    return {
        name: module
        for name, module in run.objective.named_modules()
        if isinstance(module, HeadAttention)
    }


def test_the_log_has_a_line_of_each_head(tmp_path):
    run = trainer("translator", tmp_path, steps=4)
    run.run()
    lines = (tmp_path / "training" / "log.jsonl").read_text().splitlines()
    log = [json.loads(line) for line in lines]
    heads = [line for line in log if "head" in line]
    evaluated = [line["step"] for line in log if "held_out" in line]
    modules = attentions(run)
    names = {name.removeprefix("model.") for name in modules}
    assert {line["module"] for line in heads} == names
    count = next(iter(modules.values())).query.out_features // next(iter(modules.values())).dim
    assert len(heads) == len(evaluated) * len(modules) * count
    assert {line["step"] for line in heads} == set(evaluated)
    assert all(line["entropy"] > 0 for line in heads)


def test_a_watched_step_teaches_the_same(tmp_path):
    one = trainer("decoder", tmp_path / "a", evaluate_every=1)
    other = trainer("decoder", tmp_path / "b", evaluate_every=1000)
    for made in (one, other):
        made.update()
    assert one.heads
    assert not other.heads
    torch.testing.assert_close(weights(one), weights(other), rtol=0, atol=0)


@pytest.mark.parametrize(("kv_heads", "bias"), [(3, True), (1, False)])
def test_clipped_logits_are_at_the_bound(kv_heads, bias):
    torch.manual_seed(0)
    sizes = {"vocabulary": 31, "width": 42, "heads": 3, "hidden": 37, "position": "rotary"}
    model = Decoder(Config(kind="decoder", layers=1, kv_heads=kv_heads, bias=bias, **sizes))
    (module,) = [part for part in model.modules() if isinstance(part, HeadAttention)]
    with torch.no_grad():
        module.query.weight.mul_(8)
    ids = torch.randint(31, (2, 13))

    def largest():
        with torch.no_grad(), pellucid.watch(model, collect=("max_logit",)) as seen:
            model(ids)
        (totals,) = seen.collected.values()
        return totals.max_logit

    before = largest()
    bound = float(before.median())
    clip_logits(module, before, bound)
    expected = before.clamp_max(bound)
    torch.testing.assert_close(largest(), expected, rtol=1e-5, atol=1e-5)


def test_qk_clip_holds_in_a_run(tmp_path):
    found = {}
    for bound in (0.0, 0.05):
        run = trainer("decoder", tmp_path / str(bound), steps=8, qk_clip=bound, learning_rate=0.03)
        for run.step in range(8):
            run.update()
        with torch.no_grad(), pellucid.watch(run.objective, collect=("max_logit",)) as seen:
            run.call(run.objective.batch(7))
        found[bound] = max(float(totals.max_logit.amax()) for totals in seen.collected.values())
    assert found[0.05] < found[0.0] / 2


@pytest.mark.parametrize(
    ("settings", "model", "complaint"),
    [
        ({"compile": True}, {}, "qk_clip and compile exclude each other"),
        ({}, {"head_norm": True}, "normalises queries and keys"),
    ],
)
def test_where_qk_clip_cannot_be_it_is_refused(settings, model, complaint, tmp_path):
    with pytest.raises(ArgumentError, match=complaint):
        trainer("decoder", tmp_path, qk_clip=3.0, model=model, **settings)
