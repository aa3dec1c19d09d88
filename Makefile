# make install | demo | generated | lint | types | check | test | format
# For a GPU: make install EXTRAS=dev,cuda
PYTHON ?= python3
EXTRAS ?= dev
BIN := .venv/bin

.PHONY: install demo generated lint types check test format

STAMP := .venv/.installed-$(EXTRAS)

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt -e '.[$(EXTRAS)]'
	touch $@

# Generate videos, train from scratch, evaluate on unseen ones, track one of them.
SHAPES := --height 96 --width 160 --categories circle square triangle star \
	--min-diameter 0.3 --max-diameter 0.6
GENERATE := $(BIN)/python -m masktrack_jax.data.generate $(SHAPES)

demo: install
	$(GENERATE) --output data/demo/train --videos 400 --seed 1 --min-objects 3 --max-objects 6
	$(GENERATE) --output data/demo/val --videos 24 --seed 2
	$(BIN)/python train.py --config configs/demo.py --workdir runs/demo
	$(BIN)/python track.py --checkpoint runs/demo --input data/demo/val/JPEGImages/00001 --output runs/demo/track \
		--draw-threshold 0.5
	@echo "scores: runs/demo/metrics.json   video: runs/demo/track/overlay.mp4"

# The checkpoint that comes with the package: hours.
generated: install
	$(GENERATE) --output data/generated/train --videos 2000 --seed 11 --min-objects 3 --max-objects 6 --workers 2
	$(GENERATE) --output data/generated/val --videos 60 --seed 12
	$(BIN)/python train.py --config configs/generated.py --workdir runs/generated

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: install
	$(BIN)/mypy

# Three processes share the test files and the compiled programs: one of them often waits, for a clock or a
# process. `check`: what compiles no network.
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

check: install
	$(MAKE) --jobs 2 lint types
	$(PYTEST) -m "not network"

test: install
	$(MAKE) --jobs 2 lint types
	$(PYTEST)

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
