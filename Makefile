# `make` alone lists the targets. Every target makes .venv first if it has to; repeating is safe and quick.
#
#   make run                      from "a blue robot" to a textured GLB: retrieve, adapt, distil, export, report
#   make run PROMPT="a red cat"   the same for your own words
#   make fit                      fit a field to a small built-in mesh: turntable, textured GLB
#   make fit MESH=chair.glb       the same for your own file
#   make test                     the test suite (ARGS="-k raster" is passed to pytest)
#   make coverage                 the same with line coverage, which must be 85 % or more
#   make setup                    only the set-up: torch's CPU build, no CUDA libraries
#   make setup TORCH=cuda         on a machine with an NVIDIA GPU, once; later targets keep the choice
#   make setup TORCH=cu126        a given PyTorch build instead (cu126, cu130, rocm6.4, xpu; Windows: use this)
#   make setup EXTRAS=gpu-raster  extras beside the base: cuda, gpu-raster (several with commas)
#   make lint                     ruff (rules and format) and mypy
#   make format                   let ruff repair what it can
#   make docs                     the documentation as a site, in build/site; strict about links
#   make release                  sdist and wheel in dist/, each tried in a fresh environment; bill of materials, licences
#   make bench                    the benchmarks, or one: BENCH=hashgrid; raw results in benchmarks/results
#   make clean                    remove caches; `make clean-all` removes .venv too (outputs/ stays)

PYTHON ?= python3
VENV   ?= .venv
CONFIG ?= custom_configs/redream.yaml
TORCH  ?=
EXTRAS ?=
ARGS   ?=
BENCH  ?= hashgrid fit_asset

ifeq ($(OS),Windows_NT)
PY := $(VENV)/Scripts/python.exe
else
PY := $(VENV)/bin/python
endif

# Values reach the shell through the environment, so spaces and quotes in a path are safe.
export MESH PROMPT
# After set-up nothing needs the network; make that true by construction (HF_HUB_OFFLINE=0 allows it).
HF_HUB_OFFLINE ?= 1
export HF_HUB_OFFLINE
# Large pages for large tensors make a step some per cent faster; ignored where it is unknown.
GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
export GLIBC_TUNABLES

.DEFAULT_GOAL := help
.PHONY: help setup run fit test coverage lint format docs release bench clean clean-all

help:
	@sed -n 's/^#   //p' Makefile

setup:
	@$(PYTHON) tools/bootstrap.py --venv "$(VENV)" --torch "$(TORCH)" --extras "$(EXTRAS)"

run: setup
	$(PY) launch.py --config $(CONFIG) $(if $(PROMPT),"system.prompt_processor.prompt=$$PROMPT") $(ARGS)

fit: setup
	$(PY) launch.py --config custom_configs/fit-asset.yaml $(if $(MESH),"system.asset.path=$$MESH") $(ARGS)

test: setup
	$(PY) -m pytest $(ARGS)

coverage: setup
	$(PY) -m pytest --cov --cov-report=term $(ARGS)

lint: setup
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: setup
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

# The extra is added to what is there; a set-up later neither takes it away nor brings it into an environment without.
docs: setup
	@$(PY) -c "import material, mkdocs" 2>/dev/null || \
		$(PY) -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict $(ARGS)

release: setup
	@$(PY) -c "import build, cyclonedx_py, piplicenses" 2>/dev/null || \
		$(PY) -m pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e ".[release]"
	$(PY) tools/release.py build
	$(PY) tools/release.py check $(ARGS)

bench: setup
	@set -e; for name in $(BENCH); do echo "== $$name"; $(PY) benchmarks/$$name.py $(ARGS); done

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage htmlcov *.egg-info
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +

clean-all: clean
	rm -rf "$(VENV)"
