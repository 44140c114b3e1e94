"""The fastest way from text to ids: kernels/words.c, compiled once on each machine that has a C compiler."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from groundup.tokenizer.vocabulary import Vocabulary

__all__ = ["Memory", "NativeBench", "library"]

KERNELS = Path(__file__).parent / "kernels"
OPTIONS = ("-O3", "-fPIC", "-shared")
# What a build may use of the processor. Only tests ask for another than the first: split.c makes masks in three ways, a machine in one.
BUILDS = {"native": ("-march=native",), "avx2": ("-march=haswell",), "plain": ()}
DONE, ROOM, OUT, MEMORY = range(4)  # what encode() in words.c stopped for
LEAST, MOST = 11, 18  # a table has 2**11 to 2**18 lines of 64 bytes, 16 MB; when the largest is full, both begin anew
PLACES = {"small": 4, "large": 2}  # words in a line
FULL = 0.5  # the share of places that may be taken: a word that finds its line full stands in the next
ARENA = 1 << 22  # numbers in an arena, 16 MB: memory that no word stands in is never touched
SLACK = 1 << 10  # numbers that the last word may need beyond it, and what is read behind that
OUT_PAGE, OUT_ROOM = 1 << 21, 1 << 18  # ids of a page, and what must be left of it for the next task
OUT_COPIED = 1 << 14  # fewer ids than this are copied
PAGE = 1 << 21  # bytes of a large page


def fields(names: str) -> tuple[tuple[str, type], ...]:
    """Returns the fields of a structure of words.c; an asterisk marks an address."""
    return tuple((name.rstrip("*"), ctypes.c_void_p if "*" in name else ctypes.c_int64) for name in names.split())


class Words(ctypes.Structure):
    """The words that an engine knows and their ids: two tables and an arena, which all its threads read and write."""

    _fields_ = fields("""small* large* small_shift large_shift small_most large_most arena* arena_most
    small_used large_used arena_used full lock""")

    def __init__(self, bits: dict[str, int], arena: int) -> None:
        """Makes empty ones: tables of 2**bits lines, room for so many numbers in the arena."""
        super().__init__(arena_most=arena)
        self.arrays = {name: roomy(8 << bits[name], np.uint64) for name in PLACES}
        self.arrays["arena"] = roomy(arena + SLACK, np.int32)
        for name, array in self.arrays.items():
            setattr(self, name, array.ctypes.data)
        for name, places in PLACES.items():
            setattr(self, f"{name}_shift", 64 - bits[name])
            setattr(self, f"{name}_most", int(FULL * (places << bits[name])))


class Work(ctypes.Structure):
    """What one thread has in hand."""

    _fields_ = fields("""text* edges* edge last at out* done room before marks* rules kinds* letters* squares* pairs* likely* pair_shift
    labels* words* heads* tails* waiting* groups wanted""")


def machine() -> str:
    """Returns what this machine's processor can do: code made for it may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        return platform.processor()


