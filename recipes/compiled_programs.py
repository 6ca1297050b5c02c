"""Compile programs to the weights of transformers, of which each head's function is known.

    python -m venv .venv-tracr && .venv-tracr/bin/pip install tracr-pypi safetensors
    JAX_PLATFORMS=cpu .venv-tracr/bin/python recipes/compiled_programs.py

It writes tests/data/compiled_programs.safetensors, with which versions in its metadata. Tracr needs
JAX and Haiku, so it has an environment of its own, and nothing else in this repository needs it.

Programs are written in RASP: `Select` compares each query with each key, `Aggregate` takes the mean
over the keys that were selected, and `SelectorWidth` counts them. Each is one head. The interpreter
of RASP, not the compiled model, gives what is stored beside the weights: for each text, what each
selector selects and what the program returns.

Source: Lindner et al. 2023, "Tracr: Compiled Transformers as a Laboratory for Interpretability".
"""

import importlib.metadata
import json
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tracr.compiler import compiling
from tracr.rasp import causal_eval, rasp

DATA = Path(__file__).parent.parent / "tests" / "data" / "compiled_programs.safetensors"
BOS = "BOS"
SAME = rasp.Comparison.EQ
LETTERS = ("a", "b", "c", "d", "e")
MANY = tuple("abcdefghijk")
TEXTS = 5


@dataclass
class Program:
    """A program, and which head does what."""

    result: rasp.SOp
    words: tuple
    length: int
    """The most tokens, without the one at the start."""
    selectors: dict
    """By layer and head: the selector, and "aggregate" or "width"."""
    causal: bool = False


def program_previous() -> Program:
    """What the token before was."""
    before = rasp.Select(rasp.indices, rasp.Map(lambda i: i - 1, rasp.indices), SAME)
    result = rasp.Aggregate(before, rasp.tokens)
    return Program(result, LETTERS, 7, {"1.0": (before, "aggregate")})


def program_share() -> Program:
    """What share of the tokens so far are an "a"."""
    so_far = rasp.Select(rasp.indices, rasp.indices, rasp.Comparison.LEQ)
    is_a = rasp.numerical(rasp.Map(lambda token: 1 if token == "a" else 0, rasp.tokens))
    result = rasp.numerical(rasp.Aggregate(so_far, is_a, default=0))
    return Program(result, LETTERS, 7, {"1.0": (so_far, "aggregate")})


def program_histogram() -> Program:
    """How often the token occurs."""
    alike = rasp.Select(rasp.tokens, rasp.tokens, SAME).named("alike")
    return Program(rasp.SelectorWidth(alike), LETTERS, 7, {"0.0": (alike, "width")})


def program_reverse() -> Program:
    """The tokens from the last to the first."""
    everything = rasp.Select(rasp.tokens, rasp.tokens, rasp.Comparison.TRUE)
    length = rasp.SelectorWidth(everything)
    opposite = (length - rasp.indices - 1).named("opposite")
    other_end = rasp.Select(rasp.indices, opposite, SAME)
    result = rasp.Aggregate(other_end, rasp.tokens)
    return Program(
        result, LETTERS, 4, {"0.0": (everything, "width"), "3.0": (other_end, "aggregate")}
    )


def program_sort() -> Program:
    """The tokens, all different, from the smallest to the largest."""
    smaller = rasp.Select(rasp.tokens, rasp.tokens, rasp.Comparison.LT)
    rank = rasp.SelectorWidth(smaller).named("rank")
    in_place = rasp.Select(rank, rasp.indices, SAME)
    result = rasp.Aggregate(in_place, rasp.tokens)
    return Program(result, LETTERS, 5, {"0.0": (smaller, "width"), "1.0": (in_place, "aggregate")})


def program_neighbours() -> Program:
    """The token before and the token after, by two heads of one layer."""
    before = rasp.Select(rasp.indices, rasp.Map(lambda i: i - 1, rasp.indices), SAME)
    after = rasp.Select(rasp.indices, rasp.Map(lambda i: i + 1, rasp.indices), SAME)
    left = rasp.Aggregate(before, rasp.tokens).named("left")
    right = rasp.Aggregate(after, rasp.tokens).named("right")
    result = rasp.SequenceMap(lambda one, other: f"{one}{other}", left, right)
    heads = {"1.0": (before, "aggregate"), "1.1": (after, "aggregate")}
    return Program(result, LETTERS[:3], 5, heads)


