"""The kernels in C: the same ids as Numba's, word for word; and what happens where they can't be compiled."""

import platform
import random
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from groundup.tokenizer import encode, engine, native
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.engine import Engine
from groundup.tokenizer.kernels.words import MIXER
from groundup.tokenizer.pattern import RULES
from groundup.tokenizer.train import train
from groundup.tokenizer.vocabulary import Vocabulary

PIECES = [
    "a", "b", "Z", "s", "'", "'s", "'ll", "'LL", "'S", "ſ", "'ſ", " ", "  ", "\n", "\r\n", "\t", "1", "12", "1234", "é", "ж", "日", "本",
    "\u00a0", "\u3000", "\u2028", "½", "٣", "“", "—", "🙂", "\u200d", "\u0301", "!", "?", "/", "//", "\0", "ǅ", "ª", " don't", "x" * 70,
    "A" * 300, " the", " of", " international", "。", "i̇", "\x85", "Ⅷ",
]  # fmt: skip
SCRIPTS = [
    "It's 1,234.5 o'clock; WE'LL see: naïve café, coöperate…", "Съешь ещё этих мягких французских булок, да выпей чаю 2026 г.",
    "ΞΕΣΚΕΠΑΖΩ την ψυχοφθόρα βδελυγμία", "私はガラスを食べられます。それは私を傷つけません。１２３", "我能吞下玻璃而不伤身体。一二三",
    "나는 유리를 먹을 수 있어요. 그래도 아프지 않아요", "أنا قادر على أكل الزجاج و هذا لا يؤلمني ٤٥٦", "אני יכול לאכול זכוכית",
    "मैं काँच खा सकता हूँ और मुझे उससे कोई चोट नहीं पहुंचती १२३", "ฉันกินกระจกได้ แต่มันไม่ทำให้ฉันเจ็บ", "Tôi có thể ăn thủy tinh",
    "👩\u200d👩\u200d👧\u200d👦🏳️\u200d🌈 e\u0301\u0301", "def f(x):\r\n\treturn x[1:]  # ok\n\n\n    /* … */ http://a.b/c?d=1&e=%20\n",
]  # fmt: skip
needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C compiler here")
BUILDS = [name for name in native.BUILDS if name != "avx2" or " avx2" in native.machine()]  # that run on this machine
LONG = 10_000  # characters of each hostile text


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


def built(vocabulary: Vocabulary, build: str) -> Engine:
    """Returns an engine that encodes with a build of words.c."""
    made = Engine(vocabulary)
    made._code = native.library(build)
    return made


def hostile(rng: random.Random) -> list[str]:
    """Returns long texts that are meant to hurt, and real sentences in many scripts at every place of a block of 64 bytes."""
    return [
        "a" * LONG, " " * LONG, "\n" * LONG, "\r\n" * LONG, "🙂\u200d" * LONG, "'" * LONG, "1" * LONG, "\0 " * LONG,
        "\u3000" * LONG, " \n" * LONG, "".join(rng.choices("abcdefgh", k=LONG)), rng.randbytes(LONG).decode("utf-8", "replace"),
        rng.randbytes(LONG).decode("latin-1"), " ".join(SCRIPTS * 10),
        *(" " * shift + text + "x" * shift for text in SCRIPTS for shift in range(0, 66, 3)),
    ]  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("build", BUILDS)
def test_each_build_is_what_its_name_says(build: str) -> None:
    code = native.library(build)
    assert code
    if platform.machine() == "x86_64":
        widest = 64 if " avx512bw" in native.machine() else 32 if " avx2" in native.machine() else 8
        assert code.width() == {"native": widest, "avx2": 32, "plain": 8}[build]


@needs_compiler
@pytest.mark.parametrize("pattern", RULES)
def test_ids_of_all_builds_are_those_of_numba(pattern: str, learnt: Tokenizer) -> None:
    rng = random.Random(pattern)
    texts = [*fuzz(rng, 60), *hostile(rng)]
    vocabulary = Vocabulary(learnt.merges, learnt._id_of_byte, pattern)
    wanted = Engine(vocabulary, native=False).encode_texts(texts)
    for build in BUILDS:
        fast = built(vocabulary, build)
        for _ in range(2):  # the second time every word is known
            for ours, theirs in zip(fast.encode_texts(texts), wanted, strict=True):
                assert np.array_equal(ours, theirs), build
        assert isinstance(fast._benches[0], native.NativeBench)


