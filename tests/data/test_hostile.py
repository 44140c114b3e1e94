"""Hostile and broken sources: mixed-up WARCs, bombs within records, huge documents, mixed encodings, links in circles."""

import gzip
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from groundup.base.records import read_documents
from groundup.cli import main
from groundup.data import decode as decoding
from groundup.data import read as reading
from groundup.data.config import ReadConfig
from groundup.data.formats import Problem, Record, SourceFile
from groundup.data.read import find_files, read_file

Warc = Callable[..., bytes]


def read(path: Path, config: ReadConfig | None = None) -> tuple[list[Record], list[Problem]]:
    items = list(read_file(SourceFile(path, path.name), config or ReadConfig()))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Problem)]


def put(folder: Path, name: str, data: bytes) -> Path:
    (folder / name).write_bytes(data)
    return folder / name


def pages(warc: Warc, count: int) -> list[bytes]:
    """Records without their compression."""
    return [
        gzip.decompress(warc((f"https://a.example/{n}", "text/html", f"<p>page {n}</p>".encode())))
        for n in range(count)
    ]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(("spoil", "left"), [
    (lambda p: [p[0], b"rubbish between\r\nrecords\r\n\r\n", *p[1:]], [0, 1, 2, 3]),
    (lambda p: [p[0], bytes(100_000) + b"\r\n", *p[1:]], [0, 1, 2, 3]),
    (lambda p: [p[0], p[1].replace(b"Content-Length: ", b"Content-Lenght: ", 1), *p[2:]], [0, 2, 3]),
    (lambda p: [p[0], p[1].replace(b"Content-Length: ", b"Content-Length: -", 1), *p[2:]], [0, 2, 3]),
    (lambda p: [p[0], p[1][:-30], *p[2:]], [0, 2, 3]),
    (lambda p: [*p[:3], p[3][:-12]], [0, 1, 2]),
], ids=["rubbish", "zeros", "no length", "a negative length", "a record cut within", "cut at the end"])  # fmt: skip
def test_a_mixed_up_warc_gives_the_records_that_are_whole(
    tmp_path: Path, warc: Warc, packed: bool, spoil: Callable[[list[bytes]], list[bytes]], left: list[int]
) -> None:
    parts = spoil(pages(warc, 4))
    data = b"".join(map(gzip.compress, parts)) if packed else b"".join(parts)
    name = "a.warc.gz" if packed else "a.warc"
    records, problems = read(put(tmp_path, name, data))
    found = [int(r.meta["url"].rpartition("/")[2]) for r in records]
    assert set(left) <= set(found)
    assert len(found) - len(left) <= 1  # the one that was spoilt may still be there, longer or shorter
    assert "damaged" in {p.rule for p in problems}


def test_two_records_in_one_another_and_many_warcs_in_one_file(tmp_path: Path, warc: Warc) -> None:
    whole = pages(warc, 3)
    assert len(read(put(tmp_path, "a.warc.gz", gzip.compress(b"".join(whole)) + gzip.compress(whole[0])))[0]) == 4
    rubbish = b"".join(part + b"junk\r\n\r\n" for part in whole * 50)
    records, problems = read(put(tmp_path, "b.warc", rubbish))
    assert len(records) == 150
    assert {p.rule for p in problems} == {"damaged"}


def test_noise_instead_of_a_warc_ends(tmp_path: Path) -> None:
    dice = random.Random(5)
    for n in range(20):
        data = b"WARC/1.0\r\n" + dice.randbytes(3000) + b"\nWARC/1.0\r\nContent-Length: 9\r\n\r\n" + dice.randbytes(200)
        records, problems = read(put(tmp_path, f"{n}.warc", data))
        assert not records
        assert problems


def http(body: bytes, *headers: str) -> bytes:
    """A WARC record as crawlers that keep the line's bytes write it."""
    answer = "\r\n".join(["HTTP/1.1 200 OK", "Content-Type: text/html", *headers, "", ""]).encode() + body
    head = (
        f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Target-URI: https://a.example/\r\nContent-Length: {len(answer)}\r\n"
    )
    return (head + "Content-Type: application/http; msgtype=response\r\n\r\n").encode() + answer + b"\r\n\r\n"


def test_pages_as_they_came_over_the_line(tmp_path: Path) -> None:
    page = b"<p>" + b"words and words " * 50 + b"</p>"
    chunked = (
        b"".join(
            f"{len(page[n : n + 100]):x};x=1\r\n".encode() + page[n : n + 100] + b"\r\n"
            for n in range(0, len(page), 100)
        )
        + b"0\r\n\r\n"
    )
    for body, headers in (
        (chunked, ["Transfer-Encoding: chunked"]), (gzip.compress(page), ["Content-Encoding: gzip"]),
        (page, ["Transfer-Encoding: chunked"]), (page, ["Content-Encoding: gzip"]), (page, ["Content-Encoding: br"]),
    ):  # fmt: skip
        assert [r.payload for r in read(put(tmp_path, "a.warc", http(body, *headers)))[0]] == [page]