def program_induction(nothing: str | None = None) -> Program:
    """What followed the last time, of words that occur twice at most: an induction circuit.

    The interpreter compares no missing value with a word, the compiler takes no word for it: only
    the former gets a word for what is before the first token.
    """
    before = rasp.Select(rasp.indices, rasp.Map(lambda i: i - 1, rasp.indices), SAME)
    previous = rasp.Aggregate(before, rasp.tokens, default=nothing).named("previous")
    after_it = rasp.Select(previous, rasp.tokens, SAME)
    result = rasp.Aggregate(after_it, rasp.tokens)
    heads = {"1.0": (before, "aggregate"), "2.0": (after_it, "aggregate")}
    return Program(result, MANY, 10, heads, causal=True)


PROGRAMS = {
    name.removeprefix("program_"): make
    for name, make in list(globals().items())
    if name.startswith("program_")
}


def texts_of(name: str, program: Program) -> list[list]:
    """Random texts of the greatest length; those to sort have no word twice."""
    source = random.Random(name)
    if name == "sort":
        return [source.sample(program.words, program.length) for _ in range(TEXTS)]
    if name == "induction":
        halves = [source.sample(program.words, program.length // 2) for _ in range(TEXTS)]
        return [[*half, *source.sample(half, len(half))] for half in halves]
    return [source.choices(program.words, k=program.length) for _ in range(TEXTS)]


def compiled(name: str, program: Program) -> tuple[dict[str, np.ndarray], dict]:
    """The weights of a program and what the interpreter says, and facts about both."""
    model = compiling.compile_rasp_to_model(
        program.result,
        vocab=set(program.words),
        max_seq_len=program.length,
        compiler_bos=BOS,
        causal=program.causal,
    )
    config, params = model.model_config, model.params
    tensors = {
        "tokens": params["token_embed"]["embeddings"],
        "positions": params["pos_embed"]["embeddings"],
    }
    parts = {"attn/query", "attn/key", "attn/value", "attn/linear", "mlp/linear_1", "mlp/linear_2"}
    for layer in range(config.num_layers):
        for part in sorted(parts):
            own = params[f"transformer/layer_{layer}/{part}"]
            assert not np.any(own["b"]), "Tracr keeps constants in a direction that is always one"
            tensors[f"layers.{layer}.{part}"] = own["w"]
    label = program.result.label
    values = None
    if model.output_encoder is not None:
        values = list(getattr(model.output_encoder, "encoding_map", {})) or None
    names = [label] if values is None else [f"{label}:{value}" for value in values]
    tensors["output"] = np.array([model.residual_labels.index(one) for one in names])
    texts = texts_of(name, program)
    evaluate = causal_eval.evaluate if program.causal else (lambda one, text: one(text))
    told = PROGRAMS[name]("nothing") if name == "induction" else program
    results = [evaluate(told.result, text) for text in texts]
    for text, result in zip(texts, results, strict=True):
        found = model.apply([BOS, *text]).decoded[1:]
        for one, other in zip(found, result, strict=True):
            assert other is None or one == other or abs(one - other) < 1e-5, (name, text)
    encoding = model.input_encoder.encoding_map
    tensors["texts"] = np.array([[encoding[word] for word in [BOS, *text]] for text in texts])
    for head, (selector, _) in told.selectors.items():
        selected = [np.array(evaluate(selector, text), dtype=bool) for text in texts]
        tensors[f"selected.{head}"] = np.stack(selected)
    facts = {
        "does": PROGRAMS[name].__doc__.splitlines()[0],
        "causal": program.causal,
        "heads": config.num_heads,
        "layers": config.num_layers,
        "labels": model.residual_labels,
        "words": sorted(encoding, key=encoding.get),
        "values": values,
        "results": results,
        "functions": {head: function for head, (_, function) in program.selectors.items()},
    }
    kinds = {"f": np.float32, "i": np.int64, "b": np.bool_}
    arrays = {key: np.asarray(value) for key, value in tensors.items()}
    return {key: one.astype(kinds[one.dtype.kind]) for key, one in arrays.items()}, facts


def main() -> None:
    tensors, facts = {}, {}
    for name, make in PROGRAMS.items():
        own, facts[name] = compiled(name, make())
        tensors |= {f"{name}.{key}": tensor for key, tensor in own.items()}
    packages = ("tracr-pypi", "jax", "dm-haiku", "numpy")
    made_with = {package: importlib.metadata.version(package) for package in packages}
    DATA.parent.mkdir(exist_ok=True)
    about = {"programs": facts, "made_with": made_with}
    save_file(tensors, DATA, metadata={"about": json.dumps(about)})  # of one entry, in one order
    print(f"{DATA.name}: {DATA.stat().st_size:,} bytes, {', '.join(facts)}; {made_with}")


if __name__ == "__main__":
    main()
