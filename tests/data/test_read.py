"""Every kind of file becomes records; every kind of damage is named and the rest goes on."""

import bz2
import gzip
import io
import json
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from groundup.base.errors import DataError
from groundup.base.records import Document, read_documents, write_documents
from groundup.data import decode as decoding
from groundup.data.config import ReadConfig
from groundup.data.decode import NotText, decode
from groundup.data.formats import Problem, Record, SourceFile
from groundup.data.read import find_files, read_file, sniff
from groundup.data.text import Book, books, chapters, pieces

Warc = Callable[..., bytes]
WIKI = """<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/" xml:lang="en"><siteinfo><base>https://w.example/wiki/Main</base>
<namespaces><namespace key="6">Datei</namespace></namespaces></siteinfo>
<page><title>Old</title><ns>0</ns><id>1</id><redirect title="New" /><revision><text>#REDIRECT [[New]]</text></revision></page>
<page><title>Talk:New</title><ns>1</ns><id>2</id><revision><text>hello</text></revision></page>
<page><title>New page</title><ns>0</ns><id>3</id><revision><text>'''New''' is new.</text></revision></page></mediawiki>"""


def read(path: Path, config: ReadConfig | None = None) -> tuple[list[Record], list[Problem]]:
    items = list(read_file(SourceFile(path, path.name), config or ReadConfig()))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Problem)]


