"""The training loop: forward, backward, clip, step; with regular evaluations and checkpoints.

A step is a function of the seed, its number and the weights before it: its random numbers have a
seed of their own, and `batches` chooses its texts. So a resumed run continues bit for bit, and
several processes compute the same updates as one.
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
from pellucid.layers.bfloat16 import fast_dtype
from pellucid.layers.block import AttentionInputs, Block, HeadAttention
from pellucid.training import state
from pellucid.training.distributed import Processes, whole
from pellucid.training.hardware import give_back_freed_memory
from pellucid.training.head_monitor import HeadFigures, HeadMonitor
from pellucid.training.objectives import Objective, Part
from pellucid.training.report import Report
from pellucid.training.settings import Settings

MOST_SKIPPED = 10
"""Consecutive steps with a loss that is not finite, after which a run stops."""
COMPARED = 1024
"""Tokens whose loss is told in both precisions."""
TRIM_EVERY = 20
"""Steps between returns of freed memory to the system."""


class DivergedError(PellucidError, ArithmeticError):
    """The loss is not finite any more."""


class Interrupted(KeyboardInterrupt):
    """The user pressed Ctrl-C; a checkpoint is saved."""


class Trainer:
    """A run: an objective, its optimiser and its state."""

    def __init__(
        self,
        objective: Objective,
        settings: Settings,
        directory: Path,
        report: Report,
        processes: Processes | None = None,
    ) -> None:
        """Prepare a run.

        Args:
            objective: the model and its data.
            settings: the hyperparameters.
            directory: for checkpoints and the log.
            report: of the progress.
            processes: all that train; by default, those that torchrun started.
        """
        self.processes = processes or Processes.join()
        self.settings, self.directory, self.report = settings, directory, report
        self.objective = objective.to(self.processes.device)
        self.monitor = HeadMonitor(objective, settings, self.processes)
        self.heads: list[HeadFigures] = []
        """The figures of the heads in the last step, if they are reported."""
        if settings.compile:
            _compile(objective)
        if settings.checkpointing:
            _recompute(objective)
        self.call = self.processes.wrap(objective, settings.shard)
        self.optimiser = optimiser(objective, settings)
        self.step = self.skipped = self.skipped_in_a_row = 0
        self.best: list[float] | None = None
        """The measures of the best weights, of which lower ones are better."""
        self.mean = _Mean(objective, settings.average)

    def run(self, resume: bool = False) -> dict[str, float]:
        """Train to the last step; returns the measures of the last evaluation.

        Raises:
            DivergedError: the loss was not finite ten times in a row; the batch is saved.
            Interrupted: by Ctrl-C, after a checkpoint is saved.
            FileError: a file cannot be written, or no checkpoint is intact.
        """
        settings = self.settings
        if resume:
            self._resume()
        measures: dict[str, float] = {}
        with self.report, interruptible() as interrupted:
            while self.step < settings.steps:
                loss, norm, tokens = self.update()
                rate = settings.rate(self.step)
                self.step += 1
                self.report.step(self.step, loss, norm, rate, self.skipped, tokens)
                self.report.heads(self.step, self.heads)
                if self.step % TRIM_EVERY == 0:
                    give_back_freed_memory()
                (stop,) = self.processes.total(float(interrupted()))
                last = self.step == settings.steps
                if last or self.step % settings.evaluate_every == 0:
                    measures = self._evaluate()
                if stop or last or self.step % settings.save_every == 0:
                    self._save()
                    self.report.saved()
                if stop and not last:
                    raise Interrupted
        return measures

    def examine(self) -> dict[str, Any]:
        """Measure the best model in full."""
        self.objective.restore(self.directory.parent)
        self.objective.to(self.processes.device).eval()
        with torch.no_grad():
            measures = self.objective.examine(self.report.judging)
        if self.processes.is_first:
            self.objective.finish(self.directory.parent)
        return measures

    @torch.no_grad()
    def precision_told(self) -> str | None:
        """What bfloat16 costs, in a sentence: the loss of some texts in it and in float32."""
        device = self.processes.device
        if self.settings.dtype(device) is torch.float32 or self.settings.shard:
            return None
        self.objective.eval()
        part = self.objective.cut(self.objective.batch(self.step), COMPARED)[0]
        losses = []
        for precision in (self._precision(), nullcontext()):
            with torch.random.fork_rng(devices=[]), precision:
                torch.manual_seed(self._seed())  # of tokens that are masked
                losses.append(float(self.objective(part)) / self.objective.targets(part))
        low, exact = losses
        sentence = (
            f"trained in bfloat16: texts with a loss of {exact:.5f} nats in float32 have {low:.5f}"
        )
        if fast_dtype(device) is torch.float32:
            sentence += "; it is no faster here, and precision=float32 loses no digits"
        return sentence

    def update(self) -> tuple[float, float, int]:
        """Make one step; returns the mean loss in nats, the gradient norm and the tokens."""
        settings, processes = self.settings, self.processes
        self.objective.train()
        batch = self.objective.batch(self.step)
        count = self.objective.targets(batch)
        parts = self._own_parts(batch)
        torch.manual_seed(self._seed())
        for group in self.optimiser.param_groups:
            group["lr"] = settings.rate(self.step)
        total = 0.0
        with self.monitor.watching(self.step + 1) as seen:
            for number, (part, weight) in enumerate(parts):
                with self._unsynchronised(number < len(parts) - 1), self._precision():
                    # The wrapper of the objective divides by the number of processes.
                    loss = self.call(part) * (weight * processes.count / count)
                loss.backward()
                total += float(loss.detach()) / processes.count
        (total,) = processes.total(total)
        norm = float(whole(nn.utils.clip_grad_norm_(self.objective.parameters(), settings.clip)))
        if math.isfinite(total) and math.isfinite(norm):
            self.optimiser.step()
            self.heads = self.monitor.after_step(self.step + 1, seen)
            self.mean.update(self.step)
            self.skipped_in_a_row = 0
        else:
            self.heads = []
            self._skip(batch)
        self.optimiser.zero_grad(set_to_none=True)
        return total, norm, self.objective.tokens(batch)

    def _own_parts(self, batch: Part) -> list[tuple[Part, float]]:
        """The parts of a batch that this process reads, with their weights.

        Every process makes at least one pass or, with sharded weights, as many as the others; a
        process with nothing left to read makes passes of weight 0.
        """
        count, most = self.processes.count, self.settings.part_tokens
        shares = [self.objective.cut(batch[rank::count], most) for rank in range(count)]
        times = max(map(len, shares)) if self.settings.shard else 1
        parts = [(part, 1.0) for part in shares[self.processes.rank]]
        return parts + [(batch[:1], 0.0)] * (times - len(parts))

    def _seed(self) -> int:
        """The seed of this step and process, for dropout."""
        numbers = (self.settings.seed, self.step, self.processes.rank)
        return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] // 2)

    def _unsynchronised(self, is_wanted: bool) -> Any:
        """Do not sum gradients over processes, as for all but the last part of a step."""
        return self.call.no_sync() if is_wanted and hasattr(self.call, "no_sync") else nullcontext()

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
            batch = [int(number) for number in batch]
            write_whole(path, json.dumps({"step": self.step, "batch": batch}))
        raise DivergedError(
            f"the loss was not finite {MOST_SKIPPED} times in a row, up to step {self.step + 1}; "
            f"the last batch is in '{path}'; start a new run with a lower learning rate, from "
            f"scratch or --from '{self.directory.parent}', the best model so far"
        )

    def _evaluate(self) -> dict[str, float]:
        """Evaluate, and save the model if it is the best so far."""
        objective = self.objective
        objective.eval()
        with self.mean.in_place(), torch.no_grad():
            measures = objective.measure(self.report.judging)
            judgement = self._judgement(measures)
            is_best = self.best is None or judgement < self.best
            if is_best:
                self.best = judgement if all(map(math.isfinite, judgement)) else None
                self._keep()
            # All processes must read sharded weights together.
            takes_part = self.processes.is_first or self.settings.shard
            sample = objective.sample() if takes_part else ""
            glance = objective.glance() if takes_part else None
        self.report.judged(self.step, measures, is_best, sample, glance)
        return measures

    def _judgement(self, measures: dict[str, float]) -> list[float]:
        """The measure that chooses weights and the one that breaks ties, the lower the better."""
        objective = self.objective
        value = measures[objective.judged_by]
        others = () if objective.tie_broken_by is None else (measures[objective.tie_broken_by],)
        return [-value if objective.higher_is_better else value, *others]

    def _keep(self) -> None:
        """Save the model for `pellucid.load`."""
        weights = get_model_state_dict(
            self.objective, options=StateDictOptions(full_state_dict=True, cpu_offload=True)
        )
        if self.processes.is_first:
            self.objective.save(self.directory.parent, weights)  # type: ignore[arg-type]

    def _parts(self) -> state.Parts:
        return self.objective, self.optimiser, self.mean.tensors

    def _run_state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "best": self.best,
            "skipped": self.skipped,
            "skipped_in_a_row": self.skipped_in_a_row,
        }

    def _save(self) -> None:
        folder = self.directory / "checkpoints"
        state.save(folder, self._parts(), self._run_state(), self.processes)
        if self.processes.is_first:
            state.clear(folder, self.settings.keep)

    def _resume(self) -> None:
        about = state.load(self.directory / "checkpoints", self._parts(), self.processes)
        if about is None:
            return
        self.step, self.best = about["step"], about["best"]
        self.skipped, self.skipped_in_a_row = about["skipped"], about["skipped_in_a_row"]
        self.report.resumed(self.step, about["damaged"])


class _Mean:
    """An exponential moving average of the weights (Polyak and Juditsky 1992).

    `torch.optim.swa_utils.AveragedModel` would copy the whole objective, sharded or not, and
    cannot swap the averages in for an evaluation.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.tensors = self._weights() if decay else {}

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.model.named_parameters()}

    def update(self, step: int) -> None:
        # A lower decay in early steps forgets the random initialisation.
        decay = min(self.decay, (1 + step) / (10 + step))
        for name, weight in self.model.named_parameters():
            if name in self.tensors:
                self.tensors[name].lerp_(weight.detach(), 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Use the averages as the weights within the block."""
        if not self.tensors:
            yield
            return
        weights = self._weights()
        self._set(self.tensors)
        try:
            yield
        finally:
            self._set(weights)

    def _set(self, tensors: dict[str, Tensor]) -> None:
        with torch.no_grad():
            for name, weight in self.model.named_parameters():
                weight.copy_(tensors[name])


def optimiser(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """AdamW with weight decay of matrices, but not of norms and biases."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    matrices = [weight for weight in trained if weight.ndim >= 2]
    vectors = [weight for weight in trained if weight.ndim < 2]
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
    """Recompute each block in the backward pass instead of storing its activations."""
    for block in model.modules():
        if isinstance(block, Block):
            block.forward = partial(checkpoint, block.forward, use_reentrant=False)  # type: ignore[method-assign]


def _compile(model: nn.Module) -> None:
    """Compile the blocks for training, except attention, whose calls depend on the masks."""
    for part in model.modules():
        if isinstance(part, HeadAttention):
            part.attend = torch.compiler.disable(part.attend)  # type: ignore[method-assign]
        if isinstance(part, Block):
            part.forward = _Compiled(part)  # type: ignore[method-assign]


class _Compiled:
    """A block's forward pass, compiled in training mode and eager otherwise."""

    def __init__(self, block: Block) -> None:
        self.block, self.plain = block, block.forward
        # Dynamic from the first call on, so that a resumed run computes the same numbers.
        self.fast = torch.compile(block.forward, dynamic=True)

    def __call__(self, x: Tensor, inputs: AttentionInputs, *others: Any, **named: Any) -> Tensor:
        forward = self.fast if self.block.training else self.plain
        return forward(x, inputs, *others, **named)
