"""Build the book: Markdown chapters, executed, to PDF, HTML and EPUB in book/_build/.

    python book/build.py              run what changed, then write groundup.pdf, groundup.html and groundup.epub
    python book/build.py --check      run everything again; fail if a printed output moved away from book/outputs/
    python book/build.py --accept     run everything again and take its outputs as the golden ones

Needs `pip install 'groundup[book]'` and nothing else: no network, no TeX, no Node.
"""

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

# Before torch is imported: the order of a sum must not depend on the machine's cores.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

from execute import compare, execute
from source import REPOSITORY, BookError, check_references, read_chapter

from groundup import __version__
from groundup.base.errors import GroundupError
from groundup.base.files import os_error, read_json, sha256, text_hash, write_json, write_text

HERE = Path(__file__).resolve().parent
TEMPLATE = HERE / "template"
FORMATS = ("pdf", "html", "epub")
READER = "markdown-implicit_header_references+table_attributes"


def options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Returns the parsed command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--check", action="store_true", help="run everything again and compare with the golden outputs")
    mode.add_argument("--accept", action="store_true", help="run everything again and take the outputs as golden")
    parser.add_argument("--fresh", action="store_true", help="run chapters again even where nothing changed")
    parser.add_argument("--formats", default=",".join(FORMATS), help="which of pdf,html,epub to write (default: all)")
    parser.add_argument("--source", type=Path, default=HERE, help="the folder of book.toml, chapters/ and outputs/")
    parser.add_argument("--out", type=Path, default=None, help="where to write (default: SOURCE/_build)")
    parsed = parser.parse_args(argv)
    parsed.source = parsed.source.resolve()
    parsed.out = (parsed.out or parsed.source / "_build").resolve()
    parsed.formats = [name for name in parsed.formats.split(",") if name]
    if unknown := [name for name in parsed.formats if name not in FORMATS]:
        raise BookError(f"--formats: no format '{unknown[0]}'; choose from {', '.join(FORMATS)}")
    return parsed


