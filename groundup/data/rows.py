"""A document on its way through the stages, and the files (parts) in which it waits between them."""

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from groundup.base.errors import StorageError
from groundup.base.files import atomic_file
from groundup.base.log import say
from groundup.data.extract import Drop

if TYPE_CHECKING:
    import numpy as np

__all__ = ["STAGES", "HEADING_MARK", "Row", "is_whole", "read_columns", "read_part", "site_of", "write_part"]

# What may turn a document away, in order; a file that can't be read is turned away before, by "read".
STAGES = ("extract", "url", "clean", "language", "quality", "decontaminate", "duplicates", "mix")

HEADING_MARK = "\x01"  # before a line that was a heading


@dataclass(frozen=True)
class Row:
    """A document on its way: its text, its fate so far, and what the global decisions need of it."""

    id: str
    text: str
    source: str
    kind: str
    meta: dict[str, Any]
    drop: Drop | None
    share: float  # the hash that decides whether it is held out
    raw_bytes: int
    prose: str = ""  # the text without its code, where it has both
    raw: str = ""  # the naive text, kept where nothing is filtered
    lines: list[str] = field(default_factory=list)  # prose lines that may be furniture of its site, headings marked
    exact: bytes = b""  # hash of the final text, 16 bytes
    signature: bytes = b""  # MinHash numbers, uint64
    words: int = 0  # of the final text, in the sense of the duplicates
    score: float = math.nan  # of a classifier or a model, where a file of scores is given
    size: int = 0  # bytes of the final text
    url: bytes = b""  # hash of its address, 16 bytes
    features: bytes = b""  # what the quality rules measured, float64


def write_part(path: Path, rows: Sequence[Row]) -> None:
    """Writes the rows of a part as Parquet, atomically: a part that exists is whole."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    string = pa.large_string()
    kinds = {"id": string, "text": string, "source": string, "kind": string, "meta": string, "drop": string, "share": pa.float64(),
             "raw_bytes": pa.int64(), "raw": string, "prose": string, "lines": pa.large_list(string), "exact": pa.binary(),
             "signature": pa.large_binary(),
             "words": pa.int64(), "score": pa.float64(), "size": pa.int64(), "url": pa.binary(), "features": pa.binary()}  # fmt: skip
    columns: dict[str, list[Any]] = {name: [getattr(row, name) for row in rows] for name in kinds}
    columns["meta"] = [json.dumps(row.meta, ensure_ascii=False) for row in rows]
    columns["drop"] = [json.dumps(row.drop, ensure_ascii=False) if row.drop else "" for row in rows]
    with atomic_file(path) as temporary:
        table = pa.table(columns, schema=pa.schema(list(kinds.items())))
        pq.write_table(table, temporary, compression="zstd", write_page_checksum=True)


def _table(path: Path, names: Sequence[str] | None = None) -> Any:
    """Returns some columns of a part, or all. Raises: StorageError where its bytes aren't those that were written; it is removed then."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path, columns=list(names) if names else None, page_checksum_verification=True)
    except (pa.ArrowInvalid, OSError) as error:
        if getattr(error, "errno", None):
            raise  # the system's complaint, not Parquet's
        path.unlink(missing_ok=True)
        why = str(error).partition("\n")[0]
        raise StorageError(
            f"{path}: damaged since it was written ({why}), so it is removed; run the same command again, it makes it anew"
        ) from error


def is_whole(path: Path) -> bool:
    """Returns whether a part is there, every byte as it was written; a damaged one is named and removed."""
    if not path.exists():
        return False
    try:
        _table(path)
    except StorageError as error:
        say(str(error).partition("; run")[0])
        return False
    return True


def read_columns(path: Path, names: Sequence[str]) -> "dict[str, np.ndarray]":
    """Returns some columns of a part as arrays."""
    table = _table(path, names)
    return {name: table[name].to_numpy() for name in names}


def read_part(path: Path, names: Sequence[str] | None = None) -> list[Row]:
    """Returns the rows of a part; columns that aren't asked for are empty."""
    empty = asdict(Row("", "", "", "", {}, None, 0.0, 0))
    rows = []
    for values in _table(path, names).to_pylist():
        values["meta"] = json.loads(values.get("meta") or "{}")
        values["drop"] = Drop(*json.loads(values["drop"])) if values.get("drop") else None
        rows.append(Row(**{**empty, **values}))
    return rows


def site_of(row: Row) -> str:
    """Returns the site whose furniture a page shares: its host, or its source where it has no address."""
    rest = str(row.meta.get("url", "")).partition("://")[2]
    return rest.partition("/")[0] or row.source
