"""Common Crawl from a real server on this machine, with real WARC and WET files: lists, resume, refusals, broken and mixed-up files."""

import gzip
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from groundup.base.errors import ConfigError, DataError
from groundup.base.records import read_documents
from groundup.cli import main
from groundup.data import commoncrawl
from groundup.data.config import GetConfig, ReadConfig
from groundup.data.extract import extract
from groundup.data.fetch import Manners
from groundup.data.formats import Record, SourceFile
from groundup.data.read import read_file

Server = Any  # tests/data/conftest.py has it
CRAWL = "CC-MAIN-2025-05"
QUICK = Manners(3, 5.0, 0.01)


def members(path: Path, count: int, skip: int = 0) -> list[bytes]:
    """Some records of a WARC file, each a gzip member as they lie there."""
    from fastwarc.warc import ArchiveIterator, WarcRecordType

    data, starts = path.read_bytes(), []
    for record in ArchiveIterator(io.BytesIO(data), record_types=WarcRecordType.any_type, parse_http=False):
        starts.append(record.stream_pos)
        if len(starts) > skip + count:
            break
    return [data[a:b] for a, b in zip(starts[skip:], starts[skip + 1 :])]


def wet(pages: bytes) -> bytes:
    """The WET file of a WARC: bare texts, written as Common Crawl writes them, with digests."""
    from fastwarc.warc import ArchiveIterator, WarcRecord, WarcRecordType
    from resiliparse.extract.html2text import extract_plain_text

    out = io.BytesIO()
    for page in ArchiveIterator(io.BytesIO(pages), record_types=WarcRecordType.response):
        record = WarcRecord()
        record.init_headers(record_type=WarcRecordType.conversion)
        record.headers["WARC-Target-URI"] = page.headers["WARC-Target-URI"]
        record.headers["WARC-Date"] = "2025-01-12T07:30:00Z"
        record.headers["WARC-Identified-Content-Language"] = "eng"
        record.headers["Content-Type"] = "text/plain"
        text = extract_plain_text(page.reader.read().decode("utf-8", "replace"), main_content=False)
        record.set_bytes_content(text.encode())
        part = io.BytesIO()
        record.write(part, checksum_data=True)
        out.write(gzip.compress(part.getvalue(), mtime=0))
    return out.getvalue()


def publish(server: Server, files: dict[str, bytes], kind: str = "warc") -> list[str]:
    """Puts files and their list where Common Crawl has them; returns their paths."""
    paths = [f"crawl-data/{CRAWL}/segments/17.{n}/{kind}/{name}" for n, name in enumerate(files)]
    server.files |= {f"/{path}": data for path, data in zip(paths, files.values())}
    server.files[f"/crawl-data/{CRAWL}/{kind}.paths.gz"] = gzip.compress("\n".join(paths).encode() + b"\n")
    return paths


def config(server: Server, to: Path, **kwargs: Any) -> GetConfig:
    return GetConfig("commoncrawl", to=to, base_url=server.address, **{"crawl": CRAWL, "delay_s": 0.0, **kwargs})


def some(warc: Callable[..., bytes], name: str, size: int = 300) -> bytes:
    """A WARC of one page that hardly compresses."""
    noise = "".join(f"{hash((name, n)) & 0xFFFFFFFF:x} " for n in range(size))
    return warc((f"https://a.example/{name}", "text/html", f"<p>{noise}</p>".encode()))


