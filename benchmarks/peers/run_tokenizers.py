"""The peers' side of benchmarks/tokenizer.py, in an environment of their own: a job a line in JSON, an answer a line.

    {"do": "train", "peer": "rustbpe", "corpus": FILE, "size": 32768, "pattern": REGEX}
    {"do": "encode", "peer": "gigatoken", "corpus": FILE, "bytes": N, "passes": 2, "threads": 1, "json": FILE, "ranks": FILE}
    {"do": "decode", ...}

Each peer gets its fastest documented call, and each pass the documents as new strings: so all make UTF-8 of them while the clock runs.
"""

import json
import os
import sys
import time
import zlib
from pathlib import Path

import numpy as np

DOCUMENT = 1 << 16  # bytes: where documents end, at the next line end


def documents(path, size):
    """Returns the first `size` bytes of a corpus as a list of texts."""
    raw = Path(path).read_bytes()[:size]
    texts, start = [], 0
    while start < len(raw):
        stop = raw.find(b"\n", min(start + DOCUMENT, len(raw))) + 1 or len(raw)
        texts.append(raw[start:stop].decode("utf-8", "ignore"))
        start = stop
    return texts


def clock(call):
    """Returns the result of a call, its seconds on the wall and of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = call()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def checksum(arrays):
    """Returns how many ids there are, and a checksum of them."""
    flat = np.concatenate([np.asarray(ids, dtype=np.int32) for ids in arrays])
    return len(flat), zlib.crc32(flat.tobytes())


def ranks_of(path):
    import base64

    rows = (line.split() for line in Path(path).read_bytes().splitlines())
    return {base64.b64decode(token): int(rank) for token, rank in rows}


def encoder(job):
    """Returns the call that encodes texts, and the one that makes arrays of its result."""
    peer, threads = job["peer"], job["threads"]
    if peer == "gigatoken":
        import gigatoken

        tokenizer = gigatoken.Tokenizer.from_json(Path(job["json"]).read_bytes())
        return lambda texts: tokenizer.encode_batch(texts, parallel=threads > 1), lambda found: [
            np.asarray(ids) for ids in found
        ]
    if peer == "fastokens":
        from fastokens._native import Tokenizer

        tokenizer = Tokenizer.from_file(job["json"])
        return lambda texts: tokenizer.encode_batch_flat(texts), lambda found: [np.frombuffer(found[0], np.uint32)]
    if peer == "tokenizers":
        from tokenizers import Tokenizer

        tokenizer = Tokenizer.from_file(job["json"])
        return lambda texts: tokenizer.encode_batch_fast(texts, add_special_tokens=False), lambda found: [
            e.ids for e in found
        ]
    import tiktoken

    tokenizer = tiktoken.Encoding(
        "gpt2", pat_str=job["pattern"], mergeable_ranks=ranks_of(job["ranks"]), special_tokens={}
    )
    return lambda texts: tokenizer.encode_ordinary_batch(texts, num_threads=threads), lambda found: found


def encode(job):
    call, arrays = encoder(job)
    passes = []
    for _ in range(job["passes"]):
        texts = documents(job["corpus"], job["bytes"])
        found, wall, cpu = clock(lambda: call(texts))  # noqa: B023 - called at once
        passes.append([wall, cpu])
    tokens, crc = checksum(arrays(found))
    return {"passes": passes, "tokens": tokens, "crc": crc, "bytes": sum(len(t.encode()) for t in texts)}


def decode(job):
    texts = documents(job["corpus"], job["bytes"])
    call, arrays = encoder({**job, "peer": "gigatoken", "threads": 1})
    ids = np.concatenate(arrays(call(texts))).astype(np.uint32)
    if job["peer"] == "gigatoken":
        import gigatoken

        join, given = gigatoken.Tokenizer.from_json(Path(job["json"]).read_bytes()).decode, ids
    else:
        import tiktoken

        ranks = ranks_of(job["ranks"])
        join = tiktoken.Encoding("gpt2", pat_str=job["pattern"], mergeable_ranks=ranks, special_tokens={}).decode_bytes
        given = ids.tolist()
    passes = []
    for _ in range(job["passes"]):
        found, wall, cpu = clock(lambda: join(given))
        passes.append([wall, cpu])
    return {"passes": passes, "bytes": len(found), "crc": zlib.crc32(found)}


def train(job):
    peer, size = job["peer"], job["size"]
    if peer == "gigatoken":
        import gigatoken

        call = lambda: gigatoken.train_bpe(gigatoken.TextFileSource([job["corpus"]]), size, [])  # noqa: E731
        count = lambda found: len(found[0])  # noqa: E731
    elif peer == "rustbpe":
        import rustbpe

        tokenizer = rustbpe.Tokenizer()
        texts = documents(job["corpus"], 1 << 40)
        call = lambda: tokenizer.train_from_iterator(iter(texts), size, pattern=job["pattern"])  # noqa: E731
        count = lambda found: len(tokenizer.get_mergeable_ranks())  # noqa: E731
    elif peer == "bpeasy":
        import bpeasy

        texts = documents(job["corpus"], 1 << 40)
        call = lambda: bpeasy.train_bpe(iter(texts), job["pattern"], 1000, size)  # noqa: E731
        count = len
    else:
        from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=alphabet)
        texts = documents(job["corpus"], 1 << 40)
        call = lambda: tokenizer.train_from_iterator(iter(texts), trainer)  # noqa: E731
        count = lambda found: tokenizer.get_vocab_size()  # noqa: E731
        assert Regex
    found, wall, cpu = clock(call)
    return {"passes": [[wall, cpu]], "vocabulary": count(found)}


def main():
    import resource

    for line in sys.stdin:
        job = json.loads(line)
        answer = {"encode": encode, "decode": decode, "train": train}[job["do"]](job)
        answer["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    main()