@functools.cache
def library(build: str = "native") -> ctypes.CDLL | None:
    """Returns the compiled words.c; None where there is no C compiler, or it fails, which is said once."""
    options = (*OPTIONS, *BUILDS[build])
    compiler = shutil.which(os.environ.get("CC") or "cc") or shutil.which("gcc") or shutil.which("clang")
    sources = [(KERNELS / name).read_bytes() for name in ("words.c", "split.c")]
    facts = (machine(), compiler, *options)
    version = hashlib.sha256(b"\0".join([*sources, *(str(fact).encode() for fact in facts)])).hexdigest()[:16]
    try:
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        path = cache / "groundup" / "kernels" / f"words-{version}.so"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                compile_c(compiler, options, Path(scratch) / path.name).replace(path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder, or what the compiler said
        print(f"tokenizer: {error}; encoding with Numba instead, at half the speed", file=sys.stderr)
        return None


def compile_c(compiler: str | None, options: Sequence[str], made: Path) -> Path:
    """Returns the file it made of words.c. Raises: RuntimeError with what the compiler said."""
    if compiler is None:
        raise RuntimeError("no C compiler (cc, gcc or clang) is here")
    command = [compiler, *options, "-o", str(made), str(KERNELS / "words.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{compiler} failed ({(done.stderr.splitlines() or ['it said nothing'])[0]})")
    return made


def roomy(size: int, kind: type, make: Callable[..., np.ndarray] = np.zeros) -> np.ndarray:
    """Returns an array, of zeros unless another way to `make` it is given, that begins where a large page of memory may.

    NumPy asks for large pages from 4 MB on: without them a processor spends more on finding the table's pages than on the table.
    """
    extra = PAGE // np.dtype(kind).itemsize if size * np.dtype(kind).itemsize > PAGE // 4 else 8
    raw = make(size + extra, kind)
    skip = -raw.ctypes.data % (raw.itemsize * extra) // raw.itemsize
    return raw[skip : skip + size]


class Memory:
    """The words that an engine's threads know at the time. Full ones are followed by larger ones, the largest by empty ones."""

    def __init__(self, vocabulary: Vocabulary, code: ctypes.CDLL) -> None:
        self.vocabulary, self.code, self.lock = vocabulary, code, threading.Lock()
        self.words = self._anew()

    def after(self, full: Words) -> Words:
        """Returns the words that follow full ones. Whoever still reads those holds on to them."""
        with self.lock:
            if self.words is full:
                self.words = self._larger(full)
            return self.words

    def _larger(self, full: Words) -> Words:
        """Returns the same words in tables of double the size, where more than half of what may be taken is."""
        bits = {name: 64 - getattr(full, f"{name}_shift") for name in PLACES}
        bits = {n: bits[n] + (2 * getattr(full, f"{n}_used") > getattr(full, f"{n}_most")) for n in PLACES}
        if max(bits.values()) > MOST or full.arena_used >= full.arena_most:
            return self._anew()
        words = Words(bits, full.arena_most)
        self.code.move(ctypes.byref(full), ctypes.byref(words))
        return words

    def _anew(self) -> Words:
        """Returns only the words that have an id of their own."""
        whole, labels = self.vocabulary.whole, self.vocabulary.whole_labels
        bits = max(LEAST, (4 * len(labels)).bit_length())
        words = Words(dict.fromkeys(PLACES, bits), ARENA + int(whole.edges[-1]) + 4 * len(labels))
        for start, stop, label in zip(whole.edges.tolist(), whole.edges[1:].tolist(), labels.tolist()):
            self.code.know(
                ctypes.byref(words),
                ctypes.c_void_p(whole.buffer.ctypes.data + start),
                ctypes.c_int64(stop - start),
                ctypes.c_int32(label),
            )
        return words


class NativeBench:
    """What one thread encodes with, beside the words that all know: room for ids, and where it is in the text."""

    def __init__(self, memory: Memory) -> None:
        self.memory, self.work, vocabulary = memory, Work(), memory.vocabulary
        self.kept: dict[str, np.ndarray] = {}
        for name in ("kinds", "letters", "squares", "pairs", "likely", "labels"):
            self._keep(name, getattr(vocabulary, name))
        for name in ("heads", "tails"):
            self._keep(name, np.full(vocabulary.size, -1, np.int32))
        self._keep("waiting", np.zeros((vocabulary.size >> 6) + 1, np.uint64))
        self.work.rules, self.work.pair_shift = vocabulary.rules, vocabulary.shift
        self.work.groups = len(self.kept["waiting"])
        self.used = 0
        self._new_out(OUT_PAGE)

    def _keep(self, name: str, array: np.ndarray) -> None:
        """Holds on to an array, and gives words.c its address."""
        self.kept[name] = array
        setattr(self.work, name, array.ctypes.data)

    def _new_out(self, size: int) -> None:
        """Begins a page for ids. Those before belong to whoever has them: fresh memory costs as much as encoding, but in large pages."""
        self.page, self.used = roomy(size + 16, np.int32, np.empty), 0

    def _place_out(self) -> None:
        """Lets words.c write behind what the page holds."""
        if len(self.page) - 16 - self.used < OUT_ROOM:
            self._new_out(OUT_PAGE)
        self.work.room = len(self.page) - 16 - self.used
        self.work.out = self.page.ctypes.data + 4 * self.used

    def _taken(self) -> np.ndarray:
        """Returns the ids that words.c has written: few as a copy, so that a short text's don't hold a page."""
        ids = self.page[self.used : self.used + self.work.done]
        if len(ids) < OUT_COPIED:
            return ids.copy()
        self.used += len(ids)
        return ids

    def encode(self, buffer: np.ndarray, edges: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of the texts between two edges, and how many there are up to each of the edges after."""
        work, words, marks, found = self.work, self.memory.words, np.zeros(len(edges), np.int64), []
        work.text, work.edges, work.marks = buffer.ctypes.data, edges.ctypes.data, marks.ctypes.data
        work.edge, work.last, work.at, work.done, work.before, stopped = first, last, int(edges[first]), 0, 0, ROOM
        self._place_out()
        while stopped != DONE:
            work.words = ctypes.addressof(words)
            stopped = self.memory.code.encode(ctypes.byref(work))
            if stopped == ROOM:
                words = self.memory.after(words)
            elif stopped == MEMORY:
                raise MemoryError(f"a word of {work.wanted:,} bytes")
            else:
                found.append(self._taken())
                work.before, work.done = work.before + work.done, 0
                if stopped == OUT and work.wanted > OUT_ROOM:
                    self._new_out(2 * work.wanted)
                self._place_out()
        return (found[0] if len(found) == 1 else np.concatenate(found)), marks[first + 1 : last + 1]
