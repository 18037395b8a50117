# Two commands for a new user: `make quickstart` and `make test`. Both set up .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORES := $(shell nproc 2>/dev/null || echo 2)

.PHONY: install quickstart test test-slow test-without-compiler mmdetection lint docs clean

install: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml
	@echo "== creating $(VENV) and installing torch and all other requirements (once; downloads a few GB)"
	@$(PYTHON) -m venv $(VENV) || { echo "error: cannot create $(VENV): on Debian, install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

quickstart: $(VENV)/.installed
	@echo "== comparing three box losses, three seeds each, with a small RetinaNet on the built-in data"
	@$(BIN)/python tools/compare_losses.py quickstart/retinanet_shapes \
		--losses SmoothL1Loss GIoULoss EIoULoss --seeds 0 1 2 --jobs 2 --work-dir work_dirs/quickstart

test: $(VENV)/.installed
	@echo "== running the tests"
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(CORES)

lint: $(VENV)/.installed
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

# The guide as a site, which opens without a server and without the internet.
docs: $(VENV)/.installed
	@LOSS_CURVES=true NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict
	@echo "== open build/site/index.html"

test-slow: $(VENV)/.installed
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(CORES) -m slow

# The tests that use a C++ compiler, without one: once with a missing file in CXX, once with none on PATH.
WITHOUT_COMPILER := $(CURDIR)/$(BIN)/python -m pytest -q tests/conformance tests/losses/test_conformance.py \
	-m "slow or not slow" -k "inductor or noticed or (compile and GIoULoss)"

test-without-compiler: $(VENV)/.installed
	@echo "== running the tests that use a C++ compiler, without one"
	@OMP_NUM_THREADS=1 CXX=no-such-compiler $(WITHOUT_COMPILER)
	@env -u CC -u CXX OMP_NUM_THREADS=1 PATH=$(CURDIR)/$(BIN) $(WITHOUT_COMPILER)

# mmdetection in an environment of its own, and the tests that use it. pip builds onedl-mmcv where torch is
# not installed, so without the operators that it would compile for half an hour. --no-deps: onedl-mmcv would
# replace mmengine-lite, and onedl-mmdetection requires packages for transforms that are not used here.
MMDET := build/mmdetection

$(MMDET)/.installed: setup.cfg
	@$(PYTHON) -m venv $(MMDET)
	@$(MMDET)/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,mmdet]'
	@$(MMDET)/bin/python -m pip install --quiet --no-deps onedl-mmdetection==3.5.1 onedl-mmcv==2.3.6
	@touch $@

mmdetection: $(MMDET)/.installed
	@OMP_NUM_THREADS=1 $(MMDET)/bin/python -m pytest -q -m slow tests/adapters/test_mmdetection.py

clean:
	rm -rf $(VENV) build dist *.egg-info
