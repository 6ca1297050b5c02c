"""Why divide by √d_k? Train two small models side by side: one divides its scores, one does not.

The task is associative recall (Ba et al. 2016, "Using Fast Weights to Attend to the Recent Past",
section 4.1): a row of key-value pairs, then a key; the answer is its value. One attention head can
solve it, and must find the right pair to do so. Both models start with the same numbers and see the
same data.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn

from pellucid.attention.reference import stages
from pellucid.common import files
from pellucid.common.wording import percent
from pellucid.errors import ArgumentError

SYMBOLS, PAIRS, BATCH = 32, 16, 64
LEARNT = 0.9
"""The share of right answers at which a model has learnt the task."""
AVERAGED = 10
"""Steps whose share of right answers is averaged for that."""
REAL = 1.5
"""How many times the steps the slower model must take for the difference to be called real."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStep:
    """One step of one model, measured before its update."""

    loss: float
    entropy: float
    """Of the softmax, in nats; at most ln of the pairs."""
    max_logit: float
    """The largest size of a logit, the input of the softmax."""
    accuracy: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingComparison:
    """Both models, step by step."""

    d_k: int
    seed: int
    learning_rate: float
    scaled: tuple[TrainingStep, ...]
    unscaled: tuple[TrainingStep, ...]

    def sentence(self) -> str:
        """What the numbers say, and whether the difference is real."""
        divided, undivided = learnt_after(self.scaled), learnt_after(self.unscaled)
        steps = len(self.scaled)
        if divided is None and undivided is None:
            return (
                f"Neither model learnt the task in {steps} steps, so no difference shows: try "
                "another d_k, or more steps."
            )
        if divided is not None and (undivided is None or undivided > REAL * divided):
            late = f"not within {steps}" if undivided is None else f"after {undivided}"
            return (
                f"Divided by √{self.d_k}, the model learnt the task after {divided} steps; "
                f"undivided, {late}. Its softmax began at an entropy of "
                f"{self.unscaled[0].entropy:.2f} instead of {self.scaled[0].entropy:.2f}, so that "
                "hardly any gradient came through."
            )
        outcomes = " and ".join(
            f"{name} {'not at all' if after is None else f'after {after} steps'}"
            for name, after in (("divided", divided), ("undivided", undivided))
        )
        return (
            f"No real difference at d_k = {self.d_k}: the models learnt {outcomes}. The scores are "
            "too small to matter here; try a larger d_k."
        )


class _Recall(nn.Module):
    """One attention head that looks a symbol up among pairs of symbols."""

    def __init__(self, d_k: int, scale: float, generator: torch.Generator) -> None:
        super().__init__()

        def draw(rows: int, columns: int, spread: float = 1.0) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) * spread)

        self.scale = scale
        self.keys, self.values = draw(SYMBOLS, d_k), draw(SYMBOLS, d_k)
        # So that queries and keys have variance 1, as the paper supposes.
        self.W_query, self.W_key, self.W_value = (draw(d_k, d_k, d_k**-0.5) for _ in range(3))
        self.W_output = draw(d_k, SYMBOLS, d_k**-0.5)

    def forward(
        self, keys: Tensor, values: Tensor, queried: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Answers (batch, symbols), logits and weights (batch, pairs)."""
        pairs = self.keys[keys] + self.values[values]
        query = self.keys[queried] @ self.W_query
        computed = stages(
            query[:, None], pairs @ self.W_key, pairs @ self.W_value, scale=self.scale
        )
        return (
            (computed.context @ self.W_output)[:, 0],
            computed.masked[:, 0],
            computed.weights[:, 0],
        )


def train_both(
    d_k: int = 64, *, steps: int = 300, seed: int = 0, learning_rate: float = 1e-3
) -> Iterator[tuple[TrainingStep, TrainingStep]]:
    """Train both models; what each step measured, the divided one first.

    Args:
        d_k: numbers of a query and a key, 1 to 1,024.
        steps: of Adam, on 64 new examples each.
        seed: of the weights and the data.
        learning_rate: of Adam.

    Raises:
        ArgumentError: a number is out of range.
    """
    for name, number, most in (("d_k", d_k, 1024), ("steps", steps, 100_000)):
        if not 1 <= number <= most:
            raise ArgumentError(f"{name} must be from 1 to {most}, not {number}")
    if not 0 < learning_rate <= 1:
        raise ArgumentError(f"learning_rate must be above 0 and at most 1, not {learning_rate:g}")
    models = [
        _Recall(d_k, scale, torch.Generator().manual_seed(seed)) for scale in (d_k**-0.5, 1.0)
    ]
    optimizers = [torch.optim.Adam(model.parameters(), lr=learning_rate) for model in models]
    data = torch.Generator().manual_seed(seed + 1)
    for _ in range(steps):
        keys = torch.rand(BATCH, SYMBOLS, generator=data).argsort(-1)[:, :PAIRS]
        values = torch.randint(SYMBOLS, (BATCH, PAIRS), generator=data)
        queried = torch.randint(PAIRS, (BATCH, 1), generator=data)
        example = (keys, values, keys.gather(1, queried)[:, 0])
        target = values.gather(1, queried)[:, 0]
        first, second = (
            _step(model, optimizer, example, target)
            for model, optimizer in zip(models, optimizers, strict=True)
        )
        yield first, second


def compare_training(
    d_k: int = 64,
    *,
    steps: int = 300,
    seed: int = 0,
    learning_rate: float = 1e-3,
    progress: Callable[[TrainingStep, TrainingStep], None] | None = None,
) -> TrainingComparison:
    """Train both models to the end; arguments as in `train_both`.

    `progress` is called after each step, with what the divided and the undivided model measured.
    """
    pairs = []
    for pair in train_both(d_k, steps=steps, seed=seed, learning_rate=learning_rate):
        pairs.append(pair)
        if progress is not None:
            progress(*pair)
    scaled, unscaled = zip(*pairs, strict=True)
    return TrainingComparison(
        d_k=d_k, seed=seed, learning_rate=learning_rate, scaled=scaled, unscaled=unscaled
    )


def learnt_after(steps: tuple[TrainingStep, ...]) -> int | None:
    """The steps after which the model answers right nine times in ten; None if it never does."""
    for end in range(AVERAGED, len(steps) + 1):
        if sum(step.accuracy for step in steps[end - AVERAGED : end]) >= LEARNT * AVERAGED:
            return end
    return None


def status(step: TrainingStep) -> str:
    """One step in a line."""
    return (
        f"loss {step.loss:.2f}, right {percent(step.accuracy)}, entropy {step.entropy:.2f}, "
        f"max logit {step.max_logit:.1f}"
    )


def to_json(comparison: TrainingComparison) -> str:
    """All steps as JSON."""
    return files.to_json(asdict(comparison) | {"sentence": comparison.sentence()}, indent=1)


def _step(
    model: _Recall, optimizer: torch.optim.Optimizer, example: tuple[Tensor, ...], target: Tensor
) -> TrainingStep:
    answers, logits, weights = model(*example)
    loss = nn.functional.cross_entropy(answers, target)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        return TrainingStep(
            loss=loss.item(),
            entropy=torch.special.entr(weights).sum(-1).mean().item(),
            max_logit=logits.abs().max().item(),
            accuracy=(answers.argmax(-1) == target).double().mean().item(),
        )
