"""A bar follows work that others do."""

import threading
import time

import pytest

from groundup.base.log import progress


def test_a_bar_follows_what_others_do_until_they_are_done() -> None:
    come = [0.0]
    before = threading.active_count()
    with progress("reading", 100, "B") as bar, bar.follow(lambda: come[0]):
        for place in (40.0, 90.0):
            come[0] = place
            deadline = time.monotonic() + 20
            while bar.done != place and time.monotonic() < deadline:
                time.sleep(0.01)
            assert bar.done == place
            assert "of 100 B" in bar.line()
    assert threading.active_count() == before
    with pytest.raises(ValueError, match="their"), progress("reading", 1, "B") as bar, bar.follow(lambda: 0):
        raise ValueError("their mistake")
    assert threading.active_count() == before
