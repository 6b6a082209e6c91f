# Two commands: `make demo` shows what assay does on real data, `make test` checks the code.
# Both work in .venv, and install only when pyproject.toml or constraints.txt changed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALL := -m pip install --quiet --disable-pip-version-check
PIP := $(BIN)/python $(INSTALL) --constraint constraints.txt
INPUTS := pyproject.toml constraints.txt
NEWEST := .venv-newest

# Tests start hundreds of processes: what is compiled is kept, whatever the shell says.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo docs test quick test-slow test-cluster test-browser test-wheel test-unpinned lint clean

help:
	@echo "make demo           install, then bracket the robust accuracy of a small network (page to look at in out/demo)"
	@echo "make test           install the test extras, then lint, type-check and test"
	@echo "make test-slow      the rest of the breadth: more seeds and networks, and tests that take long"
	@echo "make test-cluster   install Ray, and test the executor that works on a cluster"
	@echo "make test-browser   look at the pages of reports in Chromium or Chrome, which has to be installed"
	@echo "make test-wheel     build the wheel and the source archive, and use them as a user does"
	@echo "make test-unpinned  answer a property with the newest packages that pyproject.toml allows"
	@echo "make docs           the documentation as pages, in out/site; a warning is an error"
	@echo "make clean          remove .venv, $(NEWEST) and caches"

demo: $(VENV)/.installed
	$(BIN)/assay compare --model zoo:digits-mlp-pgd --data digits --eps 0.02,0.05,0.1 \
		--methods ibp,crown --attacks fgsm,pgd --n 200 --out out/demo --report out/demo/report.html
	@echo "Open in a browser: file://$(CURDIR)/out/demo/report.html"

docs: $(VENV)/.installed
	$(PIP) --editable ".[docs]"
	$(BIN)/mkdocs build --strict

# mypy takes one core, and most of a minute where nothing is cached: tests run meanwhile.
test: $(VENV)/.installed-test
	$(MAKE) --jobs=2 lint quick

# Neighbours stay together: what they share, such as the truth about a random network, is computed once a process.
quick: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal --slow -m "slow and not wheel"

test-cluster: $(VENV)/.installed-test
	$(PIP) --editable ".[ray]"
	$(BIN)/python -m pytest --slow tests/verify/support/test_cluster.py

# Only this target needs Playwright; the browser is the system's.
test-browser: $(VENV)/.installed-test
	$(PIP) --editable ".[browser]"
	$(BIN)/python -m pytest --slow tests/benchmarks/report/test_in_a_browser.py

test-wheel: $(VENV)/.installed-test
	$(BIN)/python -m pytest --slow -m wheel

# Only torch keeps its version. The venv is made anew each time: what is newest changes without a change here.
test-unpinned:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python $(INSTALL) $(shell grep '^torch==' constraints.txt)
	$(NEWEST)/bin/python $(INSTALL) .
	$(NEWEST)/bin/python tests/front_door.py

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
	rm -rf $(VENV) $(NEWEST) .pytest_cache .mypy_cache .ruff_cache .hypothesis
