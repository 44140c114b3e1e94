"""Which process this is among how many, on which device; taken from torchrun's environment."""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from groundup.base.errors import ConfigError

__all__ = ["World", "choose_device", "set_threads", "world"]

TIMEOUT_MINUTES = 30  # that the others may wait for one, which may be evaluating or writing a checkpoint


CPU = torch.device("cpu")


@dataclass(frozen=True)
class World:
    """This process's `rank` among `size`, and its device. Rank 0 alone writes files and speaks."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @property
    def main(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    def sum(self, values: Sequence[float | torch.Tensor]) -> list[float]:
        """Returns numbers summed over all processes."""
        numbers = torch.stack([torch.as_tensor(v, dtype=torch.float64, device=self.device) for v in values])
        if self.size > 1:
            dist.all_reduce(numbers)
        return numbers.tolist()

    def share(self, value: Any) -> Any:
        """Returns rank 0's value on every process (what it found on disk, decided, or measured)."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


def choose_device(device: str) -> torch.device:
    """Returns the device that `auto`, `cpu`, `cuda` or `mps` means here. Raises: ConfigError if there is no such device."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if device not in there:
        raise ConfigError(f"device: expected auto, cpu, cuda or mps, not {device!r}")
    if not there[device]:
        raise ConfigError(f"device: there is no {device} here; use --device cpu or auto")
    return torch.device(device)


def _join(rank: int, size: int, device: torch.device) -> None:
    """Joins the process group. A restart of the same job gets keys of its own: those of the crashed one are still there."""
    environment = os.environ
    host, port = environment.get("MASTER_ADDR", "127.0.0.1"), int(environment.get("MASTER_PORT", "29500"))
    timeout = timedelta(minutes=TIMEOUT_MINUTES)
    agent = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"  # torchrun's agent serves the store already
    store = dist.TCPStore(host, port, size, is_master=rank == 0 and not agent, timeout=timeout)
    restart = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo", store=dist.PrefixStore(f"groundup/{restart}", store),
        rank=rank, world_size=size, timeout=timeout,
    )  # fmt: skip


def set_threads(threads: int) -> int:
    """Returns the number of CPU threads that torch now uses; 0 asks for all that this process may use (or OMP_NUM_THREADS).

    The last bits of a sum depend on how it is shared among threads, so a resumed run asks for the same number.
    """
    if threads <= 0:
        allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        threads = int(os.environ.get("OMP_NUM_THREADS") or allowed)
    torch.set_num_threads(threads)
    return threads


@contextmanager
def world(device: str = "auto") -> Iterator[World]:
    """Yields this process's place; under torchrun it joins the others first and leaves them properly at the end."""
    chosen = choose_device(device)
    rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(0, 1, chosen)
        return
    if chosen.type == "cuda":
        chosen = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(chosen)
    _join(rank, size, chosen)
    try:
        yield World(rank, size, chosen)
        dist.barrier()  # nobody leaves while another still needs the store
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        dist.destroy_process_group()
