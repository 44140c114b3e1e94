"""The config of `groundup report`."""

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from groundup.base.errors import ConfigError

__all__ = ["ReportConfig"]


@dataclass(frozen=True)
class ReportConfig:
    """Where the project is and where the page goes."""

    project: Positional[Path] = Path("my-llm")  # the project folder
    out: Path | None = None  # the page's file; report.html in the project if not given

    @property
    def target(self) -> Path:
        """The file that is written."""
        return self.out or self.project / "report.html"

    def validate(self) -> None:
        """Raises: ConfigError if the project isn't a folder or the target is one."""
        if not self.project.is_dir():
            raise ConfigError(f"{self.project}: no such folder; a project of groundup was expected")
        if self.target.is_dir():
            raise ConfigError(f"--out {self.target} is a folder; name a file such as report.html")

    def describe(self) -> list[str]:
        """Returns what would be read and written."""
        return [f"read the runs in {self.project}", f"write {self.target}"]