def test_real_warcs_arrive_by_the_command_line_and_are_built(
    server: Server, data_dir: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    parts = [b"".join(members(data_dir / "raw" / "docs.warc.gz", 25, skip)) for skip in (0, 800, 1600)]
    publish(server, {f"CC-MAIN-x-{n:05d}.warc.gz": part for n, part in enumerate(parts)})
    words = ["--crawl", CRAWL, "--base-url", server.address, "--to", str(tmp_path), "--delay-s", "0"]
    assert main(["data", "get", "commoncrawl", "--segments", "2", *words]) == 0
    out = capfd.readouterr().out
    assert "3 WARC files; 2 of them" in out
    assert out.rstrip().endswith(f"--input {tmp_path / CRAWL}")
    assert server.most == 1  # one connection at a time
    assert all(agent.startswith("groundup/") for agent in server.agents)
    before = len(server.paths)
    assert main(["data", "get", "commoncrawl", "--segments", "3", *words]) == 0  # the two of before, and one more
    assert len(server.paths) == before + 1
    assert sorted(p.read_bytes() for p in (tmp_path / CRAWL).glob("*.warc.gz")) == sorted(parts)
    assert main(["data", "build", str(tmp_path / "p"), "--input", str(tmp_path / CRAWL)]) == 0
    document = next(iter(read_documents(tmp_path / "p" / "01-data" / "main" / "documents.parquet")))
    assert document.meta["url"].startswith("http")


def test_wet_files_give_the_bare_text(server: Server, data_dir: Path, tmp_path: Path) -> None:
    data = wet(b"".join(members(data_dir / "raw" / "docs.warc.gz", 10, 50)))
    publish(server, {"CC-x.warc.wet.gz": data}, "wet")
    path = commoncrawl.get(config(server, tmp_path, files="wet"), QUICK) / "CC-x.warc.wet.gz"
    assert path.read_bytes() == data
    records = [r for r in read_file(SourceFile(path, path.name), ReadConfig()) if isinstance(r, Record)]
    assert {(r.kind, r.bare) for r in records} == {("html", True)}
    assert "<" not in extract(records[0]).text
    assert len(records) >= 8
    assert records[0].meta["date"] == "2025-01-12"
    assert records[0].meta["lang"] == "en"


def test_a_broken_line_is_continued(server: Server, warc: Callable[..., bytes], tmp_path: Path) -> None:
    data = some(warc, "long", 60_000)
    assert len(data) > 250_000
    publish(server, {"a.warc.gz": data})
    server.script = ["", "cut", "503", "cut", "429"]  # the list arrives, its file in three pieces
    folder = commoncrawl.get(config(server, tmp_path), QUICK)
    assert (folder / "a.warc.gz").read_bytes() == data
    assert server.asked == ["", "", "bytes=100000-", "bytes=100000-", "bytes=200000-", "bytes=200000-"]


def test_what_another_attempt_left_is_taken_up(server: Server, warc: Callable[..., bytes], tmp_path: Path) -> None:
    data = some(warc, "long", 30_000)
    publish(server, {"a.warc.gz": data})
    server.script = ["", "cut", "503", "503", "503"]
    with pytest.raises(DataError, match="the first 100,000 bytes are kept"):
        commoncrawl.get(config(server, tmp_path), QUICK)
    assert (commoncrawl.get(config(server, tmp_path), QUICK) / "a.warc.gz").read_bytes() == data
    assert server.asked[-1] == "bytes=100000-"
    assert len(server.paths) == 6  # the list was fetched once
    part = tmp_path / CRAWL / "a.warc.gz.part"
    (tmp_path / CRAWL / "a.warc.gz").rename(part)  # whole, but the program was killed before it could say so
    assert (commoncrawl.get(config(server, tmp_path), QUICK) / "a.warc.gz").read_bytes() == data


@pytest.mark.parametrize(("spoil", "message"), [
    (lambda data: data[:-200], "truncated or corrupt"),
    (lambda data: data[:300] + bytes(8) + data[308:], "truncated or corrupt|its digest differs"),
    (lambda data: b"<html>Service is busy</html>", "isn't a WARC file"),
    (lambda data: gzip.compress(gzip.decompress(data).replace(b" the ", b" teh ")), "its digest differs"),
], ids=["cut", "flipped", "a page of the server", "another text"])  # fmt: skip
def test_a_file_that_is_not_whole_is_not_kept(
    server: Server, data_dir: Path, tmp_path: Path, spoil: Callable[[bytes], bytes], message: str
) -> None:
    publish(server, {"a.warc.wet.gz": spoil(wet(b"".join(members(data_dir / "raw" / "docs.warc.gz", 4, 10))))}, "wet")
    with pytest.raises(DataError, match=message):
        commoncrawl.get(config(server, tmp_path, files="wet"), QUICK)
    assert [p.name for p in (tmp_path / CRAWL).iterdir()] == [".wet.paths.gz"]


def test_more_files_never_other_files() -> None:
    listed = [f"crawl-data/x/segments/{n % 100}/warc/f-{n}.warc.gz" for n in range(2000)]
    few, more = commoncrawl.choose(listed, 5), commoncrawl.choose(listed[::-1], 50)
    assert more[:5] == few
    assert len({path.split("/")[3] for path in more}) > 30  # of the 100 segments
    assert len(commoncrawl.choose(listed, 5000)) == 2000


@pytest.mark.parametrize("listing", [b"", b"a.warc.gz\na.warc.gz\n", b"x/../../etc/passwd\n", b"x/.hidden.gz\n"])
def test_a_list_that_is_none(server: Server, tmp_path: Path, listing: bytes) -> None:
    server.files[f"/crawl-data/{CRAWL}/warc.paths.gz"] = gzip.compress(listing)
    with pytest.raises(DataError, match="isn't a list"):
        commoncrawl.get(config(server, tmp_path), QUICK)


def test_mistakes_are_one_line(server: Server, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(DataError, match="no such crawl"):
        commoncrawl.get(config(server, tmp_path / "a", crawl="CC-MAIN-1999-01"), QUICK)
    assert not (tmp_path / "a" / "CC-MAIN-1999-01").exists()
    for words in (
        ["--crawl", "../x"],
        [],
        ["--crawl", CRAWL, "--segments", "0"],
        ["--crawl", CRAWL, "--base-url", "file:///etc"],
    ):
        assert main(["data", "get", "commoncrawl", *words]) == 2
        assert capfd.readouterr().err.count("\n") == 1
    assert main(["data", "get", "commoncrawl", "--crawl", CRAWL, "--dry-run"]) == 0
    assert f"https://data.commoncrawl.org/crawl-data/{CRAWL}/warc.paths.gz" in capfd.readouterr().out
    with pytest.raises(ConfigError):
        GetConfig("tinyshakespeare", crawl=CRAWL).validate()