def put(folder: Path, name: str, data: bytes | str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def test_text_in_every_packing(tmp_path: Path) -> None:
    text = "One line.\n\nAnother."
    packed = {"a.txt": text.encode(), "a.txt.gz": gzip.compress(text.encode()), "a.txt.bz2": bz2.compress(text.encode()),
              "a.txt.zst": zstandard.compress(text.encode()), "wrong-name.txt": gzip.compress(text.encode())}  # fmt: skip
    for name, data in packed.items():
        records, problems = read(put(tmp_path, name, data))
        assert not problems
        assert [(r.id, r.kind, r.payload) for r in records] == [(f"{name}:1", "text", text)]


def test_jsonl_and_parquet_keep_what_they_know(tmp_path: Path) -> None:
    row = {"id": "x7", "text": "Hello.", "url": "https://a.example/", "license": "MIT", "meta": {"title": "T"}}
    records, problems = read(put(tmp_path, "a.jsonl.zst", zstandard.compress(json.dumps(row).encode() + b"\n\n")))
    assert not problems
    assert records[0].id == "a.jsonl.zst:x7"
    assert records[0].meta == {"url": "https://a.example/", "licence": "MIT", "title": "T"}
    write_documents(tmp_path / "b.parquet", [Document("d1", "Text.", "books", {"lang": "en", "title": "B"})])
    records, problems = read(tmp_path / "b.parquet")
    assert (records[0].id, records[0].source, records[0].payload) == ("b.parquet:d1", "books", "Text.")
    assert records[0].meta == {"lang": "en", "title": "B"}
    assert not problems


def test_half_characters_are_mended(tmp_path: Path) -> None:
    data = b'{"id": "a\\ud83d", "text": "Broken \\ud83d here, whole \\ud83d\\ude00 there.", "title": "\\udc00"}\n'
    records, _ = read(put(tmp_path, "a.jsonl", data))
    assert (records[0].payload, records[0].meta["title"]) == ("Broken ? here, whole \U0001f600 there.", "?")
    (tmp_path / os.fsdecode(b"na\xefve.txt")).write_text("text")
    assert [f.label for f in find_files([tmp_path], ReadConfig())[0]] == ["a.jsonl", "na?ve.txt"]


def test_warc_keeps_pages_and_sets_the_rest_aside(tmp_path: Path, warc: Warc) -> None:
    data = warc(
        ("https://a.example/1", "text/html; charset=iso-8859-1", "<p>caf\xe9</p>".encode("latin-1")),
        ("https://a.example/2", "image/png", b"x"),
    )
    data += warc(("https://a.example/3", "text/html", b"<p>gone</p>"), status="404 Not Found")
    records, problems = read(put(tmp_path, "p.warc.gz", data))
    assert [r.meta["url"] for r in records] == ["https://a.example/1"]
    assert records[0].meta["charset"] == "iso-8859-1"
    assert [(p.rule, p.damage) for p in problems] == [("content_type", False), ("http_status", False)]
    plain = gzip.decompress(data)
    assert [r.meta["url"] for r in read(put(tmp_path, "p.warc", plain))[0]] == ["https://a.example/1"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_wiki_pages_come_with_title_address_and_namespace(tmp_path: Path, encoding: str) -> None:
    records, problems = read(put(tmp_path, "w.xml.bz2", bz2.compress(WIKI.encode(encoding))))
    assert not problems
    assert [r.meta["title"] for r in records] == ["Old", "Talk:New", "New page"]
    assert (records[0].meta["redirect"], records[1].meta["namespace"]) == ("New", "1")
    assert records[2].meta | {"page": "3"} == records[2].meta
    assert records[2].meta["url"] == "https://w.example/wiki/New_page"
    assert "Datei" in records[2].namespaces


def test_gutenberg_books_are_told_apart(tmp_path: Path) -> None:
    mark = "*** {} OF THE PROJECT GUTENBERG EBOOK {} ***\n"
    text = "".join(
        f"Licence of {t}.\n\nTitle: {t}\n\n{mark.format('START', t)}\nStory of {t}.\n\n{mark.format('END', t)}Give money.\n"
        for t in ("One", "Two")
    )
    records, _ = read(put(tmp_path, "b.txt", text))
    assert [(r.kind, r.meta["title"], str(r.payload).strip()) for r in records] == [
        ("book", "One", "Story of One."),
        ("book", "Two", "Story of Two."),
    ]
    assert "Licence of One" in records[0].before
    assert list(books("no marks at all")) == [Book("", "no marks at all")]


def test_chapters_are_kept(tmp_path: Path) -> None:
    body = "".join(
        f"\n\n\nCHAPTER {name}\n\nTHE {title}\n\n" + "They went on and on, and it was late.\n" * 60
        for name, title in (("I", "ROAD"), ("II", "HOUSE"), ("III", "END"))
    )
    head = "Title: On\nAuthor: A. Person\nRelease Date: March, 1999 [EBook #1]\nLanguage: English\n"
    head += "*** START OF THE PROJECT GUTENBERG EBOOK ON ***\n"
    path = put(tmp_path, "b.txt", head + body)
    records, _ = read(path, ReadConfig(max_chars=3000))
    assert [r.meta["chapter"] for r in records] == [
        "CHAPTER I: THE ROAD",
        "CHAPTER II: THE HOUSE",
        "CHAPTER III: THE END",
    ]
    assert all(str(r.payload).lstrip().startswith("CHAPTER") for r in records)
    assert records[1].meta | {"author": "A. Person", "date": "1999", "lang": "en", "title": "On"} == records[1].meta
    assert chapters("the act to come\n\nact of war\n\n") == []


def test_long_texts_are_cut_between_paragraphs() -> None:
    text = "".join(f"Paragraph {n} has some words.\n\n" for n in range(100))
    parts = list(pieces(text, 500))
    assert "".join(parts) == text
    assert all(len(p) <= 500 and p.endswith("\n\n") for p in parts)
    assert "".join(pieces("x" * 1000, 300)) == "x" * 1000


def test_a_source_tree_without_foreign_files(tmp_path: Path) -> None:
    put(tmp_path, "pkg/a.py", "x = 1\n")
    put(tmp_path, "pkg/README.md", "# Hi\n")
    put(tmp_path, "pkg/logo.png", b"\x89PNG")
    put(tmp_path, "node_modules/b.js", "1")
    put(tmp_path, ".git/c.txt", "no")
    (tmp_path / "pkg" / "loop").symlink_to(tmp_path)
    (tmp_path / "pkg" / "gone.txt").symlink_to(tmp_path / "nothing")
    files, aside = find_files([tmp_path], ReadConfig())
    assert [f.label for f in files] == ["pkg/README.md", "pkg/a.py", "pkg/gone.txt"]
    assert {p.rule for p in aside} == {"vendored", "unknown_type"}
    assert [f.label for f in find_files([tmp_path], ReadConfig(code=False))[0]] == ["pkg/README.md", "pkg/gone.txt"]
    records, _ = read(tmp_path / "pkg" / "a.py")
    assert (records[0].kind, records[0].meta["lang"]) == ("code", "Python")
    assert read(tmp_path / "pkg" / "gone.txt")[1][0].rule == "unreadable"
    with pytest.raises(DataError, match="no such file or folder"):
        find_files([tmp_path / "missing"], ReadConfig())


def test_two_files_of_one_name_keep_different_labels(tmp_path: Path) -> None:
    put(tmp_path, "a/x.txt", "1")
    put(tmp_path, "b/x.txt", "2")
    files, _ = find_files([tmp_path / "a" / "x.txt", tmp_path / "b" / "x.txt"], ReadConfig())
    assert len({f.label for f in files}) == 2


@pytest.mark.parametrize(("name", "data", "rule"), [
    ("empty.txt", b"", "empty"),
    ("random.txt", bytes(range(256)) * 40, "binary"),
    ("zero.html", b"<html>\0\0</html>", "binary"),
    ("bytes.txt", b"\x81\x8d\x8f\x90\x9d" * 100, "invalid_utf8"),
    ("cut.txt.gz", gzip.compress(b"words " * 5000, mtime=0)[:60], "damaged"),
    ("cut.txt.bz2", bz2.compress(b"words " * 5000)[:-20], "damaged"),
    ("cut.txt.zst", zstandard.compress(bytes(range(33, 120)) * 3000)[:-8], "damaged"),
    ("cut.xml", WIKI.encode()[:-40], "damaged"),
    ("cut.jsonl", b'{"text": "a"', "not_json"),
    ("list.jsonl", b"[1]\n", "no_text"),
    ("latin.jsonl", b'{"text": "caf\xe9"}\n', "invalid_utf8"),
    ("other.jsonl", b'{"prompt": "a"}\n', "no_text"),
    ("fake.parquet", b"hello", "foreign"),
    ("fake.warc.gz", gzip.compress(b"hello", mtime=0), "foreign"),
    ("cut.parquet", b"PAR1hello", "damaged"),
])  # fmt: skip
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, name: str, data: bytes, rule: str) -> None:
    records, problems = read(put(tmp_path, name, data))
    assert [p.rule for p in problems] == [rule]
    assert problems[0].damage
    assert len(records) <= 3


def test_a_truncated_warc_gives_its_whole_records(tmp_path: Path, warc: Warc) -> None:
    pages = [(f"https://a.example/{n}", "text/html", f"<p>{n} {'word ' * 300}</p>".encode()) for n in range(5)]
    data = warc(*pages)
    records, problems = read(put(tmp_path, "cut.warc.gz", data[: len(data) - 30]))
    assert [r.meta["url"] for r in records] == [url for url, _, _ in pages[:4]]
    assert problems[0].rule == "damaged"
    assert "the 4 documents before that are used" in problems[0].message


def test_a_parquet_file_without_text_says_what_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"label": [1]}), tmp_path / "x.parquet")
    assert "it has label" in read(tmp_path / "x.parquet")[1][0].message


