"""What a model says if it always takes the likeliest token: what others must say after an export."""

import torch

from groundup.model.transformer import Transformer


def greedy(model: Transformer, prompt: list[int], tokens: int) -> list[int]:
    """Returns the prompt and so many tokens more."""
    ids = list(prompt)
    with torch.no_grad():
        for _ in range(tokens):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids
