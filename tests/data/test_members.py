"""A WARC has one gzip member a record: where one is damaged, all others come out, the loss is named, and no file makes that slow."""

import gzip
import io
import json
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from groundup.base.errors import DataError
from groundup.base.records import read_documents
from groundup.data.build import build
from groundup.data.config import BuildConfig, ReadConfig
from groundup.data.formats import Problem, Record, SourceFile
from groundup.data.members import AGAIN, CHUNK_BYTES, SEARCH_BYTES, Members
from groundup.data.read import read_file

Warc = Callable[..., bytes]
COUNT, BAD = 24, 7  # records, and the one that is damaged
ANOTHER = gzip.compress(b"another file", mtime=0)
HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"


def page(n: int) -> bytes:
    """Words that compress as text does; the longest take several reads."""
    dice = random.Random(n)
    words = [f"{dice.randrange(4000)}th" for _ in range(10_000 if n == BAD else 100 + 200 * (n % 5))]
    return f"<p>{' '.join(words)}</p>".encode()


@pytest.fixture(scope="module")
def bodies() -> list[bytes]:
    return [page(n) for n in range(COUNT)]


@pytest.fixture
def members(warc: Warc, bodies: list[bytes]) -> list[bytes]:
    return [warc((f"https://a.example/{n}", "text/html", body)) for n, body in enumerate(bodies)]


def read(folder: Path, data: bytes, name: str = "a.warc.gz") -> tuple[list[Record], list[Problem]]:
    (folder / name).write_bytes(data)
    items = list(read_file(SourceFile(folder / name, name), ReadConfig()))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Problem)]


def numbers(records: list[Record]) -> list[int]:
    return [int(r.meta["url"].rpartition("/")[2]) for r in records]


def flipped(data: bytes, at: int, bit: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


OTHERS = [n for n in range(COUNT) if n != BAD]


@pytest.mark.parametrize(
    ("at", "bit"), [(0, 1), (1, 0), (2, 3), (3, 2), (3, 3), (3, 6), (10, 1), (400, 5), (15_000, 3), (-8, 0), (-1, 6)]
)
def test_a_flipped_bit_takes_its_record_alone(
    tmp_path: Path, members: list[bytes], bodies: list[bytes], at: int, bit: int
) -> None:
    start, size = len(b"".join(members[:BAD])), len(members[BAD])
    assert size > 2 * CHUNK_BYTES
    members[BAD] = flipped(members[BAD], at % size, bit)
    records, problems = read(tmp_path, b"".join(members))
    assert numbers(records) == OTHERS
    assert [r.payload for r in records] == [bodies[n] for n in OTHERS]
    assert [(p.rule, p.damage) for p in problems] == [("damaged", True)]
    assert "truncated or corrupt" in problems[0].message
    assert f"{size:,} bytes from byte {start:,} on are left out" in problems[0].message


def test_wherever_the_bit_is(tmp_path: Path, members: list[bytes], bodies: list[bytes]) -> None:
    """Anywhere in the file, its first and its last record too: the record is whole, or not there."""
    data, dice = b"".join(members), random.Random(4)
    ends = [len(b"".join(members[: n + 1])) for n in range(COUNT)]
    for _ in range(150):
        at = dice.randrange(2, len(data))  # behind what says that it is gzip
        bad = next(n for n, end in enumerate(ends) if at < end)
        records, problems = read(tmp_path, flipped(data, at, dice.randrange(8)))
        found = numbers(records)
        assert found in ([n for n in range(COUNT) if n != bad], list(range(COUNT)))
        assert [r.payload for r in records] == [bodies[n] for n in found]
        assert [p.rule for p in problems] == ["damaged"] * (COUNT - len(found))


@pytest.mark.parametrize("rubbish", [b"x", b"\x1f\x8b\x08\0", random.Random(1).randbytes(200_000), ANOTHER,
                                     zlib.compress(b"words " * 90), HEADER * 9000])  # fmt: skip
def test_garbage_between_two_members(tmp_path: Path, members: list[bytes], rubbish: bytes) -> None:
    data = b"".join([*members[:BAD], rubbish, *members[BAD:]])
    records, problems = read(tmp_path, data)
    assert numbers(records) == list(range(COUNT))
    assert {p.rule for p in problems} == {"damaged"}
    if rubbish != ANOTHER:  # which is mixed up, not damaged
        lost = f"{len(rubbish):,} bytes from byte {len(b''.join(members[:BAD])):,} on are left out"
        assert [lost in p.message for p in problems] == [True]


def test_zeros_between_members_are_padding(tmp_path: Path, members: list[bytes]) -> None:
    records, problems = read(tmp_path, bytes(100_000).join(members))
    assert (numbers(records), problems) == (list(range(COUNT)), [])


def test_a_member_cut_short_within_the_file_and_at_its_end(tmp_path: Path, members: list[bytes]) -> None:
    records, problems = read(
        tmp_path, b"".join([*members[:BAD], members[BAD][:-9000], *members[BAD + 1 : -1], members[-1][:-20]])
    )
    assert numbers(records) == OTHERS[:-1]
    assert [p.rule for p in problems] == ["damaged", "damaged"]
    assert "bytes from byte" in problems[0].message
    assert "within a gzip member); the 22 documents before that are used" in problems[1].message


def test_many_damages_are_told_one_by_one(tmp_path: Path, members: list[bytes]) -> None:
    for n in range(0, COUNT, 3):
        members[n] = flipped(members[n], len(members[n]) // 2)
    records, problems = read(tmp_path, b"".join(members))
    assert numbers(records) == [n for n in range(COUNT) if n % 3]
    assert [p.rule for p in problems] == ["damaged"] * 8


def test_of_one_member_that_is_damaged_what_stands_before_is_used(tmp_path: Path, members: list[bytes]) -> None:
    plain = b"".join(map(gzip.decompress, members * 8))
    packed = gzip.compress(plain, mtime=0)
    records, problems = read(tmp_path, flipped(packed, len(packed) // 2 + 3, 4))
    found = numbers(records)
    assert found[: 3 * COUNT] == list(range(COUNT)) * 3
    assert problems[-1].rule == "damaged"
    assert f"the {len(found)} documents before that are used" in problems[-1].message


def test_other_files_end_at_the_damage(tmp_path: Path) -> None:
    """Behind it a text could go on in the middle of a word."""
    texts = [gzip.compress(f"{n} words. ".encode() * 9000) for n in range(3)]
    records, problems = read(tmp_path, texts[0] + flipped(texts[1], 200) + texts[2], "a.txt.gz")
    assert "2 words" not in "".join(str(r.payload) for r in records)
    assert [p.rule for p in problems] == ["damaged"]


class Counted(io.BytesIO):
    """A file that counts what is read."""

    count = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        self.count += len(data)
        return data


def endless(count: int) -> bytes:
    """Members within members: each begins like a record, takes the others' beginnings for its text, and has no end."""
    text = b"WARC/1.0\r\n" + HEADER
    return (HEADER + b"\0" + struct.pack("<HH", len(text), len(text) ^ 0xFFFF) + text[:10]) * count


@pytest.mark.parametrize("hostile", [
    lambda size: b"\x1f\x8b\x08\0" * (size // 4), lambda size: b"\x1f\x8b\x08\x08" * (size // 4),
    lambda size: (gzip.compress(b"WARC/1.0\r\n" * 9, mtime=0)[:-9] + b"!") * (size // 40), lambda size: endless(size // 25),
], ids=["magic numbers", "headers without end", "records that fail", "records without end"])  # fmt: skip
def test_false_members_take_linear_time(hostile: Callable[[int], bytes]) -> None:
    data = hostile(1 << 20)
    file = Counted(data)
    members, damages = Members(file), 0
    while True:
        try:
            while members.read(1 << 16):
                pass
            break
        except (EOFError, zlib.error):
            damages += 1
            if not members.skip(b"WARC/"):
                break
    assert damages
    # Each damage costs a block of the search and a chunk of the reading beside what it reads anew of the file, which is bounded.
    steps = (AGAIN + 1) * len(data) / CHUNK_BYTES
    assert damages <= steps + 400
    assert file.count <= (AGAIN + 2) * len(data) + (steps + 400) * (SEARCH_BYTES + CHUNK_BYTES)


def test_a_build_tells_the_loss_and_the_bytes_are_the_same(
    tmp_path: Path, members: list[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    members[BAD] = flipped(members[BAD], 9000)
    (tmp_path / "a.warc.gz").write_bytes(b"".join(members))
    config = BuildConfig(
        project=tmp_path / "one", input=(tmp_path / "a.warc.gz",), filters="none", heldout=0.0, processes=1
    )
    with pytest.raises(DataError, match=r"a.warc.gz: truncated or corrupt .* bytes from byte .* --read.keep-damaged"):
        build(config)
    config = replace(config, read=replace(config.read, keep_damaged=True))
    one = build(config).path
    assert "left out: a.warc.gz truncated or corrupt" in capsys.readouterr().out
    two = build(replace(config, project=tmp_path / "two", processes=2)).path
    assert sum(1 for _ in read_documents(one / "documents.parquet")) == COUNT - 1
    assert json.loads((one / "stats.json").read_text())["problems"][0]["rule"] == "damaged"
    for name in ("documents.parquet", "dropped.parquet", "stats.json"):
        assert (one / name).read_bytes() == (two / name).read_bytes()
