# Everything here works from a fresh clone with python3 (3.11 or newer) and make: each target installs what it needs.
.DEFAULT_GOAL := help
BIN := .venv/bin
CODE := src tests benchmarks scripts

PIP_INSTALL := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt --no-build-isolation

.PHONY: help install worlds train test check format bench bench-compare bench-envs bench-peers bench-needs clean

help: ## Show this list
	@echo "asyncrl: asynchronous reinforcement learning on CPUs"
	@echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo "  ARGS=...         passed on, as in: make train ARGS=\"--frames 1000000\""
	@echo "  PYTHON=...       the interpreter to install with (python3)"
	@echo "  TORCH_INDEX=...  another package index for torch alone; on Linux PyTorch's CPU wheel index"
	@echo "                   saves gigabytes of CUDA (counts when torch is installed: make clean first)"

install: ## Install into .venv (quick when nothing has changed)
	@PYTHON="$(PYTHON)" TORCH_INDEX="$(TORCH_INDEX)" sh scripts/bootstrap.sh

worlds: install ## Install every other world: Labyrinth, MuJoCo, dm_control; TORCS too, for root on Debian
	$(PIP_INSTALL) -e '.[labyrinth,mujoco]' stable-baselines3
	$(BIN)/python scripts/worlds.py

train: install ## Train A3C on Pong
	$(BIN)/asyncrl train ALE/Pong-v5 $(ARGS)

test: install ## Run the tests, but for the slow ones (ARGS="-m slow" runs those)
	$(BIN)/python -m pytest $(ARGS)

check: install ## Check format, lint, types and the order of the layers
	$(BIN)/ruff format --check $(CODE)
	$(BIN)/ruff check $(CODE)
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python -m pytest -q tests/test_layers.py

format: install ## Format the code, and mend what the linter can mend
	$(BIN)/ruff format $(CODE)
	$(BIN)/ruff check --fix $(CODE)

bench: bench-needs ## Measure training speed beside Stable-Baselines3 and this machine's limits (10 minutes)
	$(BIN)/python benchmarks/bench.py $(ARGS)

bench-compare: bench-needs ## Measure, and fail if a ratio is worse than the stored one by more than the spread
	$(BIN)/python benchmarks/bench.py --compare $(ARGS)

bench-envs: worlds ## Measure every world alone and under training (15 minutes)
	$(BIN)/python benchmarks/bench_envs.py $(ARGS)

bench-peers: install ## Measure beside every library people would pick instead (2 hours, 6 GB of their environments)
	TORCH_INDEX="$(TORCH_INDEX)" $(BIN)/python benchmarks/bench_peers.py $(ARGS)

bench-needs: install
	@$(BIN)/python -c 'import cv2, stable_baselines3' 2>/dev/null || $(PIP_INSTALL) -e '.[bench]'

clean: ## Delete .venv, build products and caches; runs/ stays
	rm -rf .venv .venv-discarded benchmarks/.peers build dist src/*.egg-info .pytest_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