def test_expansion_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "FREE_BYTES", 1 << 20)
    path = put(tmp_path, "bomb.txt.gz", gzip.compress(b"all work and no play \n" * 400_000))
    records, problems = read(path)
    assert "decompression bomb" in problems[0].message
    assert sum(len(r.payload) for r in records) <= max(1 << 20, 100 * path.stat().st_size)


def test_records_that_are_too_large_are_left_out(tmp_path: Path, warc: Warc) -> None:
    small = ReadConfig(max_record_mb=1)
    big = b"<html>" + b"x" * (1 << 20)
    assert read(put(tmp_path, "a.html", big), small)[1][0].rule == "too_large"
    records, problems = read(
        put(tmp_path, "a.warc.gz", warc(("u:1", "text/html", big), ("u:2", "text/html", b"<p>small</p>"))), small
    )
    assert (len(records), problems[0].rule) == (1, "too_large")
    assert read(put(tmp_path, "a.jsonl", json.dumps({"text": "x" * (1 << 20)})), small)[1][0].rule == "too_large"


def test_encodings() -> None:
    assert decode("naïve".encode()) == ("naïve", "utf-8")
    assert decode("naïve".encode("utf-8-sig")) == ("naïve", "utf-8")
    assert decode("naïve".encode("utf-16")) == ("naïve", "utf-16")
    german = "Die Bäume blühen über dem Fluß, und die Vögel singen schön. " * 5
    assert decode(german.encode("latin-1"))[0] == german
    assert decode(german.encode("cp1252"), "windows-1252")[0] == german
    assert decode(german.encode("latin-1"), "no-such-encoding")[0] == german
    damaged = german.encode()[:100] + b"\xff" + german.encode()[100:]
    assert decode(damaged) == (german, "utf-8, damaged")
    with pytest.raises(NotText, match="control characters"):
        decode(bytes(300))


