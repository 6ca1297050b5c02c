"""The loop: forward, back, clip, step; judge, show and save now and then.

A step is a function of the seed, its number and the weights before it: it draws its random numbers
from a seed of its own, and reads what `batches` says. So a run that is stopped anywhere goes on bit
for bit, and several processes learn what one would.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.utils.checkpoint import checkpoint

from pellucid.common.files import write_whole
from pellucid.common.interrupts import interruptible
from pellucid.errors import PellucidError
from pellucid.layers.block import AttentionInputs, Block, HeadAttention
from pellucid.training import state
from pellucid.training.distributed import Processes, whole
from pellucid.training.hardware import give_back_freed_memory
from pellucid.training.objectives import Objective, Part
from pellucid.training.report import Report
from pellucid.training.settings import Settings

MOST_SKIPPED = 10
"""Steps in a row whose loss is no number, after which a run stops."""
TIDY_EVERY = 20
"""Steps after which memory that lies about in pieces is given back."""


class DivergedError(PellucidError, ArithmeticError):
    """The loss is no number any more."""


class Interrupted(KeyboardInterrupt):
    """Somebody pressed Ctrl-C; everything is saved."""


class Trainer:
    """A run: an objective, its optimiser and where it stands."""

    def __init__(
        self,
        objective: Objective,
        settings: Settings,
        directory: Path,
        report: Report,
        processes: Processes | None = None,
    ) -> None:
        """Get ready.

        Args:
            objective: the model, and what it learns from.
            settings: how.
            directory: where checkpoints and the log go.
            report: what tells people how it goes.
            processes: who takes part.
        """
        self.processes = processes or Processes.join()
        self.settings, self.directory, self.report = settings, directory, report
        self.objective = objective.to(self.processes.device)
        if settings.compile:
            _compile(objective)
        if settings.checkpointing:
            _recompute(objective)
        self.call = self.processes.wrap(objective, settings.shard)
        self.optimiser = optimiser(objective, settings)
        self.step = self.skipped = self.skipped_in_a_row = 0
        self.best: float | None = None
        self.mean = _Mean(objective, settings.average)

    def run(self, resume: bool = False) -> dict[str, float]:
        """Train to the last step; gives the measures of the weights that are kept.

        Raises:
            DivergedError: the loss was no number ten times in a row; the batch is saved.
            Interrupted: by Ctrl-C, after a checkpoint.
            FileError: something cannot be written, or no checkpoint is whole.
        """
        settings = self.settings
        if resume:
            self._go_back()
        measures: dict[str, float] = {}
        with self.report, interruptible() as interrupted:
            while self.step < settings.steps:
                loss, norm, tokens = self.update()
                rate = settings.rate(self.step)
                self.step += 1
                self.report.step(self.step, loss, norm, rate, self.skipped, tokens)
                if self.step % TIDY_EVERY == 0:
                    give_back_freed_memory()
                (stop,) = self.processes.total(float(interrupted()))
                last = self.step == settings.steps
                if last or self.step % settings.evaluate_every == 0:
                    measures = self._judge()
                if stop or last or self.step % settings.save_every == 0:
                    self._save()
                    self.report.saved()
                if stop and not last:
                    raise Interrupted
        return measures

    def examine(self) -> dict[str, Any]:
        """All that can be measured of the weights that were kept."""
        self.objective.restore(self.directory.parent)
        self.objective.to(self.processes.device).eval()
        with torch.no_grad():
            return self.objective.examine(self.report.judging)

    def update(self) -> tuple[float, float, int]:
        """One step; gives the mean loss in nats, the length of the gradient and the tokens."""
        settings, processes = self.settings, self.processes
        self.objective.train()
        batch = self.objective.batch(self.step)
        count = self.objective.targets(batch)
        parts = self._mine(batch)
        torch.manual_seed(self._draw())
        for group in self.optimiser.param_groups:
            group["lr"] = settings.rate(self.step)
        total = 0.0
        for number, (part, weight) in enumerate(parts):
            with self._alone(number < len(parts) - 1), self._precision():
                # What wraps the objective divides by the number of processes.
                loss = self.call(part) * (weight * processes.count / count)
            loss.backward()
            total += float(loss.detach()) / processes.count
        (total,) = processes.total(total)
        norm = float(whole(nn.utils.clip_grad_norm_(self.objective.parameters(), settings.clip)))
        if math.isfinite(total) and math.isfinite(norm):
            self.optimiser.step()
            self.mean.update(self.step)
            self.skipped_in_a_row = 0
        else:
            self._skip(batch)
        self.optimiser.zero_grad(set_to_none=True)
        return total, norm, self.objective.tokens(batch)

    def _mine(self, batch: Part) -> list[tuple[Part, float]]:
        """The parts of a batch that this process reads, and what each weighs.

        All take part as often as the others wait for them: at least once, and where the weights are
        sharded in each part. Who has nothing more to read reads something that weighs nothing.
        """
        count, most = self.processes.count, self.settings.part_tokens
        shares = [self.objective.cut(batch[rank::count], most) for rank in range(count)]
        times = max(map(len, shares)) if self.settings.shard else 1
        parts = [(part, 1.0) for part in shares[self.processes.rank]]
        return parts + [(batch[:1], 0.0)] * (times - len(parts))

    def _draw(self) -> int:
        """A seed of this step and process alone, for dropout."""
        numbers = (self.settings.seed, self.step, self.processes.rank)
        return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] // 2)

    def _alone(self, is_alone: bool) -> Any:
        """Gradients of all but the last part of a step stay with the process."""
        return self.call.no_sync() if is_alone and hasattr(self.call, "no_sync") else nullcontext()

    def _precision(self) -> Any:
        dtype = self.settings.dtype(self.processes.device)
        is_low = dtype is not torch.float32
        return torch.autocast(self.processes.device.type, dtype) if is_low else nullcontext()

    def _skip(self, batch: Part) -> None:
        self.skipped += 1
        self.skipped_in_a_row += 1
        if self.skipped_in_a_row < MOST_SKIPPED:
            return
        path = self.directory / "bad-batch.json"
        if self.processes.is_first:
            write_whole(path, json.dumps({"step": self.step, "batch": [int(one) for one in batch]}))
        raise DivergedError(
            f"the loss was no number {MOST_SKIPPED} times in a row, up to step {self.step + 1}; "
            f"the numbers of what it read then are in '{path}'; a lower learning rate may help: "
            f"another run, --from '{self.directory.parent}' if what was kept is any good"
        )

    def _judge(self) -> dict[str, float]:
        """Measure, and keep the weights if they are the best so far."""
        objective = self.objective
        objective.eval()
        with self.mean.in_place(), torch.no_grad():
            measures = objective.measure(self.report.judging)
            value = measures[objective.judged_by]
            sign = -1 if objective.higher_is_better else 1
            is_best = self.best is None or sign * value < sign * self.best
            if is_best:
                self.best = value if math.isfinite(value) else None
                self._keep()
            # Weights that are held in parts are read by all at once.
            shows = self.processes.is_first or self.settings.shard
            sample = objective.sample() if shows else ""
            glance = objective.glance() if shows else None
        self.report.judged(self.step, measures, is_best, sample, glance)
        return measures

    def _keep(self) -> None:
        """Write the model as people will load it."""
        weights = get_model_state_dict(
            self.objective, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
        )
        if self.processes.is_first:
            self.objective.save(self.directory.parent, weights)  # type: ignore[arg-type]

    def _parts(self) -> state.Parts:
        return self.objective, self.optimiser, self.mean.tensors

    def _about(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "best": self.best,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def _save(self) -> None:
        folder = self.directory / "checkpoints"
        state.save(folder, self._parts(), self._about(), self.processes)
        if self.processes.is_first:
            state.clear(folder, self.settings.keep)

    def _go_back(self) -> None:
        about = state.load(self.directory / "checkpoints", self._parts(), self.processes)
        if about is None:
            return
        self.step, self.best = about["step"], about["best"]
        self.skipped, self.skipped_in_a_row = about["skipped"], about["skipped_in_a_row"]
        self.report.resumed(self.step, about["damaged"])


class _Mean:
    """A running mean of the weights over the steps (Polyak and Juditsky 1992)."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.tensors: dict[str, Tensor] = {}
        if decay:
            self.tensors = {name: one.detach().clone() for name, one in model.named_parameters()}

    def update(self, step: int) -> None:
        # Early on the mean is over few steps, not mostly over the random start.
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, one in self.model.named_parameters():
            if name in self.tensors:
                self.tensors[name].lerp_(one.detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The mean in place of the weights, until the block is left."""
        if not self.tensors:
            yield
            return
        kept = {name: one.detach().clone() for name, one in self.model.named_parameters()}
        self._set(self.tensors)
        try:
            yield
        finally:
            self._set(kept)

    def _set(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, one in self.model.named_parameters():
                if name in tensors:
                    one.copy_(tensors[name])


def optimiser(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW that lets matrices decay, and neither norms nor biases."""
    matrices = [one for one in model.parameters() if one.requires_grad and one.ndim >= 2]
    vectors = [one for one in model.parameters() if one.requires_grad and one.ndim < 2]
    groups = [
        {"params": matrices, "weight_decay": settings.weight_decay},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.learning_rate,
        betas=(settings.beta1, settings.beta2),
        fused=True,
    )


def _recompute(model: nn.Module) -> None:
    """Let each block run again on the way back, in place of keeping what it made."""
    for block in model.modules():
        if isinstance(block, Block):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


def _compile(model: nn.Module) -> None:
    """Compile what blocks do in training, but for attention itself, whose calls hang on masks."""
    for part in model.modules():
        if isinstance(part, HeadAttention):
            part.attend = torch.compiler.disable(part.attend)  # type: ignore[method-assign]
        if isinstance(part, Block):
            part.forward = _Compiled(part)  # type: ignore[method-assign]


class _Compiled:
    """A block's forward pass; when it is judged, or makes a sample, it runs as it was."""

    def __init__(self, block: Block) -> None:
        self.block, self.plain = block, block.forward
        # Of any sizes from the first call on: what is made then must not hang on where a run began.
        self.fast = torch.compile(block.forward, dynamic=True)

    def __call__(self, x: Tensor, inputs: AttentionInputs, *others: Any, **named: Any) -> Tensor:
        does = self.fast if self.block.training else self.plain
        return does(x, inputs, *others, **named)
