"""The kernels in C: the same ids as Numba's, word for word; and what happens where they can't be compiled."""

import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from groundup.tokenizer import native
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.engine import Engine
from groundup.tokenizer.pattern import RULES
from groundup.tokenizer.train import train
from groundup.tokenizer.vocabulary import Vocabulary

PIECES = [
    "a", "b", "Z", "s", "'", "'s", "'ll", "'LL", "'S", "ſ", "'ſ", " ", "  ", "\n", "\r\n", "\t", "1", "12", "1234", "é", "ж", "日", "本",
    "\u00a0", "\u3000", "\u2028", "½", "٣", "“", "—", "🙂", "\u200d", "\u0301", "!", "?", "/", "//", "\0", "ǅ", "ª", " don't", "x" * 70,
    "A" * 300, " the", " of", " international", "。", "i̇", "\x85", "Ⅷ",
]  # fmt: skip
needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C compiler here")


def fuzz(rng: random.Random, count: int) -> list[str]:
    """Returns texts of what splitters trip over, and of any characters at all."""
    texts = ["".join(rng.choices(PIECES, k=rng.randrange(1, 300))) for _ in range(count)]
    for _ in range(count):
        limits = [rng.choice([0x80, 0x800, 0x3000, 0xD800, 0x110000]) for _ in range(rng.randrange(1, 200))]
        texts.append("".join(chr(c) for c in map(rng.randrange, limits) if not 0xD800 <= c < 0xE000))
    return [
        *texts,
        "",
        "\0" * 300,
        "a\0",
        "\0",
        "'",
        "a" * 9000,
        " " * 9000,
        "\n" * 9000,
        "🙂\u200d" * 2000,
        "".join(texts),
    ]


@pytest.fixture(scope="module")
def learnt() -> Tokenizer:
    return train(["the cats of the house don't sleep 12345 日本 жж \n\n  1/2", *PIECES] * 3, 340, "gpt2", specials=())


@needs_compiler
@pytest.mark.parametrize("pattern", RULES)
def test_ids_are_those_of_numba(pattern: str, learnt: Tokenizer) -> None:
    texts = fuzz(random.Random(pattern), 60)
    vocabulary = Vocabulary(learnt.merges, learnt._id_of_byte, pattern)
    fast, slow = Engine(vocabulary), Engine(vocabulary, native=False)
    for _ in range(2):  # the second time every word is known
        for ours, theirs in zip(fast.encode_texts(texts), slow.encode_texts(texts), strict=True):
            assert np.array_equal(ours, theirs)
    assert isinstance(fast._benches[0], native.NativeBench)


@needs_compiler
def test_labels_and_whole_words_of_others(learnt: Tokenizer) -> None:
    size = 256 + len(learnt.merges)
    whole = {b" the": 5, b"\0": 6, b" international": 7, "日本".encode(): 8, b"A" * 300: 9}
    labels = [3_000_000 + 7 * k for k in range(size)]  # too large for the 20 bits of a packed id
    vocabulary = Vocabulary(learnt.merges, learnt._id_of_byte, "gpt2", labels, whole)
    texts = fuzz(random.Random(1), 20) + [" the international \0 日本"]
    for ours, theirs in zip(
        Engine(vocabulary).encode_texts(texts), Engine(vocabulary, False).encode_texts(texts), strict=True
    ):
        assert np.array_equal(ours, theirs)


@needs_compiler
def test_small_tables_begin_anew(learnt: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "MOST", native.LEAST + 1)
    monkeypatch.setattr(native, "OUT_ROOM", 1 << 13)
    vocabulary, rng = Vocabulary(learnt.merges, learnt._id_of_byte, "gpt2"), random.Random(2)
    texts = [" ".join("".join(rng.choices("abcdefgh", k=rng.randrange(1, 40))) for _ in range(4000)) for _ in range(20)]
    fast = Engine(vocabulary)
    found = fast.encode_texts(texts)
    for ours, theirs in zip(found, Engine(vocabulary, False).encode_texts(texts), strict=True):
        assert np.array_equal(ours, theirs)
    assert max(map(len, (fast._benches[0].kept["small"], fast._benches[0].kept["large"]))) <= 8 << (native.LEAST + 1)  # type: ignore[union-attr]


def test_without_a_compiler_it_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert native.library.__wrapped__() is None
    assert "no C compiler" in capsys.readouterr().err
    monkeypatch.setattr(shutil, "which", lambda name: sys.executable)  # a "compiler" that knows no C
    assert native.library.__wrapped__() is None
    assert "failed" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.so"))


@needs_compiler
@pytest.mark.slow
def test_no_byte_is_read_or_written_beyond_its_array(tmp_path: Path) -> None:
    """The fuzz of this file in a process whose words.c is compiled with the sanitizers."""
    compiler = shutil.which("gcc") or pytest.skip("the sanitizers are those of gcc")
    made = tmp_path / "words.so"
    check = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    subprocess.run([compiler, *native.OPTIONS, *check, "-o", made, native.KERNELS / "words.c"], check=True)
    preload = [subprocess.run([compiler, f"-print-file-name=lib{name}.so"], capture_output=True, text=True, check=True).stdout.strip()
               for name in ("asan", "ubsan")]  # fmt: skip
    script = (
        "import ctypes, random, sys; sys.path.insert(0, 'tests/tokenizer')\n"
        "import test_native as t\n"
        f"code = ctypes.CDLL({str(made)!r})\n"
        "merges = [(97, 97), (256, 256), (257, 257), (32, 116), (259, 104), (230, 151), (120, 120)]\n"
        "for pattern in t.RULES:\n"
        "    engine = t.Engine(t.Vocabulary(merges, bytes(range(256)), pattern))\n"
        "    engine._code = code\n"
        "    for turn in range(2): engine.encode_texts(t.fuzz(random.Random(pattern), 40))\n"
        "print('clean')\n"
    )
    environment = {"LD_PRELOAD": " ".join(preload), "ASAN_OPTIONS": "detect_leaks=0", "PATH": "/usr/bin:/bin",
                   "PYTHONPATH": str(native.KERNELS.parents[2]), "HOME": str(Path.home())}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False,
                          cwd=native.KERNELS.parents[2])  # fmt: skip
    assert done.stdout.endswith("clean\n"), done.stderr[-3000:]