def test_sniffing_believes_the_bytes() -> None:
    assert sniff("a.txt", b"  <!DOCTYPE HTML><html>") == "html"
    assert sniff("a.bin", b"WARC/1.0\r\n") == "warc"
    assert sniff("a", b"just words") == "text"
    assert sniff("a.py", b"import os") == "code"
    assert sniff("a.xml", b"<note>no wiki</note>") == ""


def test_what_lies_about_in_folders_is_no_damage(tmp_path: Path) -> None:
    for name, data in (("pkg/__init__.py", b""), ("pkg/config.xml", b"<note>no wiki</note>")):
        path = put(tmp_path, name, data)
        for asked in (False, True):
            problems = [p for p in read_file(SourceFile(path, name, asked), ReadConfig()) if isinstance(p, Problem)]
            assert [p.damage for p in problems] == [asked]


def test_large_texts_are_read_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from groundup.data import read as reading

    monkeypatch.setattr(reading, "BLOCK_BYTES", 1000)
    text = "".join(f"Line {n} of a long file, é.\n" + "\n" * (n % 5 == 0) for n in range(500))
    records, problems = read(put(tmp_path, "a.txt", text))
    assert not problems
    assert "".join(str(r.payload) for r in records) == text
    assert len(records) > 10
    assert list(reading._blocks(io.BufferedReader(io.BytesIO(b"")))) == []  # type: ignore[arg-type]


def test_what_a_file_is_counted_under(tmp_path: Path) -> None:
    """A folder below the input, a source tree as a whole, or a set of numbered files is one source; another file is one by itself."""
    for name in ("raw/a.txt", "raw/tool.py", "raw/wiki/x.txt", "raw/wiki/deep/y.txt", "crawl/part-00001.txt", "crawl/part-00002.txt",
                 "tree/LICENSE", "tree/a.py", "tree/pkg/b.py", "q1.txt"):  # fmt: skip
        put(tmp_path, name, "Text.")
    inputs = [tmp_path / name for name in ("raw", "crawl", "tree", "q1.txt")]
    found, _ = find_files(inputs, ReadConfig())
    assert {(f.path.relative_to(tmp_path).as_posix(), f.source) for f in found} == {
        ("raw/a.txt", "a.txt"), ("raw/tool.py", "code"), ("raw/wiki/x.txt", "wiki"), ("raw/wiki/deep/y.txt", "wiki"),
        ("crawl/part-00001.txt", "crawl"), ("crawl/part-00002.txt", "crawl"), ("tree/a.py", "tree"), ("tree/pkg/b.py", "tree"),
        ("q1.txt", "q1.txt")}  # fmt: skip
    parts, _ = find_files(sorted((tmp_path / "crawl").iterdir()), ReadConfig())
    assert {f.source for f in parts} == {"crawl"}, "however the shell hands them over"
    assert {r.source for f in found for r in read_file(f, ReadConfig()) if isinstance(r, Record)} == {
        f.source for f in found
    }


def test_what_documents_are_selected_by_has_a_column(tmp_path: Path) -> None:
    documents = [Document("a", "A text.", "web", {"url": "https://a.example/", "lang": "en", "date": "2025-01-05", "title": "A"}),
                 Document("b", "Another.", "code", {"licence": "MIT"})]  # fmt: skip
    assert write_documents(tmp_path / "x.parquet", documents) == 2
    rows = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert list(rows[0]) == ["id", "text", "source", "url", "lang", "licence", "date", "meta"]
    assert (rows[0]["url"], rows[0]["date"], rows[0]["licence"], rows[1]["licence"]) == (
        "https://a.example/",
        "2025-01-05",
        None,
        "MIT",
    )
    assert json.loads(rows[0]["meta"]) == documents[0].meta
    assert list(read_documents(tmp_path / "x.parquet")) == documents
