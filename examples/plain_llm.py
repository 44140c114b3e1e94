"""A language model from the ground up in one minute: the lessons (each stage's plain.py) chained, nothing else of groundup.

    python examples/plain_llm.py            learns "The House That Jack Built" by heart, then answers questions about it
    python examples/plain_llm.py FILE.txt   learns a small text of yours

Read the lessons in this order: tokenizer, model, plan, train, infer, align.
"""

import sys
import time
from pathlib import Path

import torch

from groundup.align import plain as align
from groundup.infer import plain as infer
from groundup.model import plain as model
from groundup.plan import plain as plan
from groundup.tokenizer import plain as tokenizer
from groundup.train import plain as training

DEEDS = [
    "lay in", "ate", "killed", "worried", "tossed", "milked", "kissed", "married", "woke", "kept", "owned",
]  # fmt: skip
WHO = [
    "the house that Jack built", "the malt", "the rat", "the cat", "the dog", "the cow with the crumpled horn", "the maiden all forlorn",
    "the man all tattered and torn", "the priest all shaven and shorn", "the cock that crowed in the morn", "the farmer sowing his corn",
    "the horse and the hound and the horn",
]  # fmt: skip
CONTEXT, MERGES = 64, 160


def rhyme() -> str:
    """Returns the nursery rhyme (traditional): verse n tells of n + 1 characters, each with its deed."""
    verses = []
    for n in range(len(WHO)):
        chain = "".join(f"\nThat {DEEDS[i - 1]} {WHO[i - 1]}" for i in range(n, 0, -1))
        verses.append(f"This is {WHO[n]}{chain}.\n")
    return "\n".join(verses)


def main() -> None:
    """Goes through the stages and prints what each one made."""
    torch.manual_seed(0)
    started = time.perf_counter()
    text = Path(sys.argv[1]).read_text(encoding="utf-8") if len(sys.argv) > 1 else rhyme()

    merges = tokenizer.train_bytes([text], MERGES)
    tokens = tokenizer.encode(text, merges)
    begin, user, assistant, end = range(256 + len(merges), 260 + len(merges))  # special tokens come behind the merges
    print(f"tokenizer: {len(text.encode()):,} bytes became {len(tokens):,} tokens with {len(merges)} merges")

    shape = model.ModernConfig(vocab_size=end + 1, n_layers=2, d_model=64, n_heads=4, n_kv_heads=2, d_ff=128)
    net = model.ModernTransformer(shape)
    params = sum(p.numel() for p in net.parameters())
    law = plan.Law(482.0, 2085.0, 1.8169, 0.3478, 0.3659)  # Besiroglu et al. 2024
    compute = 6 * params * 300 * 16 * CONTEXT
    best, data = plan.optimal_allocation(law, compute)
    print(
        f"plan: {params:,} parameters; for {compute:.1e} FLOPs Chinchilla would take {best:,.0f} and {data:,.0f} tokens"
    )

    before = training.mean_loss(net, tokens, CONTEXT)
    batches = list(training.text_batches(tokens, CONTEXT, batch=16, steps=300))
    training.train(net, batches, lr=5e-3, warmup=20)
    after = training.mean_loss(net, tokens, CONTEXT)
    print(f"pretraining: {before:.2f} -> {after:.2f} nats per token")

    def next_logits(ids: list[int]) -> list[float]:
        with torch.no_grad():
            return net(torch.tensor([ids[-CONTEXT:]]))[0, -1].tolist()

    opening = tokenizer.encode(text[:12], merges)
    made = infer.generate(next_logits, opening, uniforms=[0.5] * 40, temperature=0.0)
    print(f"it continues {text[:12]!r}: {tokenizer.decode(made, merges)!r}")
    if len(sys.argv) > 1:
        return

    roles = {"user": user, "assistant": assistant}
    chats = [(f"Who {deed} {what}?", f"It was {who}.") for deed, what, who in zip(DEEDS, WHO, WHO[1:], strict=False)]
    rows = []
    for question, answer in chats:
        turns = [("user", tokenizer.encode(question, merges)), ("assistant", tokenizer.encode(answer, merges))]
        rows.append(align.assistant_mask(turns, begin, roles, end))
    width = max(len(ids) for ids, _ in rows)
    ids = torch.tensor([row + [end] * (width - len(row)) for row, _ in rows])  # (B, T)
    mask = torch.tensor([row + [0] * (width - len(row)) for _, row in rows])
    optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
    for _ in range(150):
        loss = align.sft_loss(net(ids), ids, mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    right = 0
    for question, answer in chats:
        prompt = [begin, user, *tokenizer.encode(question, merges), end, assistant]
        reply = infer.generate(next_logits, prompt, uniforms=[0.5] * 30, temperature=0.0, stop_ids=[end])
        said = tokenizer.decode([token for token in reply if token < begin], merges)
        right += said == answer
    print(f"fine-tuning: {right} of {len(chats)} questions answered; the last: {question} {said}")
    print(f"all of it took {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
