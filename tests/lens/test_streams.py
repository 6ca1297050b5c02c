"""Several texts that take turns in one model: `seen[name]` is the prompt's."""

import pytest
import torch
import transformers
from tests.lens.families import LAYERS, build, some_ids

import pellucid
from pellucid.errors import UnknownNameError

PROMPT, NEGATIVE = 7, 3
NAMES = [f"model.layers.{layer}.self_attn" for layer in range(LAYERS)]
NAME = NAMES[-1]
NEAR = {"atol": 3e-6, "rtol": 1e-3}
GIVEN = {"do_sample": False, "eos_token_id": None, "pad_token_id": 0}


def model(implementation="sdpa"):
    return build("llama, grouped heads", implementation, generating=True)


def own(ids):
    """What the model's own eager attention says of a text, a layer each."""
    with torch.no_grad():
        return model("eager")(ids, output_attentions=True).attentions


def assert_of(record, ids, layer=-1):
    """A record of a whole text, and of no other."""
    torch.testing.assert_close(record.weights.dense(), own(ids)[layer], **NEAR)
    assert torch.equal(record.key_ids, ids)
    assert torch.equal(record.query_ids, ids)


def guided(new=5, prompt=PROMPT, **options):
    """A generation with classifier-free guidance; the ids of both texts."""
    ids, negative = some_ids(prompt, 1), some_ids(NEGATIVE, 1)
    with torch.no_grad(), pellucid.watch(model(), **options) as seen:
        out = seen._model.generate(
            ids, max_new_tokens=new, guidance_scale=1.5, negative_prompt_ids=negative, **GIVEN
        )
    return seen, out[:, :-1], torch.cat([negative, out[:, prompt:-1]], 1)


@pytest.mark.parametrize("new", [1, 2, 5])
@pytest.mark.parametrize("prompt", [PROMPT, NEGATIVE])
def test_guidance(new, prompt):
    """The prompt is the first stream, also where both are as long; the other is the second."""
    seen, ids, other = guided(new, prompt)
    assert (len(seen.records), seen.unseen) == (2 * LAYERS, {})
    for layer, name in enumerate(NAMES):
        assert_of(seen.record(name), ids, layer)
        assert_of(seen.record(name, stream=1), other, layer)
        assert seen[name].shape == seen.record(name).shape


def test_a_stream_that_is_not_there():
    seen, *_ = guided()
    with pytest.raises(UnknownNameError, match=r"no stream 2; it has 0, 1"):
        seen.record(NAME, stream=2)


def test_the_latest_are_the_prompts():
    seen, ids, _ = guided()
    assert [record.name for record in seen.latest()] == NAMES
    for record in seen.latest():
        assert torch.equal(record.key_ids, ids)


def test_the_table_shows_streams():
    lines = repr(guided()[0]).splitlines()
    assert sum(line.startswith(f"{NAME} (stream 1)") for line in lines) == 1
    assert sum(line.startswith(f"{NAME} ") and "stream" not in line for line in lines) == 1


def test_streams_are_saved_and_loaded(tmp_path):
    seen, ids, other = guided()
    seen.save(tmp_path / "x.safetensors")
    again = pellucid.Recording.load(tmp_path / "x.safetensors")
    assert [record.stream for record in again.records] == [record.stream for record in seen.records]
    assert_of(again.record(NAME), ids)
    assert_of(again.record(NAME, stream=1), other)
    assert repr(again) == repr(seen)


def test_two_generations_one_after_another():
    """Both are the prompt's stream; the name is the later one's."""
    first, second = some_ids(PROMPT, 1), some_ids(5, 1)
    with torch.no_grad(), pellucid.watch(model()) as seen:
        texts = [
            seen._model.generate(ids, max_new_tokens=3, **GIVEN)[:, :-1] for ids in (first, second)
        ]
    assert len(seen.records) == 2 * LAYERS
    assert {record.stream for record in seen.records} == {0}
    assert_of(seen.record(NAME), texts[1])
    assert_of(next(record for record in seen.records if record.name == NAME), texts[0])


