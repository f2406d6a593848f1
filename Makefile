# Two commands from a fresh clone: `make train` and `make test`. Each makes the environment it needs.

PYTHON ?= python3
VENV ?= .venv
RUN ?= runs/phantom
BIN = $(VENV)/bin
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

# Extras that the tests are installed with: dev, or test for all of it but torch and what checks the code.
EXTRA ?= dev
# In the order of their folders: by their numbers of tests, the long files of a single test would come last.
PYTEST = $(if $(LIMITS),tests/limited.sh $(LIMITS)) $(BIN)/python -m pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: help train report test test-fast test-torch-free test-c-locale test-nobody test-offline test-accelerators test-schedulers
.PHONY: fuzz lint clean

help:
	@echo "make train      train the SimpleCNN on the phantom and draw its figures, into $(RUN)"
	@echo "make test       all tests but test-accelerators and test-schedulers"
	@echo "make test-fast  the tests that take seconds"
	@echo "make test-X     the same with less: X is torch-free, c-locale, nobody (not as root) or offline"
	@echo "make test-accelerators  compile the steps for a TPU and a GPU that aren't there, in an environment of its own"
	@echo "make test-schedulers  jobs of Slurm and Open MPI, where these are installed"
	@echo "make fuzz       random changes of files, 200 times as many as in the tests"
	@echo "make report     write the tables of the report and the README from docs/results, and check the numbers in the text"
	@echo "make lint       ruff and mypy"
	@echo "make clean      remove the environment and the caches, not the runs"

train: $(VENV)/.installed
	@$(BIN)/python -m train simplecnn --run-dir $(RUN) --overwrite
	@echo && echo "Figures:"
	@$(BIN)/python -m figures learning-curves $(RUN)
	@$(BIN)/python -m figures confusion-matrices $(RUN)

test: $(VENV)/.installed-dev
	$(PYTEST) -m "not schedulers"

test-schedulers: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m schedulers

test-fast: $(VENV)/.installed-dev
	$(PYTEST) -m "not slow" $(if $(TORCH_FREE),--torch-free)

test-torch-free:
	@$(MAKE) test-fast TORCH_FREE=1

test-c-locale test-nobody test-offline:
	@$(MAKE) test-fast LIMITS=$(@:test-%=%)

# Both compilers are packages that JAX would take for devices: not in the environment of the other tests.
ACCELERATORS = $(VENV)-accelerators
test-accelerators:
	@$(MAKE) $(ACCELERATORS)/.installed-dev VENV=$(ACCELERATORS) EXTRA=test,compile-cuda,compile-tpu
	JAX_PLATFORMS=cpu $(ACCELERATORS)/bin/python -m pytest -m accelerators

fuzz: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m fuzz --hypothesis-profile=fuzz

PAGES = docs/report.md docs/evaluation.md docs/segmentation.md README.md

report: $(VENV)/.installed-dev
	$(BIN)/cog -r -P -I . -p "from docs import report" $(PAGES)
	$(BIN)/python -m docs.tables $(PAGES)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("error: $(PYTHON) is older than 3.11; try make PYTHON=python3.12" if sys.version_info < (3, 11) else 0)'
	@echo "Installing into $(VENV) (about a minute) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests need into $(VENV) ..."
	@$(PIP) --editable '.[$(EXTRA)]'
	@touch $@

clean:
	rm -rf $(VENV) $(ACCELERATORS) build *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
