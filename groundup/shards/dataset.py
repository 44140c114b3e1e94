"""Token files as batches for training: the same global batches whatever the number of devices. Imports torch."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist

from groundup.base.errors import DataError
from groundup.shards.read import Shards, permutation

__all__ = ["Batch", "Replayed", "TokenDataset", "TokenStream"]


@dataclass(frozen=True)
class Batch:
    """`tokens` and `targets` (B, T) int64, targets -100 where unscored.

    `positions` (B, T) restart at 0 where a document begins; attention stays inside a document. None is plain causal
    attention over the whole row.
    """

    tokens: torch.Tensor
    targets: torch.Tensor
    positions: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """Returns the batch on another device."""
        positions = None if self.positions is None else self.positions.to(device, non_blocking=True)
        return Batch(self.tokens.to(device, non_blocking=True), self.targets.to(device, non_blocking=True), positions)


def _share(size: int, rank: int, world: int) -> int:
    """Returns how many samples of a global batch are a rank's. Raises: ValueError if `world` doesn't divide `size`."""
    if size < 1 or size % world or not 0 <= rank < world:
        raise ValueError(f"a batch of {size} samples can't be shared among {world} ranks (this is rank {rank})")
    return size // world


class TokenDataset(torch.utils.data.Dataset):
    """The windows of `context` tokens that a folder of token files holds, each with the same window one token later.

    Window i is tokens [i*T, i*T + T]; the last one of a window is the first of the next, so that every token is a
    target once. `batch` serves them in the order of training; indexing serves them in the order of the text.
    Raises: DataError if there are fewer than context + 1 tokens.
    """

    def __init__(self, folder: Path | str, context: int, seed: int = 0, document_mask: bool = False) -> None:
        self.shards = Shards(folder)
        self.context, self.seed, self.document_mask = context, seed, document_mask
        if self.shards.tokens < context + 1:
            raise DataError(
                f"{folder}: {self.shards.tokens} tokens, fewer than one context of {context} and its target; "
                f"use a context of at most {max(self.shards.tokens - 1, 0)}, or more text"
            )
        self._order: dict[int, np.ndarray] = {}

    def __len__(self) -> int:
        return (self.shards.tokens - 1) // self.context

    def window(self, i: int) -> np.ndarray:
        """Returns the T + 1 tokens of window i, int64."""
        return self.shards.slice(i * self.context, (i + 1) * self.context + 1).astype(np.int64)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns window i as (tokens, targets), each (T,), as a DataLoader wants them."""
        if not 0 <= i < len(self):
            raise IndexError(i)
        window = torch.from_numpy(self.window(i))
        return window[:-1], window[1:]

    def positions(self, i: int) -> np.ndarray:
        """Returns (T,) how far each token of window i is from the beginning of its document, or of the window."""
        first = i * self.context
        starts = self.shards.doc_starts
        low, high = np.searchsorted(starts, (first, first + self.context))
        begins = np.zeros(self.context, np.int64)
        begins[starts[low:high] - first] = starts[low:high] - first
        return np.arange(self.context) - np.maximum.accumulate(begins)

    def sample(self, n: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the n-th sample of training: T + 1 tokens, and positions (T,) where documents are kept apart."""
        i = self._drawn(n)
        return self.window(i), self.positions(i) if self.document_mask else None

    def _drawn(self, n: int) -> int:
        """Returns the window that is the n-th sample of training."""
        epoch, at = divmod(n, len(self))
        if epoch not in self._order:
            if len(self._order) > 1:  # a batch touches two epochs at most
                del self._order[min(self._order)]
            self._order[epoch] = permutation(len(self), self.seed, epoch)
        return int(self._order[epoch][at])

    def batch(self, first_sample: int, size: int, rank: int = 0, world: int = 1) -> Batch:
        """Returns this rank's share of the global batch of samples [first_sample, first_sample + size).

        Sample n is the (n mod len)-th window of permutation(seed, n div len): rank and world only slice the batch, so
        a run can be resumed with another number of devices, and a batch may straddle two epochs.
        Raises: ValueError if `world` doesn't divide `size`.
        """
        share = _share(size, rank, world)
        drawn = [self.sample(n) for n in range(first_sample + rank * share, first_sample + (rank + 1) * share)]
        rows = torch.from_numpy(np.stack([tokens for tokens, _ in drawn]))  # (B, T + 1)
        kept_apart = [positions for _, positions in drawn if positions is not None]
        positions = torch.from_numpy(np.stack(kept_apart)) if kept_apart else None
        return Batch(rows[:, :-1].contiguous(), rows[:, 1:].contiguous(), positions)


class TokenStream(torch.utils.data.IterableDataset):
    """The global batches of `data` one after another, epoch after epoch without end; of each, this rank's share, a Batch.

    A DataLoader(stream, batch_size=None, num_workers=W) gives the same batches in the same order for any W: worker w makes every
    W-th batch from the w-th on, and the loader asks them in turn. Rank and world are torch.distributed's where it is initialised and
    none are given. `batch_size` counts the samples of all ranks. Raises: ValueError if `world` doesn't divide it.
    """

    def __init__(self, data: TokenDataset, batch_size: int, rank: int | None = None, world: int | None = None) -> None:
        together = dist.is_available() and dist.is_initialized()
        self.data, self.batch_size = data, batch_size
        self.rank = (dist.get_rank() if together else 0) if rank is None else rank
        self.world = (dist.get_world_size() if together else 1) if world is None else world
        _share(batch_size, self.rank, self.world)
        self._first = self._served = 0

    def __iter__(self) -> Iterator[Batch]:
        worker = torch.utils.data.get_worker_info()
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        for first in itertools.count(self._first, workers * self.batch_size):
            batch = self.data.batch(first + number * self.batch_size, self.batch_size, self.rank, self.world)
            self._served = first + workers * self.batch_size
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Returns {"samples": how many the ranks were served together}: in a worker, when all workers are as far as this one.

        So it is the same number for any world size. torchdata's StatefulDataLoader asks each worker for it; behind a plain DataLoader with
        workers it doesn't move here, but it is steps x batch_size.
        """
        return {"samples": self._served}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets every iteration from now on begin behind so many samples."""
        self._first = self._served = state["samples"]


class Replayed(TokenDataset):
    """A data set of which a share of the samples comes from another one, the text that a model learnt before.

    They are spread evenly: of any samples in a row, their share is old to within one.
    """

    def __init__(self, folder: Path | str, old: TokenDataset, share: float) -> None:
        super().__init__(folder, old.context, old.seed, old.document_mask)
        self.old, self.replay = old, share

    def sample(self, n: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Returns the n-th sample of training, from one text or the other: a function of n alone."""
        before, after = int(n * self.replay), int((n + 1) * self.replay)
        return self.old.sample(before) if after > before else super().sample(n - before)
