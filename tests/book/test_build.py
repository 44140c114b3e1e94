"""The book builds, says what the code prints, and names the line of every mistake. Small books stand in for broken ones."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent.parent
BOOK = ROOT / "book"
CHAPTER = """# A chapter {#sec-one}

Text with @sec-two, a [term]{.idx} and @vaswani2017.

```{.python include="groundup/base/errors.py#ConfigError" #lst-error caption="A listing."}
```

```{.python .run}
print("measured", 0.51, "of", 12)
```

## A section {#sec-two}

Half of it is {{ f"{0.51 / 2:.0%}" }}.

```{.python .run}
limit = 3
limit
```
"""


@pytest.fixture(scope="module")
def build() -> ModuleType:
    """book/build.py as a module; its neighbours are found the way they are when it is run as a script."""
    sys.path.insert(0, str(BOOK))
    try:
        spec = importlib.util.spec_from_file_location("book_build", BOOK / "build.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(BOOK))


@pytest.fixture
def small(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a book of one chapter and returns its folder."""

    def write(chapter: str) -> Path:
        (tmp_path / "chapters").mkdir(exist_ok=True)
        (tmp_path / "chapters" / "03-one.md").write_text(chapter, encoding="utf-8")
        for name in ("book.toml", "refs.bib"):
            shutil.copy(BOOK / name, tmp_path / name)
        return tmp_path

    return write


