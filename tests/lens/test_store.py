"""Recordings that outlive the program: saved, opened without the model, and refused if broken."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tests.lens.budget import assert_same_weights
from tests.lens.tiny import CONFIGS, build, some_ids

import pellucid
from pellucid.errors import FileError


class Tokenizer:
    def convert_ids_to_tokens(self, ids):
        return [f"w{number}" for number in ids]


def watched(name, padded=False):
    model = build(name, "eager")
    ids = some_ids()
    present = torch.ones_like(ids)
    present[1, :4] = 0 if padded else 1
    with torch.no_grad(), pellucid.watch(model, values=True, tokenizer=Tokenizer()) as seen:
        model(ids, attention_mask=present)
    return seen, ids


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", CONFIGS)
def test_a_recording_comes_back_whole(name, padded, tmp_path):
    seen, ids = watched(name, padded)
    path = tmp_path / "x.safetensors"
    seen.save(path)
    again = pellucid.Recording.load(path)
    assert repr(again) == repr(seen)
    assert again.unseen == seen.unseen
    for record, other in zip(seen.records, again.records, strict=True):
        assert_same_weights(record, other)
        assert torch.equal(record.logsumexps.tensor, other.logsumexps.tensor)
        assert record.proof == other.proof
        assert torch.equal(record.value, other.value)
        assert torch.equal(record.context, other.context)
        assert torch.equal(other.query_ids, ids)
        assert str(record.mask) == str(other.mask)
    assert again.strings(ids[0]) == [f"w{number}" for number in ids[0].tolist()]
    assert [file.name for file in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_part_of_a_fused_projection_is_written_alone(tmp_path):
    for tokens in (11, 22):
        model = build("gpt2", "sdpa")
        with torch.no_grad(), pellucid.watch(model) as seen:
            model(some_ids(tokens=tokens))
        seen.save(tmp_path / str(tokens))
    small, large = ((tmp_path / str(tokens)).stat().st_size for tokens in (11, 22))
    # Twice the tokens, at most twice the file: the header and the names stay as they are.
    assert small < large <= 2 * small
    held = sum(r.query.nbytes + r.key.nbytes + r.query_ids.nbytes for r in seen.records)
    assert large < held + 4096


def test_alignment_heads_come_back_and_older_files_have_none(tmp_path):
    seen, _ = watched("bert")
    seen.alignment_heads = [(seen.names[1], 2), (seen.names[0], 0)]
    path = tmp_path / "x.safetensors"
    seen.of_layers([0, 1]).save(path)
    assert pellucid.Recording.load(path).alignment_heads == seen.alignment_heads
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["pellucid"])
    tensors = load_file(path)
    for odd, said in (([["a", -1]], "head is -1"), ([[1, 1]], "name is 1"), ([3], "contradicts")):
        save_file(tensors, path, {"pellucid": json.dumps(header | {"alignment_heads": odd})})
        with pytest.raises(FileError, match=said):
            pellucid.Recording.load(path)
    del header["alignment_heads"]
    save_file(tensors, path, metadata={"pellucid": json.dumps(header)})
    assert pellucid.Recording.load(path).alignment_heads == []


def test_files_that_are_no_recording(tmp_path):
    seen, _ = watched("bert")
    path = tmp_path / "x.safetensors"
    seen.save(path)
    whole = path.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileError, match="not a recording, or is truncated"):
            pellucid.Recording.load(path)
    with pytest.raises(FileError, match="there is no file"):
        pellucid.Recording.load(tmp_path / "nowhere")
    with pytest.raises(FileError, match="it is a directory"):
        pellucid.Recording.load(tmp_path)
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(FileError, match="not a recording of Pellucid"):
        pellucid.Recording.load(path)
    for header, said in (
        ({"format": "pellucid recording", "version": 3}, "of version 3; this Pellucid reads"),
        ({"format": "pellucid recording", "version": 1}, "contradicts itself"),
    ):
        save_file({"a": torch.ones(2)}, path, metadata={"pellucid": json.dumps(header)})
        with pytest.raises(FileError, match=said):
            pellucid.Recording.load(path)


def test_a_file_that_cannot_be_written_leaves_what_was_there(tmp_path):
    seen, _ = watched("bert")
    with pytest.raises(FileError, match="it is a directory"):
        seen.save(tmp_path)
    with pytest.raises(FileError, match="cannot write"):
        seen.save(tmp_path / "no" / "such")
    seen.save(tmp_path / "x")
    assert load_file(tmp_path / "x")
    assert [file.name for file in tmp_path.iterdir()] == ["x"]
