"""Runs in a Python that has llama-cpp-python: what llama.cpp makes of a GGUF file, as JSON on standard output.

usage: python run_llama_cpp.py < {"model": path, "texts": [str], "prompts": [[id]], "tokens": count, "logits": path or null}
"""

import json
import sys

import numpy as np
from llama_cpp import Llama


def main() -> None:
    asked = json.load(sys.stdin)
    llama = Llama(
        asked["model"], n_ctx=0, n_threads=2, logits_all=True, verbose=False, type_k=0, type_v=0
    )  # a cache in fp32
    answers = []
    scores = []
    for prompt in asked["prompts"]:
        llama.reset()
        llama.eval(prompt)
        scores.append(llama.scores[: len(prompt)].copy())
        ids = list(prompt)
        for _ in range(asked["tokens"]):
            ids.append(int(llama.scores[len(ids) - 1].argmax()))
            llama.eval(ids[-1:])
        answers.append(ids)
    if asked.get("logits"):
        np.savez(asked["logits"], *scores)
    json.dump(
        {
            "ids": [llama.tokenize(text.encode(), add_bos=False, special=False) for text in asked["texts"]],
            "answers": answers,
            "metadata": llama.metadata,
        },
        sys.stdout,
    )


if __name__ == "__main__":
    main()
