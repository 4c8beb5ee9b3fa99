# Each target sets up what it needs; nothing else has to be installed first.
PYTHON := .venv/bin/python
export PYTHONWARNINGS := ignore
LAUNCH := $(PYTHON) -m areal.launcher.local trains/grpo.py --config
SEED ?= 219
TRIAL ?= demo
WORKERS ?= 2
RUNS := runs/digits-stage1/$(TRIAL) runs/digits-stage2/$(TRIAL)

# `make` alone shows what there is
.DEFAULT_GOAL := help
.PHONY: help demo demo-zoom test test-long test-cluster test-evaluation evaluation-env rehearse test-fast learning mixture-study mutants lint install clean

## help: print this list
help:
	@sed -n 's/^## \([a-z-]*\): /\1|/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "make %-15s  %s\n", $$1, $$2}'

## demo: train a tiny LLaVA-OneVision-1.5 on real images in both stages, on the CPU (ten to fifteen minutes)
demo: install
	$(PYTHON) -m dataset.digits --output-dir data/digits
	$(PYTHON) -m trains.demo.warm_start --output pretrained/tiny-llavaov15 --seed $(SEED)
	$(LAUNCH) configs/digits_cpu_stage1.yaml seed=$(SEED) trial_name=$(TRIAL)
	$(LAUNCH) configs/digits_cpu_stage2.yaml seed=$(SEED) trial_name=$(TRIAL)
	$(PYTHON) -m utils.summary $(RUNS) --output runs/$(TRIAL)
	$(PYTHON) -m utils.viewer $(RUNS) --output runs/$(TRIAL)/viewer

## demo-zoom: several turns with a zoom, on a digit too small to be read (CPU); docs/agents.md
demo-zoom: install
	$(PYTHON) -m dataset.zoom_digits --output-dir data/zoom_digits
	$(PYTHON) -m trains.demo.zoom_warm_start --output pretrained/tiny-zoom-$(SEED) --seed $(SEED)
	$(LAUNCH) configs/zoom_cpu.yaml seed=$(SEED) trial_name=$(TRIAL) actor.path=pretrained/tiny-zoom-$(SEED) $(ZOOM)
	$(PYTHON) -m utils.summary runs/zoom/$(TRIAL) --output runs/zoom/$(TRIAL)/page
	$(PYTHON) -m utils.viewer runs/zoom/$(TRIAL) --output runs/zoom/$(TRIAL)/viewer

## test: the tests, in under a quarter of an hour
test: install
	$(PYTHON) -m pytest -q -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not long and not cluster and not evaluation"

## test-long: whole runs with servers that are killed, stopped and started again
test-long: install
	$(PYTHON) -m pytest -q -n $(WORKERS) --dist load -m long

## test-cluster: the Ray and Slurm launchers and curation on real clusters of this machine, started and ended by the tests
test-cluster: install
	$(PYTHON) -m pytest -q -n $(WORKERS) --dist loadfile -m cluster tests/cluster

## evaluation-env: lmms-eval in .venv-evaluation, an environment of its own; docs/evaluation.md
evaluation-env: install
	@bash 3rdparty/lmms_eval/install.sh

## test-evaluation: lmms-eval itself, on the digits and on documents for every benchmark
test-evaluation: evaluation-env
	$(PYTHON) -m pytest -q -m evaluation tests/evaluation

## rehearse: walk through every file of configs/ on this machine's CPU; docs/rehearsal.md
rehearse: install
	$(PYTHON) -m trains.rehearsal.all --workers $(WORKERS)

## test-fast: without the tests that start servers or run training
test-fast: install
	$(PYTHON) -m pytest -q -n $(WORKERS) --dist loadfile -m "not slow and not long and not cluster and not evaluation"

## learning: the demo with five seeds and a control each (an hour on two idle cores); docs/learning.md
learning: install
	$(PYTHON) -m benchmarks.learning headline

## mixture-study: which mixture of the demo's five tasks is best? (40 minutes); docs/learning.md
mixture-study: install
	$(PYTHON) -m benchmarks.mixture_study

## mutants: do the tests notice when the code is wrong? A seeded sample; docs/mutants.md
mutants: install
	$(PYTHON) -m tests.mutants --workers $(WORKERS)

## lint: style of the code
lint: install
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .

install:
	@bash install.sh --cpu

## clean: remove data, checkpoints and runs of the demo (not the environment)
clean:
	rm -rf data/digits data/zoom_digits pretrained/tiny-llavaov15 pretrained/tiny-zoom* runs
