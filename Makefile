# Thin: every line calls something that also works alone. `make` alone lists what there is.
PYTHON := .venv/bin/python
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo test run lint bench

help:
	@echo "make demo    set up, then run one whole request end to end on this machine (ARGS=--keep leaves the site running)"
	@echo "make test    set up, then run all tests (ARGS='-k word' runs a part)"
	@echo "make run     set up, then serve the site at http://127.0.0.1:8000 with its workers, against the real web"
	@echo "make lint    linters, types, migrations and the deployment checks"
	@echo "make bench   the benchmarks; each prints a table"
	@echo "make setup   only the set-up"

setup:
	@scripts/setup

demo: setup
	@$(PYTHON) manage.py demo $(ARGS)

test:
	@scripts/setup --tests
	@$(PYTHON) -m pytest $(ARGS)

run: setup
	@$(PYTHON) manage.py up $(ARGS)

lint:
	@scripts/setup --tests
	@scripts/lint

bench: setup
	@scripts/bench $(ARGS)
