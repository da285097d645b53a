PYTHON ?= $(shell for name in python3.11 python3.12 python3.13 python3; do command -v $$name && break; done)
VENV   ?= .venv
PY     := $(VENV)/bin/python
DEMO   := runs/blue_marble

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 10

demo: $(VENV)/ready  ## environment, demo data, all five stages, the score of the submission
	$(PY) -m lib.tools.demo

test: $(VENV)/ready-for-tests  ## environment and tests
	$(PY) -m pytest -n logical --maxprocesses 4 --max-worker-restart 0 --dist loadfile

versions: $(VENV)/ready-for-tests  ## tests with the lowest and the highest versions that requirements.txt allows
	$(PY) -m tests.versions lowest highest

lint: $(VENV)/ready-for-tests  ## style
	$(PY) -m ruff check --no-cache .
	$(PY) -m ruff format --no-cache --check .

bench: $(VENV)/ready-for-tests $(DEMO)/submission.csv  ## what the stages cost, against what they cannot beat
	for name in startup checking_speed loss_overhead thresholds morphology morphology_speed rle_speed submission_speed; do $(PY) benchmarks/$$name.py || exit; done
	for name in training_speed inference_speed; do $(PY) benchmarks/$$name.py $(DEMO) || exit; done

$(DEMO)/submission.csv:
	$(MAKE) demo

$(VENV)/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --editable .
	touch $@

$(VENV)/ready-for-tests: $(VENV)/ready
	$(PY) -m pip install --quiet --editable ".[tests]"
	touch $@

clean:  ## remove the demo's data and run; the environment stays
	rm -rf data/blue_marble $(DEMO)

.PHONY: help demo test versions lint bench clean
