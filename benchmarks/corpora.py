"""Corpora of real text for benchmarks/tokenizer.py, made from what a Debian machine can have; nothing is repeated.

    mkdir packages; cd packages; apt-get download PACKAGES...; for p in *.deb; do dpkg -x $p ${p%%_*}; done
    python benchmarks/corpora.py --packages packages --folder corpora [--megabytes 64]
    python benchmarks/corpora.py --packages packages --folder corpora --megabytes 1024 --corpora english multilingual code documentation

english: ../shared/data/text and raw (books, wiki), dictionaries (dict-gcide, dict-wn, dict-jargon), PostgreSQL's and Python's
manuals, the Linux kernel's. multilingual: the Debian Administrator's Handbook in 25 languages, manual pages in ten. code: the
Python standard library, then the packages installed beside the running interpreter. documentation: the pages of 30 manuals,
without their tags; with the other three it makes 1 GB of different text for `--part memory`.
"""

import argparse
import bz2
import gzip
import os
import re
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path

MANUALS = ["de", "es", "fr", "it", "ja", "pl", "pt-br", "ru", "uk", "zh"]
PACKAGES = ["dict-gcide", "dict-wn", "dict-jargon", "postgresql-doc-15", "python3.11-doc", "linux-doc-6.1", "debian-handbook",
            *(f"manpages-{language}" for language in MANUALS)]  # fmt: skip
MORE = ["apache2-doc", "bash-doc", "bind9-doc", "cmake-doc", "debian-faq", "debian-reference-en", "developers-reference", "erlang-doc",
        "git-doc", "libboost1.74-doc", "libglib2.0-doc", "libgtk-3-doc", "libstdc++-12-doc", "lilypond-doc-html", "maxima-doc",
        "nginx-doc", "octave-doc", "openjdk-17-doc", "python-django-doc", "python-scipy-doc", "python-sympy-doc", "python3.11-doc",
        "qtbase5-doc-html", "r-doc-html", "rust-doc", "sqlite3-doc", "zsh-doc", "linux-doc-6.1",
        "python-pandas-doc", "ghc-doc"]  # fmt: skip
NAMES = ("english", "multilingual", "code", "documentation")
TAGS = re.compile(rb"<(script|style).*?</\1>|<[^>]*>", re.DOTALL)


def read(path: Path) -> bytes:
    """Returns a file's text: unpacked, without HTML's tags, and only what is valid UTF-8."""
    raw = path.read_bytes()
    if path.suffix in (".gz", ".dz"):
        raw = gzip.decompress(raw)
    elif path.suffix == ".bz2":
        raw = bz2.decompress(raw)
    if ".html" in path.name:
        raw = re.sub(rb"\s*\n\s*", b"\n", TAGS.sub(b"", raw))
    return raw.decode("utf-8", "ignore").encode()


def files(root: Path, *patterns: str) -> list[Path]:
    """Returns the files below a folder in a fixed order, links apart."""
    found = (path for pattern in patterns for path in sorted(root.rglob(pattern)))
    return [path for path in found if path.is_file() and not path.is_symlink()]


def sources(name: str, data: Path, packages: Path) -> Iterator[Path]:
    """Yields the files of a corpus, most telling first; languages take turns."""
    if name == "english":
        yield from files(data / "text", "*.txt")
        yield from files(data / "raw", "gutenberg*.txt", "enwiki*.bz2")
        yield from files(packages / "dict-gcide", "*.dict.dz")
        yield from files(packages / "dict-wn", "*.dict.dz")
        yield from files(packages / "dict-jargon", "*.dict.dz")
        yield from files(packages / "postgresql-doc-15", "*.html")
        yield from files(packages / "python3.11-doc", "*.txt")
        yield from files(packages / "linux-doc-6.1", "*.txt", "*.rst.gz", "*.txt.gz")
    elif name == "multilingual":
        handbook = files(packages / "debian-handbook", "*.html")
        yield from sorted((path for path in handbook if "en-US" not in path.parts), key=lambda path: (path.name, path))
        for language in MANUALS:
            yield from files(packages / f"manpages-{language}", "*.[0-9]*.gz")
    elif name == "documentation":
        for package in MORE:
            yield from files(packages / package, "*.html")
    else:
        yield from files(Path(sysconfig.get_path("stdlib")), "*.py")
        yield from files(Path(sysconfig.get_path("purelib")), "*.py")


def build(folder: Path, data: Path, packages: Path, size: int, names: Sequence[str] = NAMES[:3]) -> dict[str, Path]:
    """Returns name -> file of at most `size` bytes for the corpora; writes those that are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}_{size >> 20}.txt" for name in names}
    for name, path in paths.items():
        if not path.exists():
            seen: set[int] = set()
            with open(path, "wb") as out:
                for source in sources(name, data, packages):
                    text = read(source)
                    if hash(text) not in seen:
                        seen.add(hash(text))
                        out.write(text[: size - out.tell()].decode("utf-8", "ignore").encode())
                    if out.tell() > size - 4:
                        break
        print(f"{path}: {path.stat().st_size:,} bytes")
    return paths


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    root = Path(__file__).parent.parent
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("GROUNDUP_DATA", root.parent / "shared" / "data"))
    )
    parser.add_argument(
        "--packages", type=Path, required=True, help=" ".join([*PACKAGES, "and for the documentation", *MORE])
    )
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--megabytes", type=int, default=64)
    parser.add_argument("--corpora", nargs="+", choices=NAMES, default=NAMES[:3])
    args = parser.parse_args()
    build(args.folder, args.data, args.packages, args.megabytes << 20, args.corpora)


if __name__ == "__main__":
    main()
