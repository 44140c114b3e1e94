"""Plain parallel layers (my_share, CopyToAll, SumOverAll, ColumnParallelLinear, RowParallelLinear, ParallelFeedForward,
average_gradients) and the fast gradient sum, on two real processes, against one.
"""

import os
import subprocess
import sys
from pathlib import Path


def test_two_processes_equal_one() -> None:
    worker = Path(__file__).parent / "parallel_worker.py"
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(worker)],
        capture_output=True, text=True, timeout=300, env={**os.environ, "OMP_NUM_THREADS": "1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "OK 0" in done.stdout
    assert "OK 1" in done.stdout
