"""The KV cache: keys and values of the tokens already read, so that a new token costs one column instead of a square."""

import torch
from torch import Tensor

from groundup.base.errors import GroundupError
from groundup.model.config import ModelConfig

__all__ = ["KVCache"]


class KVCache:
    """Room for `length` tokens of `batch` sequences in every layer, allocated once. All sequences grow together."""

    def __init__(
        self,
        config: ModelConfig,
        batch: int,
        length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.config, self.length = config, 0
        # Keys and values in one block: (2, L, B, Hkv, S, D).
        shape = (2, config.n_layers, batch, config.kv_heads, length, config.head_size)
        self.store = torch.empty(shape, device=device, dtype=dtype)

    @property
    def batch(self) -> int:
        """Number of sequences."""
        return self.store.shape[2]

    @property
    def capacity(self) -> int:
        """Tokens that each sequence has room for."""
        return self.store.shape[4]

    def append(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Writes a layer's new k, v (B, Hkv, T, D) behind the `length` tokens; returns views of all (B, Hkv, S, D).

        `length` itself moves on when `advance` is called, after the last layer.
        Raises: GroundupError if they don't fit.
        """
        end = self.length + k.shape[2]
        if end > self.capacity:
            raise GroundupError(f"the KV cache has room for {self.capacity} tokens, {end} were given; make it longer")
        store = self.store[:, layer]
        store[0, :, :, self.length : end] = k
        store[1, :, :, self.length : end] = v
        return store[0, :, :, :end], store[1, :, :, :end]

    def advance(self, tokens: int) -> None:
        """Counts tokens that every layer has appended."""
        self.length += tokens

    def expand(self, n: int) -> "KVCache":
        """Returns a cache in which each sequence stands n times in a row: one prefill serves n samples of a prompt."""
        return self._copy(self.store[:, :, :, :, : self.length].repeat_interleave(n, dim=2))

    def select(self, rows: Tensor) -> "KVCache":
        """Returns a cache of these rows (int64 indices or a bool mask): how finished sequences are dropped."""
        if rows.dtype == torch.bool:
            rows = rows.nonzero().flatten()
        return self._copy(self.store[:, :, :, :, : self.length].index_select(2, rows))

    def _copy(self, used: Tensor) -> "KVCache":
        """Returns a cache of the same capacity that holds `used` tokens; only what is used is moved."""
        made = KVCache(self.config, used.shape[2], self.capacity, used.device, used.dtype)
        made.store[:, :, :, :, : self.length] = used
        made.length = self.length
        return made
