"""Training without the division by the square root, what the heads' figures say, and QK-clip.

    python -m recipes.unstable_training [--d-k N] [--bound B] [--learning-rate R] [--seed N]

One head learns to look up a key among pairs of keys and values, the task of `pellucid scaling
--train`, from the same start and the same data three times: with scores divided by √d_k, undivided,
and undivided with logits that QK-clip bounds. `watch(collect=...)` measures each step.
"""

import argparse
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from pellucid.layers.block import AttentionInputs, HeadAttention
from pellucid.layers.config import Config
from pellucid.lens import watch
from pellucid.training.head_monitor import clip_logits

SYMBOLS, PAIRS, BATCH = 32, 16, 64
STEPS, REPORTED = 300, 50


class Recall(nn.Module):
    """One head that attends from a key to pairs of keys and values, and answers with a value."""

    def __init__(self, d_k: int, scale: float) -> None:
        super().__init__()
        config = Config(
            kind="decoder",
            vocabulary=SYMBOLS,
            width=d_k,
            layers=1,
            heads=1,
            bias=False,
            attention_scale=scale,
        )
        self.keys, self.values = nn.Embedding(SYMBOLS, d_k), nn.Embedding(SYMBOLS, d_k)
        self.attention = HeadAttention(config)
        self.answer = nn.Linear(d_k, SYMBOLS, bias=False)
        for projection in (self.attention.query, self.attention.key, self.attention.value):
            nn.init.normal_(projection.weight, std=d_k**-0.5)

    def forward(self, keys: Tensor, values: Tensor, asked: Tensor) -> Tensor:
        """The logits of the answers, (batch, symbols)."""
        memory = AttentionInputs(memory=self.keys(keys) + self.values(values))
        found = self.attention.cross_attend(self.keys(asked).unsqueeze(1), memory)
        answers: Tensor = self.answer(found.squeeze(1))
        return answers


def run(
    d_k: int, scale: float, bound: float | None, learning_rate: float, seed: int
) -> Iterator[tuple[int, float, float, float, float]]:
    """Train; every REPORTED steps: the step, the loss, the share of right answers, the largest
    logit and the mean entropy in nats.
    """
    torch.manual_seed(seed)
    model = Recall(d_k, scale)
    optimiser = torch.optim.Adam(model.parameters(), lr=learning_rate)
    data = torch.Generator().manual_seed(seed)
    for step in range(STEPS + 1):
        keys = torch.rand(BATCH, SYMBOLS, generator=data).argsort(-1)[:, :PAIRS]
        values = torch.randint(SYMBOLS, (BATCH, PAIRS), generator=data)
        place = torch.randint(PAIRS, (BATCH, 1), generator=data)
        target = values.gather(1, place)[:, 0]
        with watch(model, collect=("entropy", "max_logit")) as seen:
            answers = model(keys, values, keys.gather(1, place)[:, 0])
            loss = nn.functional.cross_entropy(answers, target)
            loss.backward()
        optimiser.step()
        optimiser.zero_grad()
        heads = seen.collected["attention"]
        if bound is not None:
            clip_logits(model.attention, heads.max_logit, bound)
        if step % REPORTED == 0:
            right = (answers.argmax(-1) == target).double().mean().item()
            yield step, loss.item(), right, heads.max_logit.item(), heads.entropy.item()


def main() -> None:
    about, *_ = (__doc__ or "").splitlines()
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--d-k", type=int, default=64)
    parser.add_argument("--bound", type=float, default=8.0)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    runs = {
        f"divided by √{given.d_k}": (given.d_k**-0.5, None),
        "undivided": (1.0, None),
        f"undivided, clipped at {given.bound:g}": (1.0, given.bound),
    }
    print(f"{'scores':<24} {'step':>4} {'loss':>6} {'right':>6} {'max logit':>10} {'entropy':>8}")
    for name, (scale, bound) in runs.items():
        for numbers in run(given.d_k, scale, bound, given.learning_rate, given.seed):
            step, loss, right, largest, entropy = numbers
            print(
                f"{name:<24} {step:>4} {loss:>6.3f} {right:>6.0%} {largest:>10.1f} {entropy:>8.2f}"
            )


if __name__ == "__main__":
    main()
