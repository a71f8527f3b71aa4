# One command for each thing one wants: `make help` lists them. Everything is made from what is in git, in .venv (with
# PYTHON_ENV=none in the active environment, which has the library), and only what is older than its sources is made
# again.

PYTHON   ?= python3
VENV     := .venv
ifeq ($(PYTHON_ENV),none)
BIN      := $(shell dirname "$$(command -v python)")
SET_UP   :=
else
BIN      := $(VENV)/bin
SET_UP   := $(VENV)/set-up
endif
BOOK     := _build/html/index.html

SOURCES  := $(wildcard notebooks/*.py)
PAGES    := $(SOURCES:notebooks/%.py=book/executed/%.ipynb)
LIBRARY  := $(shell find robustness_lib -type f -not -path '*/__pycache__/*')
RESULTS  := $(sort $(wildcard book/results/*.jsonl))
ALL      := index claims data_size cost provenance  # the pages that read the results of several sections
LIST     := book/executed/.results
PROSE    := README.md _config.yml _toc.yml $(wildcard book/*.md book/api/*.md book/*.bib book/_static/* book/_ext/*.py)

export PYDEVD_DISABLE_FILE_VALIDATION := 1
# Everything here computes with tiny networks. `make book OMP_NUM_THREADS=8` has more threads.
export OMP_NUM_THREADS ?= 1
# Else every process of the tests would compile the library again.
export PYTHONDONTWRITEBYTECODE :=
CORES := $(shell env -u OMP_NUM_THREADS nproc 2>/dev/null || echo 2)

.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: help setup book test lint format notebooks readme clean FORCE
.DEFAULT_GOAL := help

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "make %-10s %s\n", $$1, $$2}'

setup: $(SET_UP) ## set up .venv only: the library, its command and its tools

book: $(SET_UP) ## set up, execute what changed, build the book and say where it is
	@$(MAKE) --no-print-directory --jobs=$(CORES) _build/book  # pages side by side
	@echo "The book: file://$(CURDIR)/$(BOOK)"

test: lint ## everything that CI runs: style, types, tests, and the book with warnings as errors
	$(BIN)/pytest -n 2 --dist loadscope --no-loadscope-reorder
	@$(MAKE) --no-print-directory book

lint: $(SET_UP) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(SET_UP) ## mend the style, as far as a machine can; `make lint` says what is left
	$(BIN)/ruff check --quiet --fix-only .
	$(BIN)/ruff format .

notebooks: $(SET_UP) ## bring notebooks/*.ipynb into step with their sources, notebooks/*.py
	$(BIN)/jupytext --quiet --to ipynb --update $(SOURCES)

readme: $(SET_UP) ## write the results and the picture in README.md from the recorded results
	$(BIN)/python book/readme.py

clean: ## remove what is made, but neither .venv nor results (runs/, book/results/)
	rm -rf _build book/executed runs/notebooks .mypy_cache .pytest_cache .ruff_cache

# ---- what is made from what

.venv/set-up: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, but $(PYTHON) is " + sys.version.split()[0] + ": make PYTHON=python3.11")'
	@echo "Setting up $(VENV): a few minutes, 6 GB on Linux (PyTorch with its CUDA libraries)"
	@test -x $(BIN)/python || $(PYTHON) -m venv --clear $(VENV)  # of two Pythons a mixture would come out
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --requirement constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

notebooks/%.ipynb: notebooks/%.py jupytext.toml | $(SET_UP)
	$(BIN)/jupytext --quiet --to ipynb --update $<
	@touch $@

# A page reads its section's recorded results, and those that belong to no section (pre-training); the pages about
# everything read them all.
book/executed/%.ipynb: notebooks/%.ipynb $(LIBRARY) $(SET_UP)
	@mkdir -p runs/notebooks
	$(BIN)/papermill --log-level WARNING --no-progress-bar $< runs/notebooks/$*.ipynb
	@$(BIN)/python -m robustness_lib.notebook runs/notebooks/$*.ipynb $@

# A results file that is gone is no prerequisite of anything, so pages also depend on the list of those files, which is
# written only when it differs. (The folder's own time will not do: publishing puts each file anew into its place.)
$(LIST): FORCE
	@echo '$(RESULTS)' | cmp -s - $@ || { mkdir -p $(@D); echo '$(RESULTS)' > $@; }

$(PAGES): $(LIST)
$(foreach file,$(RESULTS),$(eval book/executed/$(basename $(notdir $(file))).ipynb: $(file)))
$(PAGES): $(filter-out $(SOURCES:notebooks/%.py=book/results/%.jsonl),$(RESULTS))
$(ALL:%=book/executed/%.ipynb): $(RESULTS)

# All pages are written anew unless nothing but results changed: their menus show the titles of all.
_build/book: $(PAGES) $(SOURCES) $(PROSE) $(LIBRARY) $(SET_UP)
	@mkdir -p $(@D)
	@$(BIN)/jupyter-book build . --quiet --warningiserror --nitpick --keep-going $(if $(filter-out $(PAGES),$?),--all) \
		> $@.log 2>&1 || { grep -E 'WARNING|ERROR|Error' $@.log || cat $@.log; echo "The whole log: $@.log"; \
		rm -rf _build/.doctrees; exit 1; } >&2
	@touch $@
