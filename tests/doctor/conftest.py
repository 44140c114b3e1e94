"""A tiny project and a healthy run, made once for all tests of the room."""

from pathlib import Path

import pytest

from groundup.base.runs import Run
from tests.doctor.planting import story, train, write_project


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of 300 stories."""
    folder = tmp_path_factory.mktemp("doctor") / "p"
    return write_project(folder, [story(i) for i in range(300)], [story(10_000 + i) for i in range(20)])


@pytest.fixture(scope="session")
def healthy(project: Path) -> Run:
    """A run without a fault."""
    return train(project, "healthy")
