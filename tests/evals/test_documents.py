"""`groundup eval perplexity`: bits per byte of each document, alone, as a column that `data build` filters on."""

import json
import shlex
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from groundup.base.config import load_toml
from groundup.base.errors import ConfigError, DataError
from groundup.base.files import write_jsonl
from groundup.base.records import Document, write_documents
from groundup.base.runs import open_run, record, write_checkpoint
from groundup.cli import main as cli_main
from groundup.data.build import build
from groundup.data.config import BuildConfig, ScoresConfig
from groundup.evals.config import PerplexityConfig
from groundup.evals.documents import main
from groundup.evals.perplexity import bits_of_each, bits_per_byte
from groundup.model.transformer import Transformer
from groundup.model.weights import save_model
from groundup.tokenizer.encode import Tokenizer
from groundup.tokenizer.io import save

TEXTS = [
    "What is 1 + 1?",
    "a" * 150,
    "",
    "Zwölf Bären and a house by the river, said the people of the village that winter.",
]


@pytest.fixture
def project(tmp_path: Path, model: Transformer, tokenizer: Tokenizer) -> Path:
    """A project with a base model and a file of documents."""
    run = open_run(tmp_path, "pretrain")
    with record(run, "", {}, 0), write_checkpoint(run.path, 1) as folder:
        save_model(model, folder)
        save(tokenizer, folder / "tokenizer.json")
    write_documents(tmp_path / "d.parquet", [Document(f"d{k}", text) for k, text in enumerate(TEXTS)])
    return tmp_path


def test_each_document_is_measured_as_if_it_were_alone(model: Transformer, tokenizer: Tokenizer) -> None:
    found = bits_of_each(model, tokenizer, TEXTS)
    assert np.isnan(found[2])
    for text, bits in zip(TEXTS, found):
        if text:
            assert bits == pytest.approx(bits_per_byte(model, tokenizer, [text])["value"], rel=1e-5)
    assert np.isnan(bits_of_each(model, tokenizer, [""])).all()


def test_the_column_can_be_filtered_on(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_jsonl(project / "raw.jsonl", [{"id": f"t{k}", "text": f"The {k}th of the stories that people have: {text}"} for k, text in
                                        enumerate(TEXTS[3:] * 3)])  # fmt: skip
    config = BuildConfig(project=project, input=(project / "raw.jsonl",), heldout=0.0)
    build(config)
    main(PerplexityConfig(project))
    shown = capsys.readouterr().out
    assert "--scores.column bits_per_byte --scores.better low --scores.most" in shown
    assert (
        cli_main(shlex.split(shown.rpartition("next: ")[2])[1:]) == 0
    )  # as it is printed: with the build's own settings
    again = load_toml(open_run(project, "data").path / "config.toml")
    assert again["heldout"] == 0.0
    assert again["scores"]["better"] == "low"
    rows = pq.read_table(project / "perplexity.parquet").to_pylist()
    assert {row["id"] for row in rows} == {f"raw.jsonl:t{k}" for k in range(3)}
    worst = max(rows, key=lambda row: row["bits_per_byte"])
    scores = ScoresConfig(
        project / "perplexity.parquet", "bits_per_byte", most=worst["bits_per_byte"] - 1e-6, better="low"
    )
    run = build(BuildConfig(project=project, name="filtered", input=config.input, heldout=0.0, scores=scores))
    funnel = {row["rule"]: row for row in json.loads((run.path / "stats.json").read_text())["funnel"]}
    assert (funnel["score"]["dropped"], funnel["score"]["example_id"]) == (1, worst["id"])


def test_an_empty_document_has_no_score_and_a_long_one_is_read_at_its_beginning(project: Path) -> None:
    main(PerplexityConfig(project, input=(project / "d.parquet",), out=project / "all.parquet"))
    main(PerplexityConfig(project, input=(project / "d.parquet",), out=project / "head.parquet", max_chars=14))
    whole, head = (
        pq.read_table(project / name)["bits_per_byte"].to_pylist() for name in ("all.parquet", "head.parquet")
    )
    assert whole[2] is None
    assert whole[0] == pytest.approx(head[0], rel=1e-5)
    assert whole[1] != pytest.approx(head[1], rel=1e-3)


def test_mistakes_are_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main(["eval", "perplexity", str(project)]) == 2
    assert "run `groundup data build" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="not 'rlhf'"):
        PerplexityConfig(project, stage="rlhf").validate()
    write_documents(project / "e.parquet", [Document("d", "")])
    with pytest.raises(DataError, match="no document with a text"):
        main(PerplexityConfig(project, input=(project / "e.parquet",)))
    assert not (project / "perplexity.parquet").exists()
