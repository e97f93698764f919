"""Distributed training: several processes that train one network, one per GPU, started by `torchrun`."""

import os
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Ranks:
    """This process's rank, 0 to size - 1, among the processes of a training."""

    rank: int = 0
    size: int = 1

    @property
    def is_leader(self) -> bool:
        """Whether this process reports events and saves files for all processes."""
        return self.rank == 0

    def share_of(self, indices: Tensor) -> Tensor:
        """This process's share of a batch's indices; all shares together are the batch."""
        return indices[self.rank :: self.size]

    def sum_gradients(self, network: nn.Module) -> None:
        """Sum the gradients of all processes in place, so that all take the same step."""
        if self.size == 1:
            return
        trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
        gradients = [torch.zeros_like(parameter) if parameter.grad is None else parameter.grad for parameter in trained]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        parts = torch.split(flat, [gradient.numel() for gradient in gradients])
        for parameter, part in zip(trained, parts, strict=True):
            parameter.grad = part.view_as(parameter)

    def sum(self, value: Tensor) -> Tensor:
        """The sum of the values of all processes."""
        if self.size > 1:
            dist.all_reduce(value)
        return value

    def broadcast_weights(self, network: nn.Module) -> None:
        """Copy the first process's weights and running statistics to all processes."""
        if self.size > 1:
            for tensor in network.state_dict().values():
                dist.broadcast(tensor, src=0)

    def broadcast_text(self, text: str) -> str:
        """The first process's text, for results that only it has measured."""
        if self.size == 1:
            return text
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        data = bytearray(text.encode())
        length = torch.tensor(len(data), device=device)
        dist.broadcast(length, src=0)
        letters = torch.zeros(int(length), dtype=torch.uint8, device=device)
        if self.is_leader:
            letters.copy_(torch.frombuffer(data, dtype=torch.uint8))
        dist.broadcast(letters, src=0)
        return bytes(letters.cpu().numpy()).decode()

    def broadcast_flag(self, value: bool) -> bool:
        """The first process's value, for decisions that depend on the clock."""
        if self.size == 1:
            return value
        word = torch.tensor(int(value), device="cuda" if dist.get_backend() == "nccl" else "cpu")
        dist.broadcast(word, src=0)
        return bool(word)


def local_device(device: torch.device) -> torch.device:
    """The GPU of this process if torchrun started it with several GPUs; else `device`."""
    if device.type != "cuda" or "LOCAL_RANK" not in os.environ:
        return device
    own = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(own)
    return own


def join_ranks(device: torch.device) -> Ranks:
    """Join the processes that torchrun started (WORLD_SIZE in the environment); without torchrun, a single rank."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return Ranks()
    if not dist.is_initialized():
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return Ranks(dist.get_rank(), dist.get_world_size())


def leave_ranks() -> None:
    """Close what `join_ranks` opened."""
    if dist.is_initialized():
        dist.destroy_process_group()