def test_a_bomb_within_a_record_is_not_unpacked(tmp_path: Path) -> None:
    bomb = gzip.compress(bytes(50 << 20))
    path = put(tmp_path, "a.warc", http(bomb, "Content-Encoding: gzip"))
    tracemalloc.start()
    records, problems = read(path, ReadConfig(max_record_mb=1))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (records, [p.rule for p in problems]) == ([], ["too_large"])
    assert peak < 20 << 20


def test_a_bomb_in_a_bomb_stays_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "FREE_BYTES", 1 << 20)
    nested = gzip.compress(gzip.compress(bytes(200 << 20)))
    records, problems = read(put(tmp_path, "a.txt.gz", nested))
    assert not records
    assert problems[0].rule in ("binary", "damaged")


def test_one_huge_document_is_read_in_bounded_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "BLOCK_BYTES", 1 << 18)
    with open(tmp_path / "huge.txt", "wb") as file:
        for _ in range(64):
            file.write(b"no line ends here, nowhere " * 10_000)  # 17 MB in one line
    tracemalloc.start()
    count = size = 0
    for item in read_file(SourceFile(tmp_path / "huge.txt", "huge.txt"), ReadConfig()):
        assert isinstance(item, Record)
        count, size = count + 1, size + len(item.payload)
        assert len(item.payload) <= 50_000
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert size == (tmp_path / "huge.txt").stat().st_size
    assert count > 300
    assert peak < 8 << 20


def test_a_file_of_several_encodings_is_read_or_named(tmp_path: Path) -> None:
    german = "Die Bäume blühen über dem Fluß, und die Vögel singen schön. " * 3
    mixed = german.encode() + b"\n" + german.encode("latin-1") + b"\n"
    records, problems = read(put(tmp_path, "mixed.txt", mixed * 3))
    text = "".join(str(r.payload) for r in records)
    assert "Die Bäume blühen" in text
    assert "\ufffd" not in text
    records, problems = read(put(tmp_path, "nul.txt", b"words\0and\0words " * 100))
    assert (records, problems[0].rule) == ([], "binary")


def test_names_that_lie_are_found_out(tmp_path: Path, warc: Warc) -> None:
    records, _ = read(put(tmp_path, "a.txt", warc(("https://a.example/", "text/html", b"<p>hi</p>"))))
    assert records[0].meta["url"] == "https://a.example/"
    assert read(put(tmp_path, "b.jsonl", b"<!doctype html><html><p>hi</p></html>"))[0][0].kind == "html"
    assert read(put(tmp_path, "c.pdf", b"PK\x03\x04 a zip file"))[1][0].rule == "foreign"
    assert read(put(tmp_path, "d.txt", b"PK\x03\x04" + bytes(200)))[1][0].rule == "binary"


def test_links_in_circles_end(tmp_path: Path) -> None:
    (tmp_path / "raw" / "a").mkdir(parents=True)
    (tmp_path / "raw" / "a" / "x.txt").write_text("Words.")
    (tmp_path / "raw" / "a" / "up").symlink_to(tmp_path / "raw")
    (tmp_path / "raw" / "self").symlink_to(tmp_path / "raw" / "self")
    (tmp_path / "raw" / "b.txt").symlink_to(tmp_path / "raw" / "c.txt")
    (tmp_path / "raw" / "c.txt").symlink_to(tmp_path / "raw" / "b.txt")
    files, _ = find_files([tmp_path / "raw"], ReadConfig())
    found = [item for file in files for item in read_file(file, ReadConfig())]
    assert [r.payload for r in found if isinstance(r, Record)] == ["Words."]
    assert [p.rule for p in found if isinstance(p, Problem)] == ["unreadable", "unreadable"]


def test_an_evaluation_file_that_is_empty_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "a.txt").write_text("The people have a house of their own, and they live with it. " * 5)
    (tmp_path / "eval.jsonl").write_text("")
    words = [
        "data",
        "build",
        str(tmp_path / "p"),
        "--input",
        str(raw),
        "--decontaminate.paths",
        str(tmp_path / "eval.jsonl"),
    ]
    assert main(words) == 2
    error = capfd.readouterr().err
    assert "eval.jsonl" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "p").exists()


def test_a_build_goes_on_behind_what_is_mixed_up(tmp_path: Path, warc: Warc, capfd: pytest.CaptureFixture[str]) -> None:
    dice = random.Random(3)
    words = [f"name{n}" for n in range(80)] + ["the", "of", "and", "to", "have", "with"] * 8

    def page(n: int) -> bytes:
        text = " ".join(dice.choice(words) for _ in range(80))
        return gzip.decompress(warc((f"https://a.example/{n}", "text/html", f"<main><p>{text}.</p></main>".encode())))

    raw = tmp_path / "raw"
    raw.mkdir()
    put(raw, "a.warc", page(0) + b"rubbish\r\n" + b"".join(page(n) for n in range(1, 8)))
    put(raw, "good.txt", " ".join(dice.choice(words) for _ in range(80)).encode())
    assert main(["data", "build", str(tmp_path / "p"), "--input", str(raw), "--heldout", "0"]) == 0
    assert "left out: a.warc is mixed up after record 1" in capfd.readouterr().out
    kept = [d.meta.get("url") for d in read_documents(tmp_path / "p/01-data/main/documents.parquet")]
    assert sum(url is not None for url in kept) == 8
