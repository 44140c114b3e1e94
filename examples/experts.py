"""A mixture of experts learns a nursery rhyme in some seconds, and shows which letters each of its experts was sent."""

import collections

import torch
import torch.nn.functional as F

from groundup.model.config import ModelConfig, MoEConfig
from groundup.model.transformer import Transformer

RHYME = """This is the cat that killed the rat that ate the malt that lay in the house that Jack built.
This is the dog that worried the cat that killed the rat that ate the malt that lay in the house that Jack built.
"""


def main() -> None:
    """Trains on bytes, 60 steps, and looks at the last layer's router."""
    config = ModelConfig(
        "qwen3_moe", vocab_size=128, context=64, d_model=64, n_layers=2, n_heads=2, moe=MoEConfig(4, 1)
    )
    model, text = Transformer(config, seed=0), torch.tensor(list(RHYME.encode()))
    print(f"{config.params():,} parameters, {config.params(active=True):,} of them for a token")
    optimizer, dice = torch.optim.AdamW(model.parameters(), lr=4e-3), torch.Generator().manual_seed(0)
    for step in range(60):
        rows = torch.stack([text[i : i + 65] for i in torch.randint(len(text) - 65, (16,), generator=dice).tolist()])
        loss = F.cross_entropy(model(rows[:, :-1]).flatten(0, 1), rows[:, 1:].flatten())
        (loss + model.balance()).backward()  # the balance keeps all experts busy
        optimizer.step()
        optimizer.zero_grad()
        if step % 59 == 0:
            print(f"step {step + 1}: loss {loss:.2f}, tokens sent to each expert {model.expert_tokens()[-1]}")
    sent: dict[int, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    router = model.blocks[-1].mlp
    router.register_forward_pre_hook(lambda layer, given: chosen.extend(layer.route(given[0][0])[1][:, 0].tolist()))
    chosen: list[int] = []
    model.eval()(text[None, :64])
    for expert, letter in zip(chosen, RHYME[:64], strict=True):
        sent[expert][letter] += 1
    for expert, letters in sorted(sent.items()):
        print(f"expert {expert}:", " ".join(f"{letter!r} x{count}" for letter, count in letters.most_common(8)))


if __name__ == "__main__":
    main()
