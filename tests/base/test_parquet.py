"""Parquet files joined without decoding them read as their tables one after the other, by every reader there is."""

import random
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from groundup.base.errors import DataError
from groundup.base.parquet import join_parquet

LETTERS = "abcdefgh ßλ語"


def table(dice: random.Random, rows: int) -> pa.Table:
    """A table with a column of each kind."""
    texts = ["".join(dice.choices(LETTERS, k=dice.randrange(300))) for _ in range(rows)]
    return pa.table({"id": pa.array([f"{dice.random()}" for _ in texts], pa.large_string()), "text": pa.array(texts, pa.large_string()),
                     "none": pa.array([None if dice.random() < 0.5 else 1 for _ in texts], pa.int64()),
                     "odd": pa.array([len(text) % 2 == 1 for text in texts], pa.bool_()),
                     "list": pa.array([text.split() for text in texts], pa.list_(pa.string())),
                     **{f"f{k}": pa.array([dice.gauss(0, 1) for _ in texts], pa.float64()) for k in range(20)}})  # fmt: skip


def parts(folder: Path, sizes: list[int], **options: object) -> tuple[list[Path], pa.Table]:
    dice = random.Random(len(sizes))
    tables = [table(dice, size) for size in sizes]
    paths = [folder / f"{k}.parquet" for k in range(len(tables))]
    for path, rows in zip(paths, tables):
        pq.write_table(rows, path, compression="zstd", **options)
    return paths, pa.concat_tables(tables)


@pytest.mark.parametrize("options", [{}, {"row_group_size": 7, "write_page_index": True, "write_page_checksum": True},
                                     {"use_dictionary": False, "write_statistics": False, "data_page_version": "2.0"}])  # fmt: skip
def test_what_is_joined_reads_as_the_tables_one_after_the_other(tmp_path: Path, options: dict[str, object]) -> None:
    paths, whole = parts(tmp_path, [3, 0, 40, 1, 25], **options)
    join_parquet(paths, tmp_path / "all.parquet")
    assert pq.read_table(tmp_path / "all.parquet", page_checksum_verification=True).equals(whole)
    file = pq.ParquetFile(tmp_path / "all.parquet")
    assert file.metadata.num_row_groups == sum(pq.read_metadata(path).num_row_groups for path in paths)
    assert pa.concat_tables(file.read_row_group(k) for k in range(file.metadata.num_row_groups)).equals(whole)
    found = ds.dataset(tmp_path / "all.parquet").to_table(filter=ds.field("f3") > 1)
    assert found.num_rows == sum(value > 1 for value in whole["f3"].to_pylist())


def test_joining_again_gives_the_same(tmp_path: Path) -> None:
    paths, whole = parts(tmp_path, [5] * 20)
    join_parquet(paths[:9], tmp_path / "first.parquet")
    join_parquet([tmp_path / "first.parquet", *paths[9:]], tmp_path / "second.parquet")
    join_parquet(paths, tmp_path / "all.parquet")
    assert (tmp_path / "second.parquet").read_bytes() == (tmp_path / "all.parquet").read_bytes()
    assert pq.read_table(tmp_path / "all.parquet").equals(whole)


def test_files_without_rows_leave_one_without_rows(tmp_path: Path) -> None:
    paths, whole = parts(tmp_path, [0, 0])
    join_parquet(paths, tmp_path / "all.parquet")
    assert pq.read_table(tmp_path / "all.parquet").equals(whole)


@pytest.mark.parametrize("data", [b"", b"PAR1", b"PAR1 and no more of it", b"PAR1" + b"\xff" * 8 + b"PAR1"])
def test_a_file_that_is_not_whole_is_named(tmp_path: Path, data: bytes) -> None:
    paths, _ = parts(tmp_path, [2, 2])
    paths[1].write_bytes(data)
    with pytest.raises(DataError, match=r"1\.parquet: not a whole Parquet file"):
        join_parquet(paths, tmp_path / "all.parquet")
    assert not (tmp_path / "all.parquet").exists()