def run_script(*words: object) -> subprocess.CompletedProcess[str]:
    """Runs book/build.py as a user does."""
    command = [sys.executable, str(BOOK / "build.py"), *map(str, words)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def texts(folder: Path) -> dict[str, str]:
    """The HTML page and the EPUB's pages by name."""
    pages = {"groundup.html": (folder / "groundup.html").read_text(encoding="utf-8")}
    with zipfile.ZipFile(folder / "groundup.epub") as archive:
        assert archive.infolist()[0].filename == "mimetype"
        assert archive.infolist()[0].compress_type == zipfile.ZIP_STORED
        for name in archive.namelist():
            if name.endswith((".xhtml", ".opf", ".ncx")):
                pages[name] = archive.read(name).decode()
                ElementTree.fromstring(pages[name])  # an e-reader refuses XML that isn't well formed
    return pages


def check_links(pages: dict[str, str]) -> None:
    """Every link inside the book leads somewhere."""
    known = {name: set(re.findall(r'\bid="([^"]+)"', text)) for name, text in pages.items()}
    for name, text in pages.items():
        folder = name.rpartition("/")[0]
        for target in re.findall(r'\shref="([^"]+)"', text):
            file, _, anchor = target.partition("#")
            if re.match(r"\w+:", target) or not anchor:
                continue
            page = "/".join(part for part in (folder, file) if part) if file else name
            assert anchor in known[page], f"{name}: a link to {target}, which isn't there"


def test_the_book_builds_and_prints_what_its_golden_outputs_say(tmp_path: Path) -> None:
    for arguments in (
        ["--check"],
        [],
        ["--formats", "pdf"],
    ):  # the first runs the cells, the others find them in the cache
        done = run_script("--out", tmp_path, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "all as in the golden ones" in done.stdout
        pdf = tmp_path / "groundup.pdf"
        if arguments:
            assert arguments[0] != "--check" or not pdf.exists(), "--check writes no book"
        else:
            first = pdf.read_bytes()
    assert pdf.read_bytes() == first, "the same sources gave another PDF"
    assert first.startswith(b"%PDF-1.7")
    assert b"<pdfuaid:part>1</pdfuaid:part>" in first

    pages = texts(tmp_path)
    check_links(pages)
    html = pages["groundup.html"]
    assert not re.findall(r'<(?:script|link|img|iframe)[^>]+(?:src|href)="(?!data:)[^"]*', html), (
        "the page isn't self-contained"
    )
    assert 0 < html.count("<img") == len(re.findall(r'<img[^>]*\salt="[^"]{40,}"', html)), "a figure without words"
    assert "{{" not in html
    assert "groundup/model/plain.py" in html
    plain = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", "", html).replace("&quot;", '"').replace("&#39;", "'"))
    golden = json.loads((BOOK / "outputs" / "03-attention.json").read_text(encoding="utf-8"))
    shown = [row["printed"] for row in golden if not row["printed"].startswith("|")]
    assert len(shown) > 20
    masked = re.sub(r"\d+", "#", plain)  # the build compared the numbers, as far as processors agree on them
    for printed in shown:
        assert re.sub(r"\d+", "#", " ".join(printed.split())) in masked, f"the page lacks the output {printed!r}"
    if pdftotext := shutil.which("pdftotext"):
        text = subprocess.run([pdftotext, "-layout", str(pdf), "-"], capture_output=True, text=True, check=True).stdout
        for words in (
            "CHAPTER 3",
            "Contents",
            "Listing 3.1.",
            "Figure 3.4.",
            "Table 3.1.",
            "Solution on page",
            "References",
            "Index",
        ):
            assert words in text
        assert "CC BY 4.0" in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("#ConfigError", "#ConfigErorr", r"03-one\.md:5: include: .*has no 'ConfigErorr'; did you mean 'ConfigError'\?"),
        ("base/errors.py", "base/nothing.py", r"03-one\.md:5: include: no file groundup/base/nothing\.py"),
        ("#ConfigError", "#L900-L901", r"03-one\.md:5: include: groundup/base/errors\.py has no lines L900-L901"),
        ("limit = 3", "limit = 3 / 0", r"03-one\.md:17: the cell failed: ZeroDivisionError: division by zero"),
        ("limit = 3", "limit = (3", r"03-one\.md:17: the cell failed: SyntaxError: '\(' was never closed"),
        ("limit = 3", "import torhc", r"03-one\.md:17: the cell failed: ModuleNotFoundError: No module named 'torhc'"),
        ("0.51 / 2", "share / 2", r"03-one\.md:14: \{\{.*\}\} failed: NameError: name 'share' is not defined"),
        ("@sec-two", "@sec-tow", r"03-one\.md:3: 'sec-tow' is no label and no source in refs\.bib; did you mean 'sec-two'\?"),
        ("@vaswani2017", "@vaswani2107", r"03-one\.md:3: 'vaswani2107' is no label .* did you mean 'vaswani2017'\?"),
        ("{#sec-two}", "{#sec-one}", r"03-one\.md:12: the label 'sec-one' is already given at .*03-one\.md:1"),
        ("limit = 3", f"limit = {'1' * 90}", r"03-one\.md:17: 98 columns, 88 fit the page: limit = 11"),
        ("limit\n```", "'x' * 99\n```", r"03-one\.md:16: output: 99 columns, 88 fit the page"),
        ("limit\n```", "object()\n```", r"03-one\.md:16: the cell prints '0x[0-9a-f]+', which changes from run to run"),
        ("limit\n```", "limit", r"03-one\.md:16: this fenced block is never closed"),
        (".run}\nlimit", ".run hide=yes}\nlimit", r"03-one\.md:16: can't read 'hide=yes'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_with_its_place(
    build: ModuleType,
    small: Callable[[str], Path],
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    message: str,
) -> None:
    assert CHAPTER.count(old) >= 1
    folder = small(CHAPTER.replace(old, new, 1))
    assert build.main(["--source", str(folder), "--accept", "--formats", ""]) == 2
    error = capsys.readouterr().err
    assert re.search(message, error), error
    assert error.count("\n") == 1
    assert not (folder / "outputs").exists()


@pytest.mark.parametrize(
    ("figure", "message"),
    [
        ("![A head.](fig:attention_head){#fig-head}", r"03-one\.md:3: the figure has no alternative text"),
        (
            '![A head.](fig:atention_head){#fig-head alt="x"}',
            r"03-one\.md:3: figures\.py has no function 'atention_head'; did",
        ),
        (
            "```{.python .run}\nimport matplotlib.pyplot as plt\nplt.plot([1])\n```",
            r"03-one\.md:3: the figure has no alternative",
        ),
    ],
)
def test_a_figure_without_words_or_without_a_function_is_refused(
    small: Callable[[str], Path], figure: str, message: str
) -> None:
    folder = small(f"# One {{#sec-one}}\n\n{figure}\n")
    done = run_script("--source", folder)  # in a process of its own: figures set matplotlib's defaults
    assert done.returncode == 2
    assert re.search(message, done.stderr), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--formats", "docx"], "no format 'docx'; choose from pdf, html, epub"),
        (["--source", "no-such-folder"], "book.toml: no such file"),
    ],
)
def test_a_wrong_flag_is_one_line(
    build: ModuleType, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert build.main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_check_holds_the_outputs_to_the_golden_ones(
    build: ModuleType, small: Callable[[str], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    folder = small(CHAPTER)
    golden = folder / "outputs" / "03-one.json"
    words = ["--source", str(folder), "--formats", ""]
    assert build.main([*words, "--check"]) == 2
    assert "no golden outputs yet" in capsys.readouterr().err
    assert build.main([*words, "--accept"]) == 0
    assert build.main([*words, "--check"]) == 0
    assert [row["printed"] for row in json.loads(golden.read_text())] == ["measured 0.51 of 12", "26%", "3"]

    accepted = json.loads(golden.read_text())

    def move(old: str, new: str) -> None:
        golden.write_text(json.dumps([{**row, "printed": row["printed"].replace(old, new)} for row in accepted]))

    move("0.51", "0.52")  # a rounding, as on another processor
    assert build.main([*words, "--check"]) == 0
    capsys.readouterr()
    for old, new in (("0.51", "0.58"), ("12", "13"), ("26%", "28%"), ("measured", "guessed")):
        move(old, new)
        assert build.main([*words, "--check"]) == 2
        error = capsys.readouterr().err
        assert re.search(r"03-one\.md:(8|14): printed '.*' where the book says '.*'\n$", error), error
        assert build.main(words) == 0, "a reader's build goes on, and says what moved"
        assert "note: " in capsys.readouterr().out
    move("", "")
    small(CHAPTER.replace("limit = 3", "limit = 4"))
    assert build.main([*words, "--check"]) == 2
    assert "03-one.md:16: not a cell of the golden outputs" in capsys.readouterr().err


def test_a_chapter_runs_again_only_when_it_or_what_it_uses_changed(
    build: ModuleType, small: Callable[[str], Path], tmp_path: Path
) -> None:
    trace = tmp_path / "trace.txt"
    chapter = (
        f"{CHAPTER}\n```{{.python .run .hide}}\nwith open({str(trace)!r}, 'a') as file:\n    _ = file.write('x')\n```\n"
    )
    words = ["--source", str(small(chapter)), "--formats", ""]
    for expected, flags in ((1, []), (1, []), (2, ["--fresh"]), (3, ["--accept"]), (4, ["--check"]), (4, [])):
        assert build.main([*words, *flags]) == 0
        assert len(trace.read_text()) == expected
    small(chapter + "\nMore.\n")
    assert build.main(words) == 0
    assert len(trace.read_text()) == 5


@pytest.mark.parametrize(
    ("golden", "printed", "same"),
    [
        ("loss 2.31", "loss 2.32", True), ("loss 2.31", "loss 2.33", False), ("12 heads", "13 heads", False),
        ("1.2e-07", "1.3e-07", True), ("1.2e-07", "1.2e-06", False), ("[0.5  1. ]", "[0.49 1.  ]", True), ("nan", "0.1", False),
        ("2,359,296 weights", "2,359,297 weights", False), ("79%", "80%", True), ("79%", "81%", False), ("T2 0.1", "T3 0.1", False),
    ],
)  # fmt: skip
def test_outputs_agree_up_to_the_last_rounded_place(build: ModuleType, golden: str, printed: str, same: bool) -> None:
    execute = sys.modules[build.execute.__module__]
    assert execute.agree(golden, printed) is same  # type: ignore[attr-defined]
    if "." in golden and golden.startswith("loss"):
        assert execute.agree(golden, printed, units=2)  # type: ignore[attr-defined]


def test_code_by_reference_is_dedented_and_free_of_linters_comments(build: ModuleType) -> None:
    source = sys.modules[build.read_chapter.__module__]
    _, code, first, last = source.include("groundup/base/log.py#Progress.advance", "here")  # type: ignore[attr-defined]
    assert code.startswith("def advance(self")
    assert last > first > 1
    _, code, *_ = source.include("groundup/model/plain.py#scaled_dot_product_attention", "here")  # type: ignore[attr-defined]
    assert code.startswith("def scaled_dot_product_attention(")
    assert "fmt: skip" not in code
    _, code, first, last = source.include("groundup/base/errors.py#L1-L2", "here")  # type: ignore[attr-defined]
    assert (code.count("\n"), first, last) == (1, 1, 2)
