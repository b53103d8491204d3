# make demo | make test: each sets up what it needs in .venv, once, and does its job. make test-slow runs what takes long:
# killed and distributed trainings, PostgreSQL, a browser, the pages' commands, notebooks.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# One thread per process: several threads on few cores wait for each other more than they compute.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test test-slow lint docs bench bench-gpu fuzz pretrain dashboard clean

# Two threads are half as fast again, where nothing else runs; a worker for the data would gain nothing.
demo: $(VENV)/.installed
	OMP_NUM_THREADS=2 $(BIN)/lightning-cells demo

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

docs: $(VENV)/.installed-docs
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -b html docs docs/_build/html
	@echo "The documentation is docs/_build/html/index.html"

bench: $(VENV)/.installed-bench
	$(BIN)/python benchmarks/record.py

bench-gpu: $(VENV)/.installed
	$(BIN)/python benchmarks/record.py gpu

# Thousands of damaged files, with the same seed the same ones: a quarter of an hour on two cores.
fuzz: $(VENV)/.installed-test
	$(BIN)/python benchmarks/fuzz.py

# Makes lightning_cells/pretrained/nuclei.ckpt: an hour. After a kill the same command goes on.
pretrain: $(VENV)/.installed
	test -d data/varied || $(BIN)/lightning-cells simulate data/varied --kind varied --sequences 960 --frames 2 --size 208 208 --seed 3
	$(BIN)/lightning-cells fit -c conf/method/ulstm/small.yaml -c conf/trainer/cpu.yaml --seed_everything 1 \
		--data.root data/varied --data.train '["??", "[1-8]??", "9[0-4]?"]' --data.val '["95?"]' --data.test '["960"]' \
		--checkpoint.folder outputs/pretraining/nuclei --ckpt_path last
	$(BIN)/python -m lightning_cells.methods.pretrained outputs/pretraining/nuclei/last.ckpt nuclei

dashboard: $(VENV)/.installed
	$(BIN)/lightning-cells dashboard

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[test,lint]"
	touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-test
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[bench]"
	touch $@

clean:
	rm -rf $(VENV) build dist
