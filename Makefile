PYTHON ?= python3.11
VENV   ?= .venv
PY     := $(VENV)/bin/python
DEMO   := runs/blue_marble

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*##/\t/' | expand -t 10

demo: $(VENV)/ready data/blue_marble  ## environment, demo data, all five stages, the score of the submission
	$(PY) 01_prepare_folds.py --config configs/blue_marble.yaml
	$(PY) 02_train.py --run $(DEMO)
	$(PY) 03_oof_threshold.py --run $(DEMO)
	$(PY) 04_infer.py --run $(DEMO)
	$(PY) 05_postprocess.py --run $(DEMO)
	$(PY) -m lib.tools.summary $(DEMO) --solution data/blue_marble/solution.csv

test: $(VENV)/ready-for-tests  ## environment and tests
	$(PY) -m pytest

lint: $(VENV)/ready-for-tests  ## style
	$(PY) -m ruff check --no-cache .
	$(PY) -m ruff format --no-cache --check .

bench: $(VENV)/ready-for-tests $(DEMO)/submission.csv  ## what the stages cost, against what they cannot beat
	for name in startup checking_speed loss_overhead thresholds morphology morphology_speed rle_speed submission_speed; do $(PY) benchmarks/$$name.py || exit; done
	for name in training_speed inference_speed; do $(PY) benchmarks/$$name.py $(DEMO) || exit; done

$(DEMO)/submission.csv:
	$(MAKE) demo

data/blue_marble: | $(VENV)/ready
	$(PY) -m lib.tools.blue_marble $@

$(VENV)/ready: requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --editable .
	touch $@

$(VENV)/ready-for-tests: $(VENV)/ready
	$(PY) -m pip install --quiet --editable ".[tests]"
	touch $@

clean:  ## remove the demo's data and run; the environment stays
	rm -rf data/blue_marble $(DEMO)

.PHONY: help demo test lint bench clean
