"""The doctor beside a run that trains: the checks that its figures suffice for, while there is still time to mend something."""

import time
from typing import Any

from groundup.base.log import command
from groundup.base.runs import Run
from groundup.doctor.facts import Facts
from groundup.doctor.faults import diagnose

__all__ = ["Live"]

ROWS = 10  # of metrics between two examinations
MOST = 1000  # rows that are kept, so that memory doesn't grow with the run
GRACE_S, SHARE = 1.0, 0.005  # the time that they may take: a second, and half a percent of the run's


class _Bedside:
    """One run: what has been said of it, and how much of its time the examinations have taken."""

    def __init__(self, run: Run) -> None:
        self.run, self.facts = run, Facts(run)
        self.rows = self.facts.rows[:-1]  # the newest is handed over by itself
        self.said = {row["alarm"] for row in self.rows if "alarm" in row}
        self.new, self.spent_s, self.begun, self.over = 0, 0.0, time.monotonic(), False

    def row(self, row: dict[str, Any]) -> None:
        """Takes a row, and examines the run if it is time to."""
        while self.rows and self.rows[-1]["step"] > row["step"]:  # the run went back to a checkpoint
            self.rows.pop()
        self.rows.append(row)
        self.new += 1
        self.thin()
        now = time.monotonic()
        if self.new >= ROWS and not self.over and self.spent_s <= GRACE_S + SHARE * (now - self.begun):
            self.new, self.facts = 0, self.facts.again(list(self.rows))
            self.examine(self.facts)
            self.spent_s += time.monotonic() - now

    def thin(self) -> None:
        """Drops every other row of the older half where there are many: of a run's beginning its course is enough."""
        while len(self.rows) > MOST:
            self.rows[: MOST // 2] = self.rows[: MOST // 2 : 2]

    def examine(self, facts: Facts) -> None:
        """Says the faults that haven't been said, each in one line, and writes them as rows."""
        for fault, finding in diagnose(facts, live=True):
            if not finding.note and fault.key not in self.said:
                self.said.add(fault.key)
                text = f"{fault.symptom[0].lower()}{fault.symptom[1:]} ({finding.seen[0]}). {fault.remedy}"
                self.run.metric(step=facts.done, alarm=fault.key, text=text)
                self.run.log(f"doctor: step {facts.done}: {text}. More: {command('doctor', self.run.path)}")


class Live:
    """Looks on at whatever trains: each time a run has written ten rows more, it is examined for the faults that are `live`.

    A fault is said once in a run; a row {"step", "alarm": its key, "text"} keeps it, so that a resumed run doesn't say it again.
    """

    def __init__(self) -> None:
        self.at: _Bedside | None = None

    def __call__(self, run: Run, row: dict[str, Any]) -> None:
        """Takes notice of a new row. An examination that fails says so and is the last: it must not cost the run."""
        if self.at is None or self.at.run.path != run.path:
            self.at = _Bedside(run)
        try:
            self.at.row(row)
        except Exception as error:
            run.log(f"doctor: looks on at this run no more ({type(error).__name__}: {error})")
            self.at.over = True
