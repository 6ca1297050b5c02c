"""Small GGUF files, written by the package `gguf` from models of transformers."""

import json

import numpy as np
import torch

from pellucid.models.checkpoints.gguf import ARCHITECTURES, MIXTRAL

NAMED = {**ARCHITECTURES, "mixtral": MIXTRAL}

TEMPLATE = "{% for message in messages %}<s>{{ message['content'] }}{% endfor %}"


def tokens_of(tokenizer):
    """The tokens, their types and the merges of a byte-level BPE of transformers."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    tokens = sorted(state["vocab"], key=state["vocab"].get)
    return tokens, [1] * len(tokens), [" ".join(merge) for merge in state["merges"]]


def write(path, model, kind="F32", tokenizer=None, extra=None, **changed):
    """Write a model of transformers as llama.cpp's converter does.

    Args:
        path: of the file.
        model: in float32.
        kind: of the matrices, as ggml names it; norms stay float32.
        tokenizer: a byte-level BPE.
        extra: more tensors by name.
        changed: values of metadata by key; None leaves one out.
    """
    import gguf

    config = model.config
    name = next(name for name, one in NAMED.items() if one.family == config.model_type)
    architecture = NAMED[name]
    rope = getattr(config, "rope_parameters", None) or {}
    settings = {**config.to_dict(), "rope_theta": rope.get("rope_theta")}
    settings.setdefault("num_experts", settings.get("num_local_experts"))
    data = {f"{name}.{theirs}": settings.get(key) for key, theirs in architecture.keys.items()}
    if architecture.is_partly_rotary:
        turned = config.partial_rotary_factor if hasattr(config, "partial_rotary_factor") else None
        turned = rope.get("partial_rotary_factor", turned)
        size = config.hidden_size // config.num_attention_heads
        data[f"{name}.rope.dimension_count"] = int(size * turned)
    if name == "gpt2" and settings["n_inner"] is None:
        data["gpt2.feed_forward_length"] = 4 * config.n_embd
    if tokenizer is not None:
        tokens, types, merges = tokens_of(tokenizer)
        tokens += [f"<more {number}>" for number in range(config.vocab_size - len(tokens))]
        types += [3] * (len(tokens) - len(types))
        data |= {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "gpt-2",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.eos_token_id": len(tokens) - 1,
            "tokenizer.chat_template": TEMPLATE,
        }
    data |= changed
    if name == "mixtral":
        data = {key.replace(name, "llama"): value for key, value in data.items()}
        name = "llama"
    writer = gguf.GGUFWriter(path, name)
    for key, value in data.items():
        if value is not None and key != "general.architecture":
            _add(writer, key, value)
    for theirs, tensor in (*renamed(model, architecture), *(extra or {}).items()):
        values = tensor.detach().float().contiguous().numpy()
        if values.ndim == 1 or kind == "F32":
            writer.add_tensor(theirs, values)
            continue
        number = gguf.GGMLQuantizationType[kind]
        writer.add_tensor(theirs, quantised(values, number), raw_dtype=number)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def quantised(values, kind):
    """Blocks of a kind: of these values, or random ones where gguf can only read the kind."""
    import gguf

    try:
        return gguf.quantize(values, kind)
    except NotImplementedError:
        block, size = gguf.GGML_QUANT_SIZES[kind]
        shape = (len(values), values.shape[1] // block, size)
        blocks = np.random.default_rng(7).integers(0, 256, shape, dtype=np.uint8)
        scale = np.array([2e-4], np.float16).view(np.uint8)
        for at in {"Q6_K": (208,), "Q3_K": (108,)}.get(kind.name, (0, 2)):
            blocks[..., at : at + 2] = scale
        return blocks.reshape(len(values), -1)


def renamed(model, architecture):
    """The tensors of a model under llama.cpp's names, in its order of rows."""
    back = {theirs: ours for ours, theirs in architecture.names.items()}
    heads = {"attn_q": model.config.num_attention_heads}
    heads["attn_k"] = getattr(model.config, "num_key_value_heads", None)
    tied = model.config.tie_word_embeddings
    for name, tensor in apart(model):
        if name == "lm_head.weight" and tied:
            continue
        module, _, suffix = name.rpartition(".")
        parts = module.split(".")
        number = next((part for part in parts if part.isdigit()), "")
        pattern = ".".join("{}" if part.isdigit() else part for part in parts)
        theirs = back[pattern].format(number)
        count = heads.get(theirs.split(".")[-1])
        if architecture.is_permuted and count:
            halves = tensor.view(count, 2, -1, *tensor.shape[1:])
            tensor = halves.transpose(1, 2).reshape(tensor.shape)
        if architecture.shifted and "norm" in name:
            tensor = tensor + architecture.shifted
        if pattern.endswith(architecture.transposed or "\0") and suffix == "weight":
            tensor = tensor.T
        yield f"{theirs}.{suffix}", tensor


