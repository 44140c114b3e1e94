"""Short texts are encoded without compiled kernels, and many of them with."""

import subprocess
import sys

import pytest

from groundup.tokenizer.encode import Tokenizer


def test_short_texts_compile_nothing() -> None:
    code = (
        "import sys\nfrom groundup.tokenizer.encode import Tokenizer\n"
        "t = Tokenizer([(97, 98)])\nassert t.decode(t.encode('ab ' * 1000)) == 'ab ' * 1000\n"
        "assert not {'numba', 'numpy', 'torch'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_many_short_texts_do_compile_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundup.tokenizer.encode.WORTH_COMPILING", 5000)
    tokenizer = Tokenizer([(97, 98)])
    for _ in range(20):
        assert len(tokenizer.encode("ab " * 150)) == 300
    assert "_engine" in tokenizer.__dict__
    assert tokenizer.encode("ab") == [256]
