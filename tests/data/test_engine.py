"""The engine: order, bounds, cuts that depend on the items alone, and a worker that dies."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from groundup.base.errors import StorageError
from groundup.data.engine import batches, processes_for, workers

_offset = [0]


def prepare(offset: int) -> None:
    _offset[0] = offset


def work(number: int) -> int:
    time.sleep(0.002 * (number % 3))
    return number * 10 + _offset[0]


def die(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order(processes: int) -> None:
    with workers(processes, prepare, (7,)) as run:
        assert list(run(work, range(20))) == [n * 10 + 7 for n in range(20)]


def test_tasks_are_drawn_a_few_at_a_time() -> None:
    drawn: list[int] = []

    def tasks():  # type: ignore[no-untyped-def]
        for n in range(30):
            drawn.append(n)
            yield n

    with workers(2, prepare, (0,)) as run:
        results = iter(run(work, tasks()))
        next(results)
        assert len(drawn) <= 5
        assert len(list(results)) == 29


def test_a_worker_that_is_killed_is_named() -> None:
    with pytest.raises(StorageError, match="--processes 1"), workers(2, prepare, (0,)) as run:
        list(run(die, range(10)))


@pytest.mark.parametrize("start", ["os._exit(3)", "raise ValueError('no start')"])
def test_a_worker_that_dies_at_its_start_is_named_at_once(start: str) -> None:
    with pytest.raises(StorageError, match="a worker process died"), workers(2, exec, (f"import os; {start}",)) as run:
        list(run(len, [bytes(1 << 20)] * 8))


def test_a_script_without_a_main_guard_fails_and_does_not_hang(tmp_path: Path) -> None:
    script = tmp_path / "build.py"
    script.write_text("from groundup.data.engine import workers\n"
                      "with workers(2, len, (b'x' * 1_000_000,)) as run:\n    list(run(len, [b'x'] * 9))\n")  # fmt: skip
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert 'must do so under `if __name__ == "__main__":`' in done.stderr


def test_batches_are_cut_by_size_and_count() -> None:
    assert list(batches([1, 2, 3, 4, 5], lambda _: 1, 100, 2)) == [[1, 2], [3, 4], [5]]
    assert list(batches([1, 9, 9, 1], lambda n: n, 10, 100)) == [[1, 9], [9, 1]]
    assert list(batches([], lambda _: 1, 1, 1)) == []


def test_small_inputs_need_no_processes() -> None:
    assert processes_for(0, 1000) == 1
    assert processes_for(3, 1000) == 3
    assert processes_for(0, 1 << 30) >= 1
