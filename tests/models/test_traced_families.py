"""Scores and logits of every family are sums, and those of Pellucid's model are those of
transformers' modules: two ways through the code of two libraries.
"""

import pytest
import torch

import pellucid
from pellucid.errors import ArgumentError
from pellucid.lens import residual_stream, trace, why
from tests.models.families import FAMILIES, NAMES, SOURCE, TARGET, ids, read, written

pytestmark = pytest.mark.usefixtures("quiet_transformers")
QUERY, KEY = 7, 4
CLIPPED = ("olmo", "olmoe", "mpt")
"""Between the stream and a score, they are not linear."""
UNSEEN = ("bloom", "mpt", "mpnet")
"""transformers computes their scores in code of its own."""
SHAPES = {
    *("gpt_neox", "phi", "phi3", "opt", "opt, norms after", "gemma2", "gemma3_text", "falcon"),
    *("falcon, new", "bloom", "mpt", "gptj", "cohere", "olmo", "olmo2", "granite", "mixtral"),
    *("gpt_bigcode", "nomic_bert", "modernbert", "albert", "bart", "t5, gated"),
}
"""Of which no two do the same between the stream and a score or logit."""
EACH = {name: () if name in SHAPES else pytest.mark.slow for name in NAMES}
WRITE = [name for name in NAMES if FAMILIES[name].kind != "encoder"]


def both(name, directory):
    """Pellucid's model and transformers', each with what it reads, by name."""
    ours, theirs = pellucid.load(written(name, directory)), read(name, directory)
    source, target = ids(SOURCE, 1), ids(TARGET, 1)
    if FAMILIES[name].kind == "encoder-decoder":
        given = {"input_ids": source, "decoder_input_ids": target}
        return (ours, {"source": source, "target": target}), (theirs, given)
    return (ours, {"ids": source}), (theirs, {"input_ids": source})


def streamed(model, given):
    with residual_stream(model) as stream:
        model(**given)
    return stream


def parts(found):
    """What each part gives but biases, whose names differ, by the sides of the score."""
    return [
        {str(source): amount for source, amount in side.items() if source.kind != "bias"}
        for side in (found.of_query(), found.of_key())
    ]


@pytest.mark.parametrize("name", [pytest.param(name, marks=EACH[name]) for name in NAMES])
def test_terms_of_scores(name, tmp_path):
    own, other = (streamed(*one) for one in both(name, tmp_path))
    if name == "albert":
        with pytest.raises(ArgumentError, match="layers that share one block"):
            why(other, other.seen.latest()[0].name, 0, QUERY, KEY)
        other = own
    for record, same in list(zip(own.seen.latest(), other.seen.latest(), strict=True))[-2:]:
        head = record.shape[-3] - 1
        ours = why(own, record.name, head, QUERY, KEY)
        assert ours.is_exact == (name not in CLIPPED)
        if name in UNSEEN:
            with pytest.raises(ArgumentError, match="in code of its own"):
                why(other, same.name, head, QUERY, KEY)
            continue
        theirs = why(other, same.name, head, QUERY, KEY)
        assert theirs.is_exact == ours.is_exact
        assert theirs.weight == pytest.approx(ours.weight, abs=1e-5)
        for one, two in zip(parts(ours), parts(theirs), strict=True):
            assert one == pytest.approx(two, rel=1e-3, abs=10 * ours.allowed)


@pytest.mark.parametrize("name", [pytest.param(name, marks=EACH[name]) for name in WRITE])
def test_parts_of_logits(name, tmp_path):
    models = both(name, tmp_path)
    for method in ("direct", "lrp"):
        if method == "lrp" and FAMILIES[name].has_experts:
            for model, given in models:
                with pytest.raises(ArgumentError, match="experts, for instance"):
                    trace(model, given, method=method)
            continue
        ours, theirs = (
            trace(model, given, method=method, position=QUERY, token=5) for model, given in models
        )
        assert ours.is_exact
        assert theirs.is_exact
        assert theirs.number == pytest.approx(ours.number, rel=1e-4, abs=1e-4)
        largest = float(ours.tokens.abs().max())
        torch.testing.assert_close(theirs.tokens, ours.tokens, rtol=1e-3, atol=1e-4 * largest)
        for one, two in zip(ours.heads.values(), theirs.heads.values(), strict=True):
            torch.testing.assert_close(two, one, rtol=1e-3, atol=1e-4 * largest)