@needs_compiler
@pytest.mark.parametrize("build", BUILDS)
def test_labels_and_whole_words_of_others(build: str, learnt: Tokenizer) -> None:
    size = 256 + len(learnt.merges)
    whole = {b" the": 5, b"\0": 6, b" international": 7, "日本".encode(): 8, b"A" * 300: 9}
    labels = [3_000_000 + 7 * k for k in range(size)]  # too large for the 20 bits of a packed id
    vocabulary = Vocabulary(learnt.merges, learnt._id_of_byte, "gpt2", labels, whole)
    texts = fuzz(random.Random(1), 20) + [" the international \0 日本"]
    wanted = Engine(vocabulary, native=False).encode_texts(texts)
    for ours, theirs in zip(built(vocabulary, build).encode_texts(texts), wanted, strict=True):
        assert np.array_equal(ours, theirs)


@needs_compiler
@pytest.mark.parametrize("build", BUILDS)
def test_small_tables_begin_anew(build: str, learnt: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "MOST", native.LEAST + 1)
    monkeypatch.setattr(native, "OUT_ROOM", 1 << 13)
    vocabulary, rng = Vocabulary(learnt.merges, learnt._id_of_byte, "gpt2"), random.Random(2)
    texts = [" ".join("".join(rng.choices("abcdefgh", k=rng.randrange(1, 40))) for _ in range(4000)) for _ in range(20)]
    fast = built(vocabulary, build)
    found = fast.encode_texts(texts)
    for ours, theirs in zip(found, Engine(vocabulary, False).encode_texts(texts), strict=True):
        assert np.array_equal(ours, theirs)
    assert fast._memory
    assert max(len(fast._memory.words.arrays[name]) for name in native.PLACES) <= 8 << (native.LEAST + 1)


