"""AttnLRP of a Llama written out rule by rule in float64: relevance, not gradients."""

import torch
from torch import Tensor


def attn_lrp(model: torch.nn.Module, ids: Tensor, position: int, token: int) -> Tensor:
    """(tokens,): the relevance of each token's embedding, Achtibat et al. 2024, section 3."""
    stack, config = model.model, model.config
    heads, shared = config.num_attention_heads, config.num_key_value_heads
    weights = {name: x.detach().double() for name, x in model.state_dict().items()}
    tokens = ids.shape[1]
    x = weights["model.embed_tokens.weight"][ids[0]]
    places = torch.arange(tokens)[None]
    cosine, sine = (part[0].double() for part in stack.rotary_emb(x[None], places))
    seen = torch.ones(tokens, tokens).tril().bool()

    def norm(x: Tensor, name: str) -> Tensor:
        return x * weights[name] / (x.square().mean(-1, keepdim=True) + config.rms_norm_eps).sqrt()

    def turned(x: Tensor, sign: int = 1) -> Tensor:
        first, second = x.chunk(2, -1)
        return x * cosine + sign * torch.cat([-second, first], -1) * sine

    def split(x: Tensor, count: int) -> Tensor:
        return x.unflatten(-1, (count, -1)).transpose(0, 1)

    def linear(x: Tensor, weight: Tensor, relevance: Tensor, output: Tensor) -> Tensor:
        """In proportion to the terms of each sum."""
        return x * ((relevance / output) @ weight)

    kept = []
    for layer in range(config.num_hidden_layers):
        at = {
            name.split(f"layers.{layer}.")[1]: part
            for name, part in weights.items()
            if f"layers.{layer}." in name
        }
        prefix = f"model.layers.{layer}."
        n = norm(x, prefix + "input_layernorm.weight")
        q, k, v = (n @ at[f"self_attn.{name}_proj.weight"].T for name in "qkv")
        q0, k0, v0 = split(q, heads), split(k, shared), split(v, shared)
        query, key = turned(q0), turned(k0).repeat_interleave(heads // shared, 0)
        value = v0.repeat_interleave(heads // shared, 0)
        scores = query @ key.mT / q0.shape[-1] ** 0.5
        a = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        context = a @ value
        flat = context.transpose(0, 1).flatten(1)
        attended = flat @ at["self_attn.o_proj.weight"].T
        middle = x + attended
        m = norm(middle, prefix + "post_attention_layernorm.weight")
        gate, up = (m @ at[f"mlp.{name}_proj.weight"].T for name in ("gate", "up"))
        inner = torch.nn.functional.silu(gate) * up
        fed = inner @ at["mlp.down_proj.weight"].T
        kept.append((at, locals_of(locals())))
        x = middle + fed
    final = norm(x, "model.norm.weight")
    relevance = torch.zeros_like(x)
    relevance[position] = final[position] * weights["lm_head.weight"][token]
    for at, part in reversed(kept):
        output = part["middle"] + part["fed"]
        to_fed = relevance * part["fed"] / output
        relevance = relevance * part["middle"] / output
        to_inner = linear(part["inner"], at["mlp.down_proj.weight"], to_fed, part["fed"]) / 2
        for name in ("gate", "up"):  # half to each; all of an activation's to its input
            weight = at[f"mlp.{name}_proj.weight"]
            relevance = relevance + linear(part["m"], weight, to_inner, part[name])
        to_attended = relevance * part["attended"] / part["middle"]
        relevance = relevance * part["x"] / part["middle"]
        weight = at["self_attn.o_proj.weight"]
        to_context = split(linear(part["flat"], weight, to_attended, part["attended"]), heads)
        share = to_context / (2 * part["context"])
        to_value = part["value"] * (part["a"].mT @ share)
        to_a = part["a"] * (share @ part["value"].mT)
        to_scores = part["scores"] * (to_a - part["a"] * to_a.sum(-1, keepdim=True))
        share = to_scores / (2 * part["scores"]) / part["q0"].shape[-1] ** 0.5
        to_query = part["query"] * (share @ part["key"])
        to_key = part["key"] * (share.mT @ part["query"])
        # The inverse of a rotation is its transpose.
        to_q = part["q0"] * turned(to_query / part["query"], -1)
        grouped = (to_key / part["key"]).unflatten(0, (shared, -1)).sum(1)
        to_k = part["k0"] * turned(grouped, -1)
        to_v = to_value.unflatten(0, (shared, -1)).sum(1)
        for name, arrived in zip("qkv", (to_q, to_k, to_v), strict=True):
            weight = at[f"self_attn.{name}_proj.weight"]
            flat = arrived.transpose(0, 1).flatten(1)
            relevance = relevance + linear(part["n"], weight, flat, part[name])
    return relevance.sum(-1)


def locals_of(names: dict[str, object]) -> dict[str, Tensor]:
    return {name: part for name, part in names.items() if isinstance(part, Tensor)}
