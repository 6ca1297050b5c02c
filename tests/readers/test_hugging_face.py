"""A checkpoint is opened whole, or refused in one clear line."""

import json
import shutil

import huggingface_hub
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from pellucid.errors import ArgumentError, FileError
from pellucid.lessons.model import walk_model
from pellucid.readers import open_checkpoint

QUERY = "encoder.layer.1.attention.self.query.weight"


@pytest.fixture
def changed(checkpoint, tmp_path):
    """A function that copies a checkpoint and changes its tensors; gives the copy."""

    def change(edit, family="bert"):
        copy = tmp_path / "copy"
        shutil.copytree(checkpoint(family), copy)
        tensors = load_file(copy / "model.safetensors")
        edit(tensors)
        save_file(tensors, copy / "model.safetensors", metadata={"format": "pt"})
        return str(copy)

    return change


def test_a_missing_tensor_is_named(changed):
    model = changed(lambda tensors: tensors.pop(QUERY))
    with pytest.raises(
        FileError, match=rf"cannot be opened: 1 tensor does not fit: {QUERY} is missing$"
    ):
        open_checkpoint(model)


def test_many_missing_tensors_are_counted(changed):
    def empty(tensors):
        tensors.clear()
        tensors["other"] = torch.zeros(1)

    with pytest.raises(
        FileError, match=r"\d+ tensors do not fit: embeddings\..*; and \d+ more$"
    ) as caught:
        open_checkpoint(changed(empty))
    assert "pooler" not in str(caught.value)


def test_a_tensor_of_another_shape_is_named(changed):
    model = changed(lambda tensors: tensors.update({QUERY: torch.zeros(3, 5)}))
    with pytest.raises(FileError, match=rf"{QUERY} has another shape than config.json says$"):
        open_checkpoint(model)


@pytest.mark.parametrize(("family", "part"), [("bert", "pooler."), ("t5", "decoder.")])
def test_what_no_attention_needs_may_be_missing(changed, family, part):
    def drop(tensors):
        gone = [name for name in tensors if name.startswith(part)]
        assert gone
        for name in gone:
            del tensors[name]

    assert open_checkpoint(changed(drop, family)).tokenizer is not None


def test_a_directory_without_a_tokenizer(checkpoint, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(
        checkpoint("bert"), copy, ignore=lambda *_: {"tokenizer.json", "tokenizer_config.json"}
    )
    with pytest.raises(FileError, match=r"model '.*copy' cannot be opened: it has no tokenizer: "):
        open_checkpoint(str(copy))


def test_a_tokenizer_that_multiplies_texts_is_refused(checkpoint, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint("bert"), copy)
    state = json.loads((copy / "tokenizer.json").read_text())
    step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 16}
    state["normalizer"] = {"type": "Sequence", "normalizers": [step] * 6}
    (copy / "tokenizer.json").write_text(json.dumps(state))
    opened = open_checkpoint(str(copy))
    assert opened.tokenizer(text="b c")["input_ids"]
    with pytest.raises(FileError, match="makes more than 64 times as much of a text"):
        opened.tokenizer(text="a")
    state["decoder"] = {"type": "Sequence", "decoders": [step] * 6}
    (copy / "tokenizer.json").write_text(json.dumps(state))
    with pytest.raises(FileError, match="decoder may make tokens 16,777,216 times as long"):
        open_checkpoint(str(copy))


def test_a_model_may_have_no_limit(checkpoint, tmp_path):
    assert open_checkpoint(str(checkpoint("t5"))).limit is None  # though its tokenizer names one
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint("t5"), copy)
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({**config, "max_position_embeddings": -1}))
    assert open_checkpoint(str(copy)).limit is None
    assert open_checkpoint(str(checkpoint("gpt2"))).limit == 53


@pytest.mark.parametrize("family", ["Roberta", "XLMRoberta", "Camembert", "MPNet", "Longformer"])
def test_positions_that_begin_after_padding(checkpoint, tmp_path, family):
    """Such a model takes exactly as many tokens as the limit says."""
    config = getattr(transformers, f"{family}Config")(
        vocab_size=307,
        hidden_size=33,
        num_hidden_layers=1,
        num_attention_heads=3,
        intermediate_size=37,
        max_position_embeddings=59,
        **({"attention_window": [2]} if family == "Longformer" else {}),
    )
    shutil.copytree(checkpoint("bert"), tmp_path / "copy", ignore=lambda *_: {"model.safetensors"})
    transformers.AutoModel.from_config(config).save_pretrained(tmp_path / "copy")
    found = open_checkpoint(str(tmp_path / "copy"))
    assert found.limit == 59 - config.pad_token_id - 1 == 57
    if family != "Longformer":  # which pads to whole windows
        found.run(input_ids=torch.full((1, 57), 7))
        with pytest.raises(ArgumentError, match="does not run on text"):
            found.run(input_ids=torch.full((1, 58), 7))


def test_pickled_weights_are_not_opened(checkpoint, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint("bert"), copy)
    (copy / "pytorch_model.bin").write_bytes(b"what it holds is never read")
    assert open_checkpoint(str(copy)).limit == 53
    (copy / "model.safetensors").unlink()
    with pytest.raises(
        FileError, match=r"weights are pickled \(pytorch_model\.bin\).*save_pretrained"
    ):
        open_checkpoint(str(copy))


def test_a_model_of_images_is_refused(checkpoint, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(checkpoint("vit"), copy, ignore=lambda *_: {"tokenizer.json"})
    for path in (copy, checkpoint("vit")):
        with pytest.raises(ArgumentError, match=r"does not run on text: it reads pixel_values$"):
            open_checkpoint(str(path))


def test_a_hub_name_is_fetched_as_load_does(checkpoint, monkeypatch):
    asked = []

    def fetched(name, **_):
        asked.append(name)
        return str(checkpoint("gptj"))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetched)
    assert open_checkpoint("someone/else").name == "else"
    assert asked == ["someone/else"]


def test_what_tells_the_next_token_may_not_be_missing(checkpoint, tmp_path):
    """Where a model is to write; transformers would draw it at random."""
    shutil.copytree(checkpoint("gptj"), tmp_path / "copy")
    with pytest.raises(FileError, match=r"2 tensors do not fit: lm_head\.bias is missing; lm_head"):
        open_checkpoint(tmp_path / "copy", whole=True, writes=True)
    assert open_checkpoint(tmp_path / "copy", whole=True).limit == 53


def test_a_name_too_long():
    with pytest.raises(FileError, match="File name too long"):
        open_checkpoint("a" * 5000)


def test_tokens_hold_no_control_characters(checkpoint):
    walk = walk_model("Write \x1b[31m \x9b rain", model=str(checkpoint("gpt2")))
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in "".join(walk.tokens))