@needs_compiler
@pytest.mark.parametrize("build", BUILDS)
def test_threads_that_learn_the_same_words_at_once(
    build: str, learnt: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables grow, are full and begin anew under four threads that encode the same new words in an order of their own."""
    monkeypatch.setattr(native, "LEAST", 7)
    monkeypatch.setattr(native, "MOST", 10)
    monkeypatch.setattr(native, "ARENA", 1 << 13)
    steps = []
    larger, anew = native.Memory._larger, native.Memory._anew

    def noting_larger(memory: native.Memory, full: native.Words) -> native.Words:
        steps.append("larger")
        return larger(memory, full)

    def noting_anew(memory: native.Memory) -> native.Words:
        steps.append("anew")
        return anew(memory)

    monkeypatch.setattr(native.Memory, "_larger", noting_larger)
    monkeypatch.setattr(native.Memory, "_anew", noting_anew)
    rng = random.Random(build)
    words = ["".join(rng.choices("abcdéж日", k=rng.choice([2, 4, 7, 12, 30]))) for _ in range(6000)] + ["\0", "x\0y"]
    texts = [" ".join(rng.choices(words, k=400)) for _ in range(60)]
    wanted = {text: list(learnt._stream(text)) for text in texts}
    with ThreadPoolExecutor(4) as pool:
        for _ in range(3):
            fast = built(Vocabulary(learnt.merges, learnt._id_of_byte, "gpt2"), build)
            orders = [rng.sample(texts, len(texts)) for _ in range(4)]
            for order, found in zip(orders, pool.map(fast.encode_texts, orders), strict=True):
                assert [ids.tolist() for ids in found] == [wanted[text] for text in order]
            again = fast.encode_texts(texts * 10, 3)
            assert [ids.tolist() for ids in again] == [wanted[text] for text in texts * 10]
    assert steps.count("larger") > 20
    assert steps.count("anew") > 6  # three of them to begin with


@needs_compiler
def test_a_lock_that_nobody_gives_back_costs_only_time(learnt: Tokenizer) -> None:
    """As in the child of a process that forked while a thread of its was writing."""
    vocabulary, text = Vocabulary(learnt.merges, learnt._id_of_byte, "gpt2"), " ".join(SCRIPTS * 10)
    fast = Engine(vocabulary)
    fast.encode_texts(["a word"])
    assert fast._memory
    words = fast._memory.words
    words.lock, used = 1, (words.small_used, words.large_used)
    for _ in range(2):
        assert fast.encode_texts([text])[0].tolist() == list(learnt._stream(text))
    assert (words.small_used, words.large_used) == used
    words.lock = 0
    assert fast.encode_texts([text])[0].tolist() == list(learnt._stream(text))
    assert words.small_used > used[0]
    assert words.large_used > used[1]


def twins() -> tuple[str, str]:
    """Returns two words of 24 bytes with equal keys in the tables of words.c and of kernels/words.py, by the hash's own steps."""

    def step(state: int, word: bytes) -> int:
        state = ((state ^ int.from_bytes(word, "little")) * int(MIXER)) % (1 << 64)
        return state ^ (state >> 29)

    starts = [f" {attempt:07d}".encode() for attempt in range(100_000)]
    states = [step(24, start) ^ step(24, b" abcdefg") ^ int.from_bytes(b"hijklmno", "little") for start in starts]
    found = (start + state.to_bytes(8, "little") for start, state in zip(starts, states, strict=True))
    twin = next(word for word in found if all(32 < byte < 127 for byte in word[1:]))
    return " abcdefghijklmnopqrstuvw", (twin + b"pqrstuvw").decode()


@pytest.mark.parametrize("build", [*(BUILDS if native.library() else ()), None])
def test_words_with_one_hash_stay_two(build: str | None, learnt: Tokenizer) -> None:
    vocabulary = Vocabulary(learnt.merges, learnt._id_of_byte, "whitespace")
    engine = built(vocabulary, build) if build else Engine(vocabulary, native=False)
    one, other = twins()
    for text in (one, other, one + other, other + one, one):
        raw = b"".join(learnt.token_bytes(token) for token in engine.encode_texts([text])[0].tolist())
        assert raw.decode() == text


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


def test_without_a_compiler_a_tokenizer_gives_the_same_ids(learnt: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """All the public ways to ids, by Numba alone; what is wanted comes from the path that compiles nothing."""
    texts = [*fuzz(random.Random(3), 20), *SCRIPTS, "\ud800 alone"]
    wanted = [list(learnt._stream(text)) for text in texts]
    monkeypatch.setattr(engine, "library", lambda: None)
    monkeypatch.setattr(encode, "WORTH_COMPILING", 0)
    monkeypatch.setattr(encode, "SHORT_TEXT", 0)
    without = Tokenizer(learnt.merges, (), "gpt2")
    for threads in (1, 2):
        assert [ids.tolist() for ids in without.encode_batch(texts, threads)] == wanted
    assert [without.encode_ordinary(text) for text in texts] == wanted
    assert without._engine._benches
    assert not any(isinstance(b, native.NativeBench) for b in without._engine._benches)


@needs_compiler
@pytest.mark.slow
@pytest.mark.parametrize("build", BUILDS)
def test_no_byte_is_read_or_written_beyond_its_array(build: str, tmp_path: Path) -> None:
    """The fuzz of this file in a process whose words.c is compiled with the sanitizers."""
    compiler = shutil.which("gcc") or pytest.skip("the sanitizers are those of gcc")
    made = tmp_path / "words.so"
    check = ["-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    native.compile_c(compiler, [*native.OPTIONS, *native.BUILDS[build], *check], made)
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
        "    texts = [*t.fuzz(random.Random(pattern), 40), *t.hostile(random.Random(pattern))]\n"
        "    for threads in (1, 3): engine.encode_texts(texts, threads)\n"
        "print('clean')\n"
    )
    environment = {"LD_PRELOAD": " ".join(preload), "ASAN_OPTIONS": "detect_leaks=0", "PATH": "/usr/bin:/bin",
                   "PYTHONPATH": str(native.KERNELS.parents[2]), "HOME": str(Path.home())}  # fmt: skip
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=False,
                          cwd=native.KERNELS.parents[2])  # fmt: skip
    assert done.stdout.endswith("clean\n"), done.stderr[-3000:]
