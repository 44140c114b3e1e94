"""What a file is: by its first bytes, and by its name where they can't tell; and which files of a source tree nobody wrote."""

import re
from pathlib import Path

from groundup.data.config import ReadConfig

__all__ = ["CODE", "KINDS", "foreign_file", "sniff", "suffix_of"]

CODE = {
    ".py": "Python", ".pyi": "Python", ".c": "C", ".h": "C", ".cc": "C++", ".cpp": "C++", ".hpp": "C++", ".rs": "Rust", ".go": "Go",
    ".java": "Java", ".js": "JavaScript", ".mjs": "JavaScript", ".ts": "TypeScript", ".tsx": "TypeScript", ".rb": "Ruby", ".php": "PHP",
    ".sh": "Shell", ".sql": "SQL", ".lua": "Lua", ".pl": "Perl", ".r": "R", ".jl": "Julia", ".scala": "Scala", ".kt": "Kotlin",
    ".swift": "Swift", ".cs": "C#", ".hs": "Haskell", ".ml": "OCaml", ".css": "CSS",
}  # fmt: skip
KINDS = {
    ".txt": "text", ".text": "text", ".md": "markdown", ".markdown": "markdown", ".rst": "markdown", ".html": "html", ".htm": "html",
    ".xhtml": "html", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".warc": "warc", ".wet": "warc", ".xml": "wiki",
    ".pdf": "pdf",
}  # fmt: skip
CONTAINERS = ("parquet", "warc", "wiki", "pdf")  # kinds that their first bytes prove
COMPRESSED = (".gz", ".bz2", ".zst", ".zstd")
VENDORED = frozenset(
    ("node_modules", "vendor", "third_party", "site-packages", "__pycache__", "bower_components", "dist", "build", "venv")
)  # fmt: skip
GENERATED = re.compile(
    r"\.min\.(?:js|css)$|_pb2(?:_grpc)?\.pyi?$|\.pb\.(?:go|cc|h)$|\.g\.cs$|\.designer\.cs$|\.d\.ts$", re.IGNORECASE
)


def suffix_of(name: str) -> str:
    """Returns the extension that tells the kind, without that of a compression."""
    path = Path(name.lower())
    return Path(path.stem).suffix if path.suffix in COMPRESSED else path.suffix


def foreign_file(label: str, config: ReadConfig) -> tuple[str, str] | None:
    """Returns (rule, message) for a file, or a folder whose label ends in "/", that isn't read where it lies; None for the others."""
    *folders, name = label.rstrip("/").split("/")
    if label.endswith("/"):
        return ("vendored", "generated or foreign files") if name in VENDORED or name.startswith(".") else None
    if any(folder in VENDORED or folder.startswith(".") for folder in folders):
        return "vendored", "generated or foreign files"
    suffix = suffix_of(name)
    if not (suffix in KINDS or (suffix in CODE and config.code)):
        return (
            "unknown_type",
            f"'{suffix}' is no text that groundup reads" if suffix else "its name doesn't say what it is",
        )
    if suffix in CODE and GENERATED.search(name):
        return "generated", "its name says that a tool wrote it"
    return None


def sniff(name: str, head: bytes) -> str:
    """Returns the kind of a file from its first bytes; the extension decides only where they can't. "" is nothing we read."""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        head = head.decode("utf-16", "ignore").encode()
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1024].lower()
    if head[:4] == b"PAR1":
        return "parquet"
    if start.startswith(b"%pdf-"):
        return "pdf"
    if start.startswith(b"warc/"):
        return "warc"
    if b"<mediawiki" in start:
        return "wiki"
    if start.startswith((b"<!doctype html", b"<html")):
        return "html"
    suffix = suffix_of(name)
    if suffix in CODE:
        return "code"
    kind = KINDS.get(suffix, "text")
    return "" if kind in CONTAINERS else kind  # "": the name promises what the bytes don't hold
