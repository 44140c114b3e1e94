"""A large file's parts are shared out among the tasks that read it: each is made once, whoever makes it."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from groundup.base.files import write_jsonl
from groundup.data import intake
from groundup.data.config import BuildConfig, ReadConfig
from groundup.data.decode import Stream
from groundup.data.formats import SourceFile
from groundup.data.intake import Reading, Watch, part_path, readings, take
from groundup.data.read import read_file
from groundup.data.sources import find_files
from groundup.data.stages import begin


@pytest.fixture
def tasks(tmp_path: Path) -> list[Reading]:
    """Three tasks for one file of seven parts."""
    rows = [{"text": f"Document {n} says something about the house. " * 8} for n in range(2700)]
    write_jsonl(tmp_path / "many.jsonl", rows)
    (tmp_path / "parts").mkdir()
    files, _ = find_files((tmp_path / "many.jsonl",), ReadConfig())
    begin(BuildConfig(project=tmp_path), [])
    return readings(files, tmp_path / "parts", 3, ReadConfig())


def made(tasks: list[Reading]) -> list[str]:
    return sorted(path.name for path in tasks[0].folder.glob("extracted-*.parquet"))


def whole(tasks: list[Reading], count: int) -> list[str]:
    return [part_path(tasks[0].folder, 0, number).name for number in range(count)]


def test_whoever_is_first_makes_all_that_is_left(tasks: list[Reading]) -> None:
    assert [task.turn for task in tasks] == [0, 1, 2]
    found = take(tasks[1])
    assert made(tasks) == whole(tasks, found.parts)
    assert found.parts == 7
    times = [path.stat().st_mtime_ns for path in sorted(tasks[0].folder.glob("*.parquet"))]
    assert [take(task).parts for task in tasks] == [7, 7, 7]
    assert [path.stat().st_mtime_ns for path in sorted(tasks[0].folder.glob("*.parquet"))] == times


def test_a_task_that_begins_again_makes_what_it_had_claimed_and_leaves_the_others(tasks: list[Reading]) -> None:
    take(tasks[0])
    lost, other = (part_path(tasks[0].folder, 0, number) for number in (2, 5))
    lost.unlink()
    other.unlink()
    other.with_suffix(".claim").unlink()
    os.symlink("2", other.with_suffix(".claim"))  # somebody else is at it
    take(tasks[0])
    assert lost.exists()
    assert not other.exists()


def test_claims_of_a_killed_run_are_void(tasks: list[Reading], tmp_path: Path) -> None:
    for number in range(7):
        os.symlink("1", part_path(tasks[0].folder, 0, number).with_suffix(".claim"))
    again = readings(tasks[0].files, tasks[0].folder, 3, ReadConfig())
    take(again[0])
    assert made(again) == whole(again, 7)


def test_on_a_disk_without_links_the_parts_are_dealt_out(tasks: list[Reading], monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "symlink", refused)
    take(tasks[1])
    assert made(tasks) == [part_path(tasks[0].folder, 0, number).name for number in (1, 4)]
    take(tasks[0])
    take(tasks[2])
    assert made(tasks) == whole(tasks, 7)


def test_how_far_the_reading_is_shows_while_one_file_is_read(
    tasks: list[Reading], monkeypatch: pytest.MonkeyPatch
) -> None:
    watch, real, seen = Watch(tasks, 2 * len(tasks)), intake.extract_part, list[int]()

    def seeing(task: object) -> object:
        seen.append(watch.bytes())
        return real(task)  # type: ignore[arg-type]

    monkeypatch.setattr(intake, "extract_part", seeing)
    take(tasks[1])
    size = tasks[0].files[0].path.stat().st_size
    assert watch.total == size
    assert seen[0] == 0
    assert seen == sorted(set(seen))
    assert len(seen) == 7
    assert size / 2 < seen[-1] < watch.bytes() == size
    tasks[1].place.write_text("")  # it is about to write
    watch.done = 3
    assert watch.bytes() == size
    again = Watch(readings(tasks[0].files, tasks[0].folder, 3, ReadConfig()), 6)
    assert again.bytes() == 0, "a killed run's word doesn't count"


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.gz", "parquet"])
def test_a_stream_tells_its_place_in_the_file(tmp_path: Path, kind: str) -> None:
    rows = [{"text": f"Document {n} says {n * 7919 % 10007} things."} for n in range(20_000)]
    path, places, opened = tmp_path / f"a.{kind}", list[int](), list[Stream]()
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=1000)
    else:
        write_jsonl(path, rows)
    for _ in read_file(SourceFile(path, path.name), ReadConfig(), opened):
        places.append(opened[0].place())
    size = path.stat().st_size
    assert len({place * 10 // (size + 1) for place in places}) >= 8, "it moves all the time"
    assert places == sorted(places)
    assert 0.9 * size < opened[0].place() <= size