def test_two_guided_generations_one_after_another():
    ids, negative = some_ids(PROMPT, 1), some_ids(NEGATIVE, 1)
    with torch.no_grad(), pellucid.watch(model()) as seen:
        for prompt in (negative, ids):
            out = seen._model.generate(
                prompt, max_new_tokens=4, guidance_scale=1.5, negative_prompt_ids=ids, **GIVEN
            )
    assert [record.stream for record in seen.records if record.name == NAME] == [0, 1, 0, 1]
    assert_of(seen.record(NAME), out[:, :-1])
    assert_of(seen.record(NAME, stream=1), torch.cat([ids, out[:, PROMPT:-1]], 1))


def test_a_guided_generation_and_then_a_pass():
    """What comes later is nobody's second stream."""
    ids, later = some_ids(PROMPT, 1), some_ids(5, 1)
    with torch.no_grad(), pellucid.watch(model()) as seen:
        seen._model.generate(
            ids, max_new_tokens=3, guidance_scale=1.5, negative_prompt_ids=later, **GIVEN
        )
        seen._model(later)
    assert seen.record(NAME).stream == 0
    assert_of(seen.record(NAME), later)


def test_passes_with_caches_that_take_turns():
    """In a loop of one's own, where nobody says that they belong together: each is whole."""
    texts = [some_ids(PROMPT, 1), some_ids(PROMPT, 1) + 1]
    caches = [transformers.DynamicCache() for _ in texts]
    with torch.no_grad(), pellucid.watch(model()) as seen:
        for at in range(PROMPT):
            for ids, cache in zip(texts, caches, strict=True):
                seen._model(ids[:, at : at + 1], past_key_values=cache)
    records = [record for record in seen.records if record.name == NAME]
    assert len(records) == 2
    for record, ids in zip(records, texts, strict=True):
        assert_of(record, ids)


def test_steps_of_two_generations_that_take_turns_in_threads():
    """Each in a thread of its own, which waits for the other."""
    import threading

    texts, outs = [some_ids(PROMPT, 1), some_ids(5, 1)], {}
    barrier = threading.Barrier(2, timeout=10)

    class Wait(transformers.LogitsProcessor):
        def __call__(self, input_ids, scores):
            barrier.wait()
            return scores

    def work(number, watched):
        with torch.no_grad():
            outs[number] = watched.generate(
                texts[number], max_new_tokens=4, logits_processor=[Wait()], **GIVEN
            )[:, :-1]

    with pellucid.watch(model()) as seen:
        threads = [threading.Thread(target=work, args=(n, seen._model)) for n in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    records = [record for record in seen.records if record.name == NAME]
    assert len(records) == 2
    for record in records:
        assert_of(record, outs[0 if record.shape[-1] > 9 else 1])


def test_a_draft_that_is_checked():
    """Prompt lookup: rejected tokens are taken back, and one record stays."""
    pattern = some_ids(3, 1).repeat(1, 5)
    with torch.no_grad(), pellucid.watch(model()) as seen:
        out = seen._model.generate(pattern, max_new_tokens=8, prompt_lookup_num_tokens=3, **GIVEN)
    assert (len(seen.records), seen.unseen) == (LAYERS, {})
    assert {record.stream for record in seen.records} == {0}
    record = seen.record(NAME)
    length = record.shape[-1]
    assert length >= out.shape[1] - 2
    torch.testing.assert_close(record.weights.dense(), own(out[:, :length])[-1], **NEAR)


def test_an_assistant_is_another_model():
    target, draft = model(), model()
    ids = some_ids(PROMPT, 1)
    with torch.no_grad(), pellucid.watch(target) as seen:
        out = target.generate(ids, assistant_model=draft, max_new_tokens=5, **GIVEN)
    assert (seen.names, seen.unseen) == (NAMES, {})
    record = seen.record(NAME)
    length = record.shape[-1]
    torch.testing.assert_close(record.weights.dense(), own(out[:, :length])[-1], **NEAR)


def test_streams_under_a_watch_of_some_layers():
    seen, ids, other = guided(layers=[-1])
    assert seen.names == [NAME]
    assert_of(seen.record(NAME), ids)
    assert_of(seen.record(NAME, stream=1), other)


def test_measures_are_of_the_prompt_alone():
    """Heads are counted once, not once a stream."""
    seen, ids, _ = guided()
    with torch.no_grad(), pellucid.watch(model()) as alone:
        alone._model(ids)
    assert len(pellucid.lens.heads(seen)) == len(pellucid.lens.heads(alone))
