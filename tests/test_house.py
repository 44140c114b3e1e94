"""The house keeps its promises: help without torch, lessons with proofs, public names that exist."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

from groundup.base.config import keys
from groundup.cli import VERBS, load, main

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "groundup"
FILES = [p for p in PACKAGE.rglob("*.py") if p.name not in ("__init__.py", "__main__.py")]
MODULES = sorted(p.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".") for p in FILES)
PLAIN = sorted(p for p in PACKAGE.rglob("plain*.py"))


@pytest.mark.parametrize("verb", ["", *VERBS])
def test_help_answers_without_torch(verb: str) -> None:
    code = (
        "import sys\nfrom groundup.cli import main\n"
        f"try:\n    main({[*verb.split(), '--help']!r})\nexcept SystemExit as stop:\n    assert not stop.code\n"
        "heavy = {'torch', 'numba', 'pyarrow', 'matplotlib', 'transformers'} & set(sys.modules)\nassert not heavy, heavy\n"
        + ("assert 'tyro' not in sys.modules and 'numpy' not in sys.modules" if not verb else "")
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: groundup" in done.stdout


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_defaults_for_all_and_explains_each_field(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    config = load(VERBS[verb].config)()
    assert callable(config.validate)
    assert callable(config.describe)
    with pytest.raises(SystemExit) as stop:
        main([*verb.split(), "--help"])
    assert not stop.value.code
    shown = capsys.readouterr().out
    for key in keys(type(config)):
        flag = f"--{key.replace('_', '-')}"
        positional = rf"\[{key.split('.')[-1].upper()}|\[PATH|\[STR"
        assert re.search(rf"{re.escape(flag)}\b[^\n]*\n?[^\n]*\S\s+\(default|{positional}", shown), flag


@pytest.mark.parametrize("module", MODULES)
def test_public_names_exist(module: str) -> None:
    loaded = importlib.import_module(module)
    assert loaded.__doc__
    for name in getattr(loaded, "__all__", ()):
        assert hasattr(loaded, name), f"{module}.__all__ lists {name}, which is not there"


@pytest.mark.parametrize("path", PLAIN, ids=lambda p: p.relative_to(PACKAGE).as_posix())
def test_every_lesson_is_proved_and_stays_a_lesson(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 300
    tree = ast.parse(text)
    proofs = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "tests" / "equal").glob("*.py"))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef) and node.end_lineno is not None:
            assert node.end_lineno - node.lineno < 40, f"{node.name} is longer than a screen"
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert re.search(rf"\b{node.name}\b", proofs), f"{path.name}: {node.name} has no equality test"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["daat"], "did you mean 'data stats'"),
        (["data"], "needs a second word"),
        (["pretrain", "--n-embd", "3"], "here that is --model.d-model"),
        (["pretrain", "--train.stesp", "3"], "did you mean --train.steps"),
        (["chat", "no-such-folder"], "no such folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    argv: list[str], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 2
    error = capfd.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("argv", "verbs"), [([], set(VERBS)), (["--help"], set(VERBS)), (["--help", "data"], None), (["data", "-h"], None)]
)
def test_help_lists_the_verbs_that_begin_so(
    argv: list[str], verbs: set[str] | None, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 0
    lines = capfd.readouterr().out.splitlines()
    listed = {name for name in VERBS if any(line.startswith(f"  {name}  ") for line in lines)}
    assert listed == (verbs or {name for name in VERBS if name.startswith("data ")})


@pytest.mark.parametrize("verb", VERBS)
def test_print_config_and_dry_run_write_nothing(
    verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([*verb.split(), "--print-config"]) == 0
    (tmp_path / "back.toml").write_text(capfd.readouterr().out)
    assert main([*verb.split(), "--config", "back.toml", "--print-config"]) == 0
    assert capfd.readouterr().out == (tmp_path / "back.toml").read_text()
    main([*verb.split(), "--dry-run"])  # may refuse what needs an argument, in one line
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back.toml"]


def test_no_machine_is_named() -> None:
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    texts = [p for f in files if (p := ROOT / f).suffix in {".py", ".md", ".toml", ".html", ".sh", ""} and p.is_file()]
    for path in texts:
        text = path.read_text(encoding="utf-8", errors="replace")
        assert not re.search(r"(?<![\w.])/(?:root|home|work)/[a-z]", text), f"{path} names a path of one machine"
