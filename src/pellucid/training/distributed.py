"""Training in one process, or in several by torch.distributed."""

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from pellucid.layers.block import Block


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those that train; under torchrun, all that it has started."""

    rank: int = 0
    count: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @classmethod
    def join(cls) -> "Processes":
        """Join the processes that torchrun has started, if any."""
        local = int(os.environ.get("LOCAL_RANK", 0))
        device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
        if "RANK" not in os.environ:
            return cls(device=device)
        if not dist.is_initialized():
            dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        return cls(dist.get_rank(), dist.get_world_size(), device)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def wrap(self, objective: nn.Module, shard: bool) -> Any:
        """Wrap the objective so that gradients are summed over all processes."""
        if shard:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

            mesh = init_device_mesh(self.device.type, (self.count,))
            for part in objective.modules():
                if isinstance(part, Block):
                    fully_shard(part, mesh=mesh)
            fully_shard(objective, mesh=mesh, reshard_after_forward=True)
            for name in ("measure", "examine", "sample", "glance"):  # they use the weights too
                register_fsdp_forward_method(objective, name)
            return objective
        if self.count > 1:
            return nn.parallel.DistributedDataParallel(objective)
        return objective

    def total(self, *numbers: float) -> list[float]:
        """The sums of these numbers over all processes."""
        if self.count == 1:
            return list(numbers)
        added = torch.tensor(numbers, dtype=torch.float64, device=self.device)
        dist.all_reduce(added)
        return added.tolist()

    def maximum(self, tensor: Tensor) -> Tensor:
        """The largest of each element over all processes."""
        if self.count > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return tensor

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean of each element over all processes."""
        if self.count > 1:
            tensor = tensor / self.count
            dist.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        """Wait for all processes."""
        if self.count > 1:
            dist.barrier()


def whole(tensor: Tensor) -> Tensor:
    """The full tensor of one that may be sharded."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor
