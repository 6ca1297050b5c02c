"""Small random checkpoints with a tokenizer of their own, made on the spot."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

SENTENCE = "Write a poem about rain"


def byte_pairs():
    """A small byte-level BPE of transformers."""
    import tokenizers  # late, after tests/conftest.py has said that there is no hub
    import transformers

    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=290,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{SENTENCE} a a about about Write Write"] * 3, trainer)
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=53)


def _configs():
    import transformers

    sizes = {"vocab_size": 307, "max_position_embeddings": 53}
    return {
        "bert": transformers.BertConfig(
            hidden_size=33,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=37,
            **sizes,
        ),
        "gpt2": transformers.GPT2Config(
            n_embd=33,
            n_layer=2,
            n_head=3,
            n_positions=53,
            vocab_size=307,
            bos_token_id=1,
            eos_token_id=2,
        ),
        # Six query heads on two key and value heads.
        "llama": transformers.LlamaConfig(
            hidden_size=66,
            num_hidden_layers=2,
            num_attention_heads=6,
            num_key_value_heads=2,
            head_dim=10,
            intermediate_size=37,
            **sizes,
        ),
        "t5": transformers.T5Config(
            vocab_size=307, d_model=33, d_kv=11, d_ff=37, num_layers=2, num_heads=3
        ),
        "vit": transformers.ViTConfig(
            hidden_size=33,
            num_hidden_layers=1,
            num_attention_heads=3,
            intermediate_size=37,
            image_size=8,
            patch_size=4,
        ),
        # Its attention is written out in the model, without the interface.
        "gptj": transformers.GPTJConfig(
            n_embd=32, n_layer=2, n_head=2, rotary_dim=4, n_positions=53, vocab_size=307
        ),
    }


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function from a family's name to a directory with a random model of it."""
    made: dict[str, Path] = {}

    def make(family: str) -> Path:
        import transformers

        if family not in made:
            path = tmp_path_factory.mktemp("checkpoints") / f"tiny-{family}"
            torch.manual_seed(31)
            config = _configs()[family]
            config.initializer_range = 0.4  # weights far from even, so that a slip shows
            model = transformers.AutoModel.from_config(config)
            model.save_pretrained(path)
            byte_pairs().save_pretrained(path)
            made[family] = path
        return made[family]

    return make
