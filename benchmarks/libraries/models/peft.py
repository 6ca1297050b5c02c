"""LoRA and its like of peft, around models of transformers: the names of modules are longer."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import peft
import torch
import transformers
from torch import Tensor, nn

from benchmarks.libraries.case import Case, on, token_ids
from pellucid.lens import Recording, output_projection

DISTRIBUTIONS = ("peft",)
SIZES = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}


def llama() -> nn.Module:
    config = transformers.LlamaConfig(**SIZES, num_key_value_heads=2)
    model: nn.Module = transformers.LlamaForCausalLM(config)
    return model


def bert() -> nn.Module:
    model: nn.Module = transformers.BertModel(transformers.BertConfig(**SIZES))
    return model


def gpt2() -> nn.Module:
    config = transformers.GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4)
    model: nn.Module = transformers.GPT2LMHeadModel(config)
    return model


def adapted(base: Callable[[], nn.Module], config: Any) -> nn.Module:
    model: nn.Module = peft.get_peft_model(base(), config)
    return model


def wrong_projection(model: nn.Module, seen: Recording) -> str:
    """Whether `lens.output_projection` is what the model does with its contexts, adapter included.

    What a linear layer does to the unit vectors is its matrix.
    """
    for record in seen.records:
        weight = output_projection(model, record)
        layer = _layer_of(model, record.name)
        with torch.no_grad():
            unit = torch.eye(weight.shape[1])
            used: Tensor = layer(unit) - layer(torch.zeros_like(unit))
        error = float((weight - used.T).abs().max())
        if error > 1e-5:
            return f"output_projection of {record.name} is off by {error:.1g}"
    return ""


def _layer_of(model: nn.Module, name: str) -> nn.Module:
    """The layer after attention, as the three models here call it."""
    modules = dict(model.named_modules())
    places = (f"{name}.o_proj", f"{name}.c_proj", f"{name.rpartition('.')[0]}.output.dense")
    found: nn.Module = next(modules[place] for place in places if place in modules)
    return found


def cases() -> Iterator[Case]:
    llamas = ["q_proj", "k_proj", "v_proj", "o_proj"]
    configs: dict[str, tuple[Callable[[], nn.Module], Any]] = {
        "LoRA of Llama": (llama, peft.LoraConfig(r=4, target_modules=llamas)),
        "LoRA of Llama, weights decomposed": (
            llama,
            peft.LoraConfig(r=4, target_modules=llamas, use_dora=True),
        ),
        "LoRA of BERT": (bert, peft.LoraConfig(r=4, target_modules=["query", "key", "dense"])),
        "LoRA of GPT-2": (
            gpt2,
            peft.LoraConfig(r=4, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True),
        ),
        "IA3 of Llama": (
            llama,
            peft.IA3Config(target_modules=["k_proj", "v_proj"], feedforward_modules=[]),
        ),
        "prefix tuning of Llama": (
            llama,
            peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3),
        ),
    }
    for name, (base, config) in configs.items():
        yield Case(
            name,
            partial(adapted, base, config),
            on(input_ids=token_ids(9)),
            complaint=wrong_projection,
        )

    def merged() -> nn.Module:
        model: Any = adapted(llama, peft.LoraConfig(r=4, target_modules=llamas))
        whole: nn.Module = model.merge_and_unload()
        return whole

    yield Case(
        "LoRA of Llama, merged",
        merged,
        on(input_ids=token_ids(9)),
        complaint=wrong_projection,
    )
