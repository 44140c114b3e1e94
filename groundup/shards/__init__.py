"""Token files: written once, read by memory map, served to training in an order that any number of devices agrees on.

from groundup.shards import TokenDataset, write_texts

write_texts(["any", "texts"], tokenizer, "tokens")       # no project folder needed
TokenDataset("tokens", context=256).batch(0, 8)          # imports torch, which nothing else here does
TokenStream(TokenDataset("tokens", context=256), batch_size=8)   # the same batches, for a DataLoader with workers
"""

import importlib
from typing import Any

HOME = {"Batch": "dataset", "Shards": "read", "TokenDataset": "dataset", "TokenStream": "dataset",
        "permutation": "read", "write_texts": "write"}  # fmt: skip

__all__ = sorted(HOME)


def __getattr__(name: str) -> Any:
    if name in HOME:
        return getattr(importlib.import_module(f"groundup.shards.{HOME[name]}"), name)
    raise AttributeError(f"module 'groundup.shards' has no attribute '{name}'")
