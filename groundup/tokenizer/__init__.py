"""Text to integers and back: byte-level BPE, its training, its files, and the chat format. Never imports torch.

from groundup.tokenizer import load, save
from groundup.tokenizer.train import train

tokenizer = train(["some text", "some more"], vocab_size=270)
tokenizer.decode(tokenizer.encode("text"))
"""

import importlib
from typing import Any

HOME = {"Tokenizer": "encode", "StreamDecoder": "encode", "load": "io", "save": "io", "to_huggingface": "io",
        "DEFAULT_SPECIALS": "chat", "Rendered": "chat", "render": "chat"}  # fmt: skip

__all__ = sorted(HOME)


def __getattr__(name: str) -> Any:
    if name in HOME:
        return getattr(importlib.import_module(f"groundup.tokenizer.{HOME[name]}"), name)
    raise AttributeError(f"module 'groundup.tokenizer' has no attribute '{name}'")
