"""PDF files: real ones of this test's own making, and what is locked, broken, empty or none."""

from pathlib import Path

import pytest

from groundup.base.records import read_documents
from groundup.cli import main
from groundup.data import pdf as reading
from groundup.data.config import ReadConfig
from groundup.data.formats import Problem, Record, SourceFile
from groundup.data.pdf import paragraphs
from groundup.data.read import read_file

typst = pytest.importorskip("typst", reason="typst (extra book) makes the PDF files")
pytest.importorskip("pypdfium2", reason="pypdfium2 (extra pdf) reads them")
PROSE = "The people of the harbour have always known that the sea gives and takes, and they live with it day by day. "
BOOK = """#set document(title: "The Sea", author: "A. Sailor", date: datetime(year: 2024, month: 5, day: 6))
#set page(width: 12cm, height: 14cm, header: [The Sea and its people], footer: context [Page #counter(page).display()])
#set par(justify: true)
#set text(hyphenate: true, lang: "en")
= The harbour
%s
- Nets are mended in the morning.
- Boats leave in the evening.

%s
"""


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pdf")
    text = [" ".join(PROSE.replace("sea", f"sea of the year {n + k}") for k in range(4)) for n in range(0, 80, 4)]
    (folder / "book.typ").write_text(BOOK % ("\n\n".join(text[:10]), "\n\n".join(text[10:])))
    typst.compile(str(folder / "book.typ"), output=str(folder / "book.pdf"))
    return folder / "book.pdf"


def read(path: Path, config: ReadConfig | None = None) -> tuple[list[Record], list[Problem]]:
    items = list(read_file(SourceFile(path, path.name, asked=True), config or ReadConfig()))
    return [i for i in items if isinstance(i, Record)], [i for i in items if isinstance(i, Problem)]


def test_a_book_comes_as_paragraphs_without_heads_and_page_numbers(book: Path) -> None:
    records, problems = read(book)
    assert not problems
    assert records[0].meta == {"path": "book.pdf", "title": "The Sea", "author": "A. Sailor", "date": "2024-05-06"}
    lines = str(records[0].payload).split("\n")
    assert "The harbour" in lines
    assert any("Nets are mended in the morning." in line for line in lines)
    whole = "\n".join(lines)
    assert whole.count("The Sea and its people") <= 1  # the first page's, which is the title
    assert "Page" not in whole
    assert "\x02" not in whole
    found = sum(PROSE.replace("sea", f"sea of the year {n}").strip() in whole for n in range(80))
    assert found >= 70  # a sentence that a page's edge cuts may be broken


def test_a_long_book_comes_in_pieces(book: Path) -> None:
    records, _ = read(book, ReadConfig(max_chars=2000))
    assert len(records) > 3
    assert [r.id for r in records[:2]] == ["book.pdf:1", "book.pdf:2"]
    assert "".join(str(r.payload) for r in records) == "".join(str(r.payload) for r in read(book)[0])


def test_by_the_command_line(book: Path, tmp_path: Path) -> None:
    assert (
        main(["data", "build", str(tmp_path / "p"), "--input", str(book), "--filters", "none", "--heldout", "0"]) == 0
    )
    document = next(iter(read_documents(tmp_path / "p/01-data/main/documents.parquet")))
    assert (document.meta["title"], document.meta["author"]) == ("The Sea", "A. Sailor")


def test_what_is_wrong_with_a_file_is_named(book: Path, tmp_path: Path) -> None:
    import pypdfium2

    blank = pypdfium2.PdfDocument.new()
    blank.new_page(200, 200)
    blank.save(tmp_path / "blank.pdf")
    blank.close()
    (tmp_path / "cut.pdf").write_bytes(book.read_bytes()[:600])
    (tmp_path / "fake.pdf").write_bytes(b"just words")
    for name, rule in (("blank.pdf", "no_text"), ("cut.pdf", "damaged"), ("fake.pdf", "foreign")):
        records, problems = read(tmp_path / name)
        assert (records, [p.rule for p in problems]) == ([], [rule])
    assert read(book, ReadConfig(max_record_mb=0))[1][0].rule == "too_large"


def test_without_the_reader_one_line_says_how_to_get_it(book: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "find_spec", lambda _: None)
    assert "pip install 'groundup[pdf]'" in read(book)[1][0].message


def test_lines_become_paragraphs() -> None:
    page = ["A line that was broken by the width of", "the page goes on, and this one is short.",
            "Another begins here and has a hy\x02phen.", "1. An item of a list, which stands alone", "2. Another one"]  # fmt: skip
    assert paragraphs([page]).split("\n") == [
        "A line that was broken by the width of the page goes on, and this one is short. Another begins here and has a hyphen.",
        "1. An item of a list, which stands alone",
        "2. Another one",
    ]
    assert paragraphs([]) == ""
    assert paragraphs([["Contents . . . . . . . 3", "Text."]]) == "Text."
