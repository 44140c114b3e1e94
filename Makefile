# groundup. `make demo` and `make test` need nothing but Python 3.11 or newer; they build .venv when it is missing or outdated.

PYTHON ?= python3
TORCH_INDEX ?=# https://download.pytorch.org/whl/cpu avoids the CUDA build on a Linux machine without a GPU
ARGS ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
JOBS ?= 2

.PHONY: demo test test-all parity llama-cpp soak check format docs book wheel clean

demo: .venv/core.done
	$(BIN)/groundup demo $(ARGS)

test: .venv/dev.done
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope -m "not slow and not soak" $(ARGS)

test-all: .venv/dev.done
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope -m "not soak" $(ARGS)

parity: .venv/dev.done
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope --differences -q tests/model/test_parity.py tests/equal/test_model.py \
		tests/equal/test_model_numpy.py tests/equal/test_model_jax.py tests/export/test_import.py tests/export/test_nanogpt.py tests/export/test_llama_cpp.py $(ARGS)

soak: .venv/dev.done
	$(BIN)/python -m pytest -m soak $(ARGS)

check: .venv/dev.done
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/python docs/generate_cli.py --check
	$(BIN)/python docs/generate_troubleshooting.py --check
	$(BIN)/python benchmarks/readme.py --check

format: .venv/dev.done
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: .venv/dev.done
	$(BIN)/python docs/generate_cli.py
	$(BIN)/python docs/generate_troubleshooting.py
	$(BIN)/python benchmarks/readme.py

book: .venv/dev.done
	$(BIN)/python book/build.py $(ARGS)

wheel: .venv/dev.done
	$(BIN)/python -m pip --disable-pip-version-check wheel --quiet --no-deps --wheel-dir dist .

.venv/core.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "groundup needs Python 3.11 or newer; this is " + sys.version.split()[0] + " (make PYTHON=python3.12 demo)" or 0)'
	@echo "installing groundup into .venv (a few minutes the first time)"
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(PIP) -e .
	@touch $@

.venv/dev.done: pyproject.toml constraints.txt .venv/core.done
	@echo "installing what the tests use"
	$(PIP) -e '.[dev]'
	@touch $@

llama-cpp: .venv-llama-cpp/done

.venv-llama-cpp/done: benchmarks/peers/llama-cpp.txt
	@echo "building llama.cpp from source, for the tests of GGUF files (about 10 minutes on two cores)"
	$(PYTHON) -m venv .venv-llama-cpp
	.venv-llama-cpp/bin/pip --disable-pip-version-check install --quiet -r $<
	@touch $@

clean:
	rm -rf .venv .venv-llama-cpp build dist book/_build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
