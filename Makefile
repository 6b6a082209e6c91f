# Two commands: `make demo` shows what assay does on real data, `make test` runs every check.
# Both work in .venv, and install only when pyproject.toml or constraints.txt changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt

.PHONY: help demo test lint clean

help:
	@echo "make demo   install, then bracket the robust accuracy of a small network (results in out/demo)"
	@echo "make test   install the test extras, then lint, type-check and test"
	@echo "make clean  remove .venv and caches"

demo: $(VENV)/.installed
	$(BIN)/assay compare --model zoo:digits-mlp-pgd --data digits --eps 0.02,0.05,0.1 \
		--methods ibp,crown --attacks fgsm,pgd --n 200 --out out/demo

test: $(VENV)/.installed-test lint
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# torch comes first and pinned: a looser request can pull several GB of packages for accelerators. auto_LiRPA asks
# for a torch of 2022 and runs with today's, so it is installed without its dependencies; torchattacks asks for
# torchvision and never imports it.
$(VENV)/.installed: $(INPUTS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch
	$(PIP) --editable .
	$(PIP) --no-deps auto_LiRPA
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) --editable ".[test]"
	$(PIP) --no-deps torchattacks
	touch $@

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
