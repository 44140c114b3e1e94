"""The KV cache: keys and values of the tokens already read, so that a new token costs one column instead of a square."""

import torch
from torch import Tensor

from groundup.base.errors import GroundupError
from groundup.model.config import ModelConfig

__all__ = ["KVCache"]


class KVCache:
    """Room for `capacity` tokens of `batch` sequences, allocated once; `length` of them are read. All sequences grow together.

    A layer that sees everything keeps everything. A layer with a window keeps the newest tokens, in order; when its room is
    used up, what the window still sees moves to the front. So its memory doesn't grow with the text.
    """

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        capacity: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.capacity, self.length = config, capacity, 0
        slots = [config.cache_slots(layer, capacity) for layer in range(config.n_layers)]
        self.kinds = sorted(set(slots))  # at most two: layers with the window, and those without
        self.place = [(self.kinds.index(s), slots[:layer].count(s)) for layer, s in enumerate(slots)]
        self.windows = [config.window_of(slots.index(s)) for s in self.kinds]
        self.first = [0] * len(self.kinds)  # which token stands in the first slot
        # Keys and values of the layers of a kind in one block: (2, L, B, Hkv, S, D).
        shapes = [(2, slots.count(s), batch, config.kv_heads, s, config.head_size) for s in self.kinds]
        self.blocks = [torch.empty(shape, device=device, dtype=dtype) for shape in shapes]

    @property
    def batch(self) -> int:
        """Number of sequences."""
        return self.blocks[0].shape[2]

    @property
    def device(self) -> torch.device:
        """Where the memory is."""
        return self.blocks[0].device

    def used(self, kind: int) -> int:
        """Returns how many slots of the layers of a kind hold a token."""
        return self.length - self.first[kind]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes a layer's new k, v (B, Hkv, T, D) behind those before; returns all that its queries may see (B, Hkv, S, D).

        `length` itself moves on when `advance` is called, after the last layer.
        Raises: GroundupError if they don't fit.
        """
        kind, row = self.place[layer]
        block, used, new = self.blocks[kind][:, row], self.used(kind), k.shape[2]  # (2, B, Hkv, S, D)
        if self.length + new > self.capacity:
            given = self.length + new
            raise GroundupError(f"the KV cache has room for {self.capacity} tokens, {given} were given; make it longer")
        if used + new <= block.shape[3]:
            block[0, :, :, used : used + new] = k
            block[1, :, :, used : used + new] = v
            return block[0, :, :, : used + new], block[1, :, :, : used + new]
        seen = block[:, :, :, used - self._kept(kind, new) : used]
        both = torch.cat([seen, torch.stack([k, v]).to(block.dtype)], dim=3)
        newest = both[:, :, :, -block.shape[3] :]
        block[:, :, :, : newest.shape[3]] = newest
        return both[0], both[1]

    def advance(self, tokens: int) -> None:
        """Counts tokens that every layer has appended."""
        for kind, slots in enumerate(self.kinds):
            self.first[kind] = max(self.length - self._kept(kind, tokens), self.length + tokens - slots)
        self.length += tokens

    def _kept(self, kind: int, new: int) -> int:
        """Returns how many of the tokens in a block stay when new ones come: all that have room, else what the window sees."""
        used = self.used(kind)
        return used if used + new <= self.kinds[kind] else min(used, self.windows[kind] - 1)

    def rewind(self, length: int) -> int:
        """Forgets all tokens but the first `length`; returns how many are left: none, if a window would miss some of them."""
        kinds = zip(self.first, self.windows, strict=True)
        if any(first > max(0, length - window + 1) for first, window in kinds if first):
            length = 0
        if not length:
            self.first = [0] * len(self.kinds)
        self.length = length
        return length
