"""The records that flow between stages: documents, messages, preferences, problems; JSONL and Parquet."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from groundup.base.errors import DataError
from groundup.base.files import atomic_file, os_error, read_jsonl

__all__ = ["Document", "Message", "Preference", "Problem", "read_chats", "read_documents", "read_preferences",
           "read_problems", "write_documents"]  # fmt: skip

ROLES = ("system", "user", "assistant")
COLUMNS = (
    "url",
    "lang",
    "licence",
    "date",
)  # of `meta`, in Parquet columns of their own too: people select documents by them


@dataclass(frozen=True)
class Document:
    """A text and where it came from. `meta` holds plain JSON values; url, lang, licence, date and title by those names."""

    id: str
    text: str
    source: str = ""
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Message:
    """One turn of a conversation, in OpenAI's form. `role` is system, user or assistant."""

    role: str
    content: str


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, of which people (or a verifier) prefer `chosen`."""

    prompt: tuple[Message, ...]
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Problem:
    """A question whose answer a program can check. `id` is a hash of the question: it decides who may see it."""

    id: str
    skill: str
    question: str
    answer: str


def write_documents(path: Path | str, documents: Iterable[Document], batch: int = 1000) -> int:
    """Writes documents to Parquet (columns id, text, source, url, lang, licence, date, meta as JSON), atomically; returns the count."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema([(name, pa.large_string()) for name in ("id", "text", "source", *COLUMNS, "meta")])
    count = 0
    rows: list[Document] = []
    with atomic_file(path) as temporary, pq.ParquetWriter(temporary, schema, compression="zstd") as writer:

        def flush() -> None:
            columns = [[d.id for d in rows], [d.text for d in rows], [d.source for d in rows],
                       *([d.meta.get(name) for d in rows] for name in COLUMNS),
                       [json.dumps(d.meta, ensure_ascii=False, sort_keys=True) for d in rows]]  # fmt: skip
            writer.write_table(pa.table(columns, schema=schema))
            rows.clear()

        for document in documents:
            rows.append(document)
            count += 1
            if len(rows) >= batch:
                flush()
        if rows:
            flush()
    return count


def read_documents(path: Path | str, group: int | None = None) -> Iterator[Document]:
    """Yields the documents of a Parquet file, or of one of its row groups, a few at a time. Raises: DataError for a foreign one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        if "text" not in file.schema_arrow.names:
            raise DataError(f"{path}: no column 'text' (columns: {', '.join(file.schema_arrow.names)})")
        number = sum(file.metadata.row_group(k).num_rows for k in range(group or 0))
        for batch in file.iter_batches(batch_size=512, row_groups=None if group is None else [group]):
            for row in batch.to_pylist():
                number += 1
                meta, known = row.get("meta"), {name: str(row[name]) for name in COLUMNS if row.get(name)}
                yield Document(
                    id=str(row.get("id") or f"{Path(path).name}:{number}"),
                    text=row["text"] or "",
                    source=str(row.get("source") or Path(path).name),
                    meta=known | (json.loads(meta) if isinstance(meta, str) else dict(meta or {})),
                )
    except pa.ArrowInvalid as error:
        raise DataError(f"{path}: not a whole Parquet file ({str(error).splitlines()[0]})") from error
    except OSError as error:
        raise os_error(error, path) from error


def _messages(rows: Any, where: str) -> tuple[Message, ...]:
    """Returns checked messages of a JSON list. Raises: DataError naming the row."""
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{where}: 'messages' must be a list that isn't empty")
    for row in rows:
        if not isinstance(row, dict) or row.get("role") not in ROLES or not isinstance(row.get("content"), str):
            raise DataError(f"{where}: a message needs 'role' ({', '.join(ROLES)}) and 'content' (text)")
    return tuple(Message(row["role"], row["content"]) for row in rows)


def read_chats(path: Path | str) -> Iterator[tuple[Message, ...]]:
    """Yields conversations from JSONL rows `{"messages": [{"role", "content"}, ...]}`. Raises: DataError naming the row."""
    for number, row in enumerate(read_jsonl(path), 1):
        yield _messages(row.get("messages"), f"{path}, row {number}")


def read_preferences(path: Path | str) -> Iterator[Preference]:
    """Yields rows `{"prompt": [messages], "chosen": str, "rejected": str}`. Raises: DataError naming the row."""
    for number, row in enumerate(read_jsonl(path), 1):
        where = f"{path}, row {number}"
        prompt = _messages(row.get("prompt"), where)
        if not isinstance(row.get("chosen"), str) or not isinstance(row.get("rejected"), str):
            raise DataError(f"{where}: 'chosen' and 'rejected' must be text")
        yield Preference(prompt, row["chosen"], row["rejected"])


def read_problems(path: Path | str) -> Iterator[Problem]:
    """Yields rows `{"id", "skill", "question", "answer"}`. Raises: DataError naming the row and the key."""
    for number, row in enumerate(read_jsonl(path), 1):
        if missing := [k for k in ("id", "skill", "question", "answer") if not isinstance(row.get(k), str)]:
            raise DataError(f"{path}, row {number}: '{missing[0]}' is missing or not text")
        yield Problem(row["id"], row["skill"], row["question"], row["answer"])
