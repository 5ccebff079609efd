# The course's commands; `make help` lists them. Everything happens in .venv, which tools/set_up.py makes and repairs.

PYTHON ?= python3
JOBS ?= 1
export TORCH_INDEX

BIN := .venv/bin
# Another Python than .venv has is used only where it is asked for: make lab PYTHON=python3.12
THIS_PYTHON := $(if $(filter command environment,$(firstword $(origin PYTHON))),--this-python)
# Without a display, or over SSH, JupyterLab prints its address instead of opening a browser.
NO_BROWSER := $(shell if [ -n "$$SSH_CONNECTION" ] || { [ "$$(uname)" = Linux ] && [ -z "$$DISPLAY$$WAYLAND_DISPLAY" ]; }; \
	then echo --no-browser; fi)
# A zip for students holds some of the lessons: the first one is opened.
FIRST_LESSON = $(firstword $(sort $(wildcard notebooks/[0-9]*.ipynb)))
AS_ROOT := $(shell if [ "$$(id -u)" = 0 ]; then echo --allow-root; fi)

A_FILE_A_CORE := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder
# How products, sums and functions round depends on the vector units that MKL and PyTorch use, and on the threads.
ARITHMETIC := MKL_CBWR=COMPATIBLE MKL_CBWR=AVX2 MKL_CBWR=AVX512 MKL_ENABLE_INSTRUCTIONS=AVX2 \
	MKL_ENABLE_INSTRUCTIONS=SSE4_2 ATEN_CPU_CAPABILITY=default ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=1 OMP_NUM_THREADS=2
MATHEMATICS := $(patsubst %,tests/test_%.py,distributions score_matching predictions langevin ncsn sdes reverse_sde \
	probability_flow likelihood guidance ddpm inverse_problems measurements fast_solvers preconditioning averaging \
	metrics metrics_on_gaussians nn loops arguments) tests/models/test_generation.py tests/exercises

.DEFAULT_GOAL := help
.PHONY: help set-up lab test quick arithmetic seeds run publish outputs site lint lock doctor clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1|/p' Makefile | while IFS='|' read -r name text; do \
		printf '  make %-10s  %s\n' "$$name" "$$text"; done
	@echo '  options: PYTHON=python3.12   PORT=8899 (lab)   JOBS=2 (run, outputs)   TREE=notebooks (site)'
	@echo '           TORCH_INDEX=<the address PyTorch'"'"'s install page shows for CPU> for the smaller build of torch'

set-up: ## make or repair .venv (the other targets do this by themselves)
	@$(PYTHON) tools/set_up.py --quiet $(THIS_PYTHON)

lab: set-up ## open the course in JupyterLab
	@$(BIN)/jupyter lab --ip=127.0.0.1 $(if $(PORT),--port=$(PORT)) $(NO_BROWSER) $(AS_ROOT) \
		--ServerApp.root_dir=. --LabApp.default_url=/lab/tree/$(FIRST_LESSON)

test: set-up ## run all tests, a file on each core (at most four)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(A_FILE_A_CORE)

quick: set-up ## run a thin slice through everything, in less than three minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(A_FILE_A_CORE) @tests/quick.txt

arithmetic: set-up ## run the mathematical tests with the rounding of other processors
	@failed=0; for way in $(ARITHMETIC); do \
		echo "== $$way"; env OMP_NUM_THREADS=1 $$way $(BIN)/python -m pytest $(A_FILE_A_CORE) $(MATHEMATICS) || failed=1; \
	done; \
	echo "== --rounding"; OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(A_FILE_A_CORE) --rounding -k "not compile" $(MATHEMATICS) \
		&& exit $$failed

run: set-up ## execute every lesson into build/executed
	@$(BIN)/coursework run --jobs $(JOBS)

seeds: set-up ## run the worked lessons with the seeds 0 to 4, with Fashion-MNIST and without (about an hour)
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n logical --maxprocesses 4 -m seeds tests/test_lessons_with_other_seeds.py

publish: set-up ## write notebooks/ from solutions/
	@$(BIN)/coursework publish

outputs: set-up ## execute solutions/ and store the outputs there
	@$(BIN)/coursework run --tree solutions --store --jobs $(JOBS)

site: set-up ## build the website into build/site/ (the worked lessons; for learners TREE=notebooks)
	@$(BIN)/python site/build.py $(if $(TREE),--tree $(TREE))

lint: set-up ## check style, formatting and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check .
	@$(BIN)/pyright --pythonpath $(BIN)/python --project pyproject.toml
	@$(BIN)/pyright --pythonpath $(BIN)/python --project tools/strict.json

lock: set-up ## bring requirements.lock in line with pyproject.toml
	@$(BIN)/python -m venv build/lock && build/lock/bin/python -m pip install --quiet uv
	@build/lock/bin/uv pip compile pyproject.toml --all-extras --universal --python-version 3.11 \
		--no-emit-index-url --no-header --no-annotate --quiet -o requirements.lock $(if $(UPGRADE),--upgrade)

doctor: set-up ## say what this machine can do, and what to mend
	@$(BIN)/coursework doctor

clean: ## remove what was built (.venv and your notebooks stay)
	@rm -rf build .pytest_cache .ruff_cache *.egg-info
	@find coursework solutions notebooks tests tools -name __pycache__ -prune -exec rm -rf {} +
