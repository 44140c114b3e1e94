"""docs/models.md names what is there: families, their classes, presets, flags, files."""

import re
from pathlib import Path

from groundup.base.config import keys
from groundup.cli import VERBS, load
from groundup.model.config import FAMILIES
from groundup.model.huggingface import CLASSES
from groundup.model.presets import PRESETS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")


def test_families_and_their_classes() -> None:
    rows = dict(re.findall(r"^\| `(\w+)`[^|]*\|[^|]*\|([^|]*)\|", PAGE, re.MULTILINE))
    assert rows.keys() == FAMILIES.keys()
    for family, classes in rows.items():
        if family in CLASSES:
            assert CLASSES[family] in classes
    assert CLASSES["mistral"] in rows["llama"]


def test_flags_presets_and_files_are_there() -> None:
    known = {"print_config"} | {k for verb in ("pretrain", "model show") for k in keys(load(VERBS[verb].config))}
    flags = re.findall(r"--([a-z][\w.-]+)", PAGE)
    assert len(flags) > 12
    for flag in flags:
        assert flag.replace("-", "_") in known, flag
    for preset in re.findall(r"preset ([\w.-]+)|model show ([\w.-]+)", PAGE):
        assert (preset[0] or preset[1]) in PRESETS
    for file in re.findall(r"`((?:groundup|benchmarks|docs)/[\w/.]+)`|\]\((\w[\w/.]+)\)", PAGE):
        assert (ROOT / file[0] if file[0] else ROOT / "docs" / file[1]).exists(), file