def load_book(source: Path) -> tuple[dict[str, Any], list[Path]]:
    """Returns book.toml and the chapters that exist, in order of their numbers. Raises: BookError where they are missing."""
    settings = source / "book.toml"
    try:
        book = tomllib.loads(settings.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise BookError(f"{settings}: no such file; --source names the folder that holds book.toml") from error
    except tomllib.TOMLDecodeError as error:
        raise BookError(f"{settings}: {error}") from error
    chapters = sorted((source / "chapters").glob("[0-9][0-9]-*.md"))
    if not chapters:
        raise BookError(f"{source / 'chapters'}: no chapter named NN-name.md")
    return book, chapters


# --- run the chapters --------------------------------------------------------------------------------------------------


def tools_key() -> str:
    """Returns a hash of all that a chapter's outputs depend on besides its own text and the package's code."""
    tools = [sha256(HERE / name) for name in ("source.py", "execute.py", "drawing.py", "figures.py")]
    versions = [platform.python_version(), *(version(name) for name in ("torch", "numpy", "matplotlib"))]
    return text_hash("\n".join([*tools, *versions]))


def run_chapter(path: Path, out: Path, fresh: bool) -> dict[str, Any]:
    """Returns {"text", "record", ...} of a chapter: from the cache while its text, tools and the code it used are the same."""
    cache = out / "cache" / f"{path.stem}.json"
    neighbours = sorted(file.name for file in path.parent.glob("*.md"))  # about.md prints which chapters there are
    plan = (path.parent.parent / "book.toml").read_text(encoding="utf-8")
    key = text_hash("\n".join([tools_key(), *neighbours, plan, path.read_text(encoding="utf-8")]))
    if cache.is_file() and not fresh:
        kept: dict[str, Any] = read_json(cache)
        used = {REPOSITORY / name: digest for name, digest in kept["files"].items()}
        if kept["key"] == key and all(file.is_file() and sha256(file) == digest for file, digest in used.items()):
            return kept
    text, record, included = execute(path, out / "fig")
    modules = [getattr(module, "__file__", None) for module in list(sys.modules.values())]
    package = {Path(file) for file in modules if file and Path(file).is_relative_to(REPOSITORY / "groundup")}
    files = {file.relative_to(REPOSITORY).as_posix(): sha256(file) for file in sorted({*package, *included})}
    done = {"key": key, "files": files, "text": text, "record": record}
    write_json(cache, done)
    return done


def hold(path: Path, golden: Path, record: list[dict[str, Any]], accept: bool) -> list[str]:
    """Returns what moved between the golden outputs and this run's; with `accept`, writes them and returns nothing."""
    if accept:
        write_json(golden, [{"source": row["source"], "printed": row["printed"]} for row in record])
        return []
    if not golden.is_file():
        return [f"{golden}: no golden outputs yet; `build.py --accept` writes them"] if record else []
    return compare(read_json(golden), record, path)


# --- write the three formats -------------------------------------------------------------------------------------------


def pandoc(out: Path, date: datetime, *words: object) -> None:
    """Runs pandoc in `out`. Raises: BookError with its first message; a warning counts as an error."""
    import pypandoc

    command = [pypandoc.get_pandoc_path(), "+RTS", "-M2G", "-RTS", "--fail-if-warnings", *map(str, words)]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(int(date.timestamp()))}
    done = subprocess.run(command, cwd=out, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        message = re.sub(r"\s+", " ", done.stderr.partition("stack traceback")[0]).strip()
        raise BookError(f"pandoc: {message or f'ended with code {done.returncode}'}")


def typeset(out: Path, source: str, target: Path, date: datetime, **how: Any) -> None:
    """Compiles a Typst file in `out` with the book's own fonts. Raises: BookError for its errors and warnings."""
    import typst

    fonts = typst.Fonts(include_system_fonts=False, font_paths=[str(HERE / "fonts")])
    compiler = typst.Compiler(out / source, root=out, font_paths=fonts)
    try:
        _, warnings = compiler.compile_with_warnings(output=target, timestamp=int(date.timestamp()), **how)
    except (typst.TypstError, RuntimeError) as error:
        found = re.search(r"error: .*?┌─ (\S+)", getattr(error, "diagnostic", ""), re.S)
        raise BookError(f"typst: {found[1] + ': ' if found else ''}{' '.join(str(error).split())}") from error
    if warnings:
        raise BookError(f"typst: {' '.join(str(warnings[0].message).split())}")


def metadata(book: dict[str, Any], source: Path, chapters: list[Path]) -> dict[str, Any]:
    """Returns what the templates and the filter need to know."""
    keep = ("title", "subtitle", "author", "rights", "identifier", "date")
    edition = f"groundup {__version__}. Executed with Python {platform.python_version()} and PyTorch {version('torch').partition('+')[0]}."
    return {
        **{name: book[name] for name in keep},
        "lang": book["language"],
        "edition": edition,
        "numbers": [str(int(path.name[:2])) for path in chapters if not path.name.startswith("00")],
        "bibliography": str(source / "refs.bib"),
        "link-citations": True,
        "toc-title": "Contents",
    }


def render(name: str, out: Path, texts: list[Path], date: datetime) -> Path:
    """Returns the file of one format, written to `out`."""
    target = out / f"groundup.{name}"
    common = [*texts, f"--from={READER}", "--metadata-file=metadata.json", f"--lua-filter={TEMPLATE / 'book.lua'}"]
    common += ["--citeproc", f"--output={out / 'book.typ' if name == 'pdf' else target}"]
    web = ["--mathml", "--toc", "--toc-depth=2", f"--css={TEMPLATE / 'book.css'}"]
    web += [f"--syntax-highlighting={TEMPLATE / 'code.theme'}"]
    if name == "pdf":
        for file in ("title.typ", "code.tmTheme"):
            shutil.copy(TEMPLATE / file, out / file)
        typst = ["--to=typst", f"--template={TEMPLATE / 'book.typ'}", "--wrap=none", "--syntax-highlighting=idiomatic"]
        pandoc(out, date, *common, *typst)
        typeset(out, "book.typ", target, date, pdf_standards=["1.7", "ua-1"])
    elif name == "html":
        page = ["--to=html5", f"--template={TEMPLATE / 'book.html'}", f"--css={TEMPLATE / 'screen.css'}"]
        pandoc(out, date, *common, *web, *page, "--section-divs", "--embed-resources", "--standalone")
    else:
        shutil.copy(TEMPLATE / "title.typ", out / "title.typ")
        words = json.loads((out / "metadata.json").read_text(encoding="utf-8"))
        title = ", ".join(json.dumps(words[key], ensure_ascii=False) for key in ("title", "subtitle", "author"))
        write_text(out / "cover.typ", f'#import "/title.typ": title-page\n#title-page({title})\n')
        typeset(out, "cover.typ", out / "cover.png", date, format="png", ppi=160)
        pandoc(out, date, *common, *web, "--to=epub3", "--epub-cover-image=cover.png")
    return target


def build(choice: argparse.Namespace) -> None:
    """Runs the chapters and, unless only checking, writes the formats. Raises: BookError in one line."""
    began = time.perf_counter()
    book, chapters = load_book(choice.source)
    citations = re.findall(r"^@\w+\{\s*([^,\s]+)", (choice.source / "refs.bib").read_text(encoding="utf-8"), re.M)
    check_references({path: read_chapter(path) for path in chapters}, citations)
    fresh = choice.fresh or choice.check or choice.accept
    done = [run_chapter(path, choice.out, fresh) for path in chapters]
    moved: list[str] = []
    for path, chapter in zip(chapters, done):
        moved += hold(path, choice.source / "outputs" / f"{path.stem}.json", chapter["record"], choice.accept)
    outputs = sum(len(chapter["record"]) for chapter in done)
    if moved and choice.check:
        raise BookError(moved[0] + (f" (and {len(moved) - 1} more)" if len(moved) > 1 else ""))
    for line in moved:
        print(f"note: {line}")
    state = "see the notes above" if moved else "all as in the golden ones"
    print(f"chapters: {len(chapters)}, printed outputs: {outputs}, {state}  {time.perf_counter() - began:.1f} s")
    if choice.check:
        return
    texts = [choice.out / path.name for path in chapters]
    for text, chapter in zip(texts, done):
        write_text(text, chapter["text"])
    write_json(choice.out / "metadata.json", metadata(book, choice.source, chapters))
    date = datetime.fromisoformat(book["date"]).replace(tzinfo=UTC)
    for name in choice.formats:
        began = time.perf_counter()
        target = render(name, choice.out, texts, date)
        where = target.relative_to(Path.cwd()) if target.is_relative_to(Path.cwd()) else target
        print(f"{where}  {target.stat().st_size / 1000:,.0f} kB  {time.perf_counter() - began:.1f} s")


def main(argv: Sequence[str] | None = None, work: Callable[[argparse.Namespace], None] = build) -> int:
    """Returns the exit code: 0 done, 2 a mistake in the book (one line on stderr)."""
    if str(REPOSITORY) not in sys.path:
        sys.path.insert(1, str(REPOSITORY))
    try:
        work(options(argv))
    except GroundupError as error:
        message = str(error)
    except OSError as error:
        message = str(os_error(error))
    else:
        return 0
    print(f"book: {' '.join(message.split())}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