def apart(model):
    """The state dict, with gates and ups apart, and the modules of experts as they are named."""
    part = "block_sparse_moe" if model.config.model_type == "mixtral" else "mlp"
    gate, up, down = ("w1", "w3", "w2") if part != "mlp" else ("gate_proj", "up_proj", "down_proj")
    for name, tensor in model.state_dict().items():
        module, found, kind = name.rpartition(".mlp.experts.")
        if not found:
            yield name.replace(".mlp.gate.", f".{part}.gate."), tensor
        elif kind == "down_proj":
            yield f"{module}.{part}.experts.*.{down}.weight", tensor
        else:
            for own, half in zip((gate, up), tensor.chunk(2, 1), strict=True):
                yield f"{module}.{part}.experts.*.{own}.weight", half


def _add(writer, key, value):
    import gguf

    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_key_value(key, value, gguf.GGUFValueType.ARRAY)


def tiny(family, width=96, layers=2):
    """A random model of a family of transformers."""
    import transformers

    torch.manual_seed(5)
    sizes = {
        "vocab_size": 307,
        "hidden_size": width,
        "intermediate_size": 160 if width == 96 else 512,
        "num_hidden_layers": {"smollm3": 5, "gemma3": 7}.get(family, layers),
        "num_attention_heads": 6 if width == 96 else 8,
        "num_key_value_heads": 2,
        "max_position_embeddings": 53,
        "tie_word_embeddings": False,
    }
    if family == "gpt2":
        config = transformers.GPT2Config(
            n_embd=width, n_layer=layers, n_head=6, n_positions=53, vocab_size=307
        )
    else:
        more = {"head_dim": 32} if family in ("qwen3", "gemma", "gemma2", "gemma3") else {}
        if family in ("gemma2", "gemma3"):
            more |= {"query_pre_attn_scalar": 32, "sliding_window": 3}
        if family == "phi3":
            more |= {"pad_token_id": 0, "sliding_window": None}
        if family == "smollm3":
            more |= {"pad_token_id": 0}
        if family == "granite":
            more |= {
                "attention_multiplier": 0.17,
                "embedding_multiplier": 3.0,
                "residual_multiplier": 0.7,
                "logits_scaling": 5.0,
            }
        if family == "stablelm":
            more |= {"use_qkv_bias": True, "partial_rotary_factor": 0.25}
        if family.startswith("gemma"):
            sizes["tie_word_embeddings"] = True
        if family in ("mixtral", "qwen3moe"):
            experts = "num_local_experts" if family == "mixtral" else "num_experts"
            more |= {experts: 5, "num_experts_per_tok": 2, "sliding_window": None}
        if family == "qwen3moe":
            more |= {"moe_intermediate_size": 64, "norm_topk_prob": True, "head_dim": 32}
        model_type = NAMED[family].family
        config = transformers.AutoConfig.for_model(model_type, **sizes, **more)
    is_steep = family in ("gemma2", "gemma3", "smollm3")  # nothing else keeps them small
    config.initializer_range = 0.1 if is_steep else 0.2
    model = transformers.AutoModelForCausalLM.from_config(config).eval()
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1:  # norms and biases of their own, so that a slip shows
            torch.nn.init.normal_(parameter, mean="norm" in name or "ln" in name, std=0.3)
    return model
