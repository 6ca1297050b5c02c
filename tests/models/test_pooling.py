"""The files of sentence-transformers: what they say of an embedding, and what is refused."""

import json
from dataclasses import replace

import pytest

from pellucid.errors import FileError
from pellucid.layers.config import Config
from pellucid.models.checkpoints import pooling

CONFIG = Config(kind="encoder", vocabulary=13, width=6, heads=2, position="learned", positions=53)


@pytest.fixture
def files(tmp_path):
    """Write files, by default those of a model that takes the mean; gives their directory."""

    def write(parts=("Transformer", "Pooling"), **said):
        modules = [
            {"path": f"{n}_{part}" if n else "", "type": f"sentence_transformers.models.{part}"}
            for n, part in enumerate(parts)
        ]
        said = {"modules": modules, "1_Pooling/config": {"pooling_mode": "mean"}} | said
        (tmp_path / "1_Pooling").mkdir(exist_ok=True)
        for name, content in said.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content))
        return tmp_path

    return write


def test_without_such_files_nothing_is_said(tmp_path):
    assert pooling.read(tmp_path, CONFIG) == CONFIG


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"pooling_mode": "mean"}, "mean"),
        ({"pooling_mode": ["cls"], "include_prompt": True}, "first"),
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "first"),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False}, "mean"),
        ({"pooling_mode_mean_sqrt_len_tokens": True}, "root_mean"),
        ({"pooling_mode_weightedmean_tokens": True}, "weighted_mean"),
        ({"pooling_mode_lasttoken": True, "pooling_mode_max_tokens": True}, "max+last"),
        ({"pooling_mode": ["mean", "cls"]}, "mean+first"),
    ],
)
def test_how_tokens_become_one(files, said, expected):
    directory = files(**{"1_Pooling/config": said})
    assert pooling.read(directory, CONFIG) == replace(CONFIG, pooling=expected)


def test_length_and_norm(files):
    directory = files(("Transformer", "Pooling", "Normalize"))
    assert pooling.read(directory, CONFIG) == replace(CONFIG, normalised=True)
    files(tokenizer_config={"model_max_length": 10**30})
    assert pooling.read(directory, CONFIG).most_tokens is None
    files(tokenizer_config={"model_max_length": 31})
    assert pooling.read(directory, CONFIG).most_tokens == 31
    files(sentence_bert_config={"max_seq_length": 29})
    assert pooling.read(directory, CONFIG).most_tokens == 29
    files(sentence_bert_config={"max_seq_length": 512})
    assert pooling.read(directory, CONFIG).most_tokens is None  # as many as positions


@pytest.mark.parametrize(
    "config",
    [
        replace(CONFIG, pooling="first"),
        replace(CONFIG, normalised=True, most_tokens=17),
    ],
)
def test_what_is_written_is_read(tmp_path, config):
    pooling.write(tmp_path, config, pooling.Prompts())
    assert pooling.read(tmp_path, CONFIG) == config


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"parts": ("Transformer", "Pooling", "CNN")}, "its modules.json has CNN; known are"),
        ({"parts": ("Transformer", "Normalize", "Pooling")}, "not supported in this order"),
        ({"parts": ("Pooling", "Transformer")}, "not supported in this order"),
        ({"modules": {}}, "its modules.json is not a JSON list"),
        ({"modules": [1]}, "its modules.json is not a list of modules"),
        ({"1_Pooling/config": {"pooling_mode": "sum"}}, r"pools by \['sum'\]; known are cls,"),
        ({"1_Pooling/config": {"pooling_mode": ["mean", 7]}}, "pools by"),
        ({"1_Pooling/config": {"pooling_mode_sum_tokens": True}}, "pooling_mode_sum_tokens"),
        ({"1_Pooling/config": []}, "is not a JSON object"),
    ],
)
def test_what_a_config_cannot_say(files, said, told):
    with pytest.raises(FileError, match=told):
        pooling.read(files(**said), CONFIG)
