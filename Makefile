# Every target does all of its own set-up: it needs Python >= 3.10 and make, and leaves everything in .venv, trainings in runs.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# Test workers share the cores, so no thread may spin while it waits: OpenBLAS gets one thread, OpenMP (PyTorch, where it
# is there to compare with) sleeps. Set this way it does not count as a limit for minigrad's own pool, whose threads sleep
# anyway: the tests run it as users do.
WORKERS ?= 2
CALM := GOTO_NUM_THREADS=1 OMP_WAIT_POLICY=passive

export PIP_DISABLE_PIP_VERSION_CHECK := 1

SECONDS ?= 3600
BACKENDS ?= numpy,opencl

.PHONY: help lenet opencl test lint bench soak resume mutants oclgrind nvrtc gpu evidence clean
.DELETE_ON_ERROR:

help:
	@echo "make lenet   train LeNet-5 on MNIST and print its test accuracy (ARGS='--epochs 3 --seed 1')"
	@echo "make opencl  the same on the OpenCL backend, which is installed too"
	@echo "make test    run the tests (ARGS='-k conv')"
	@echo "make lint    check style and types"
	@echo "make bench   time LeNet's training step and the kernels of its layers (ARGS='--json out.json')"
	@echo "make soak    new random programs on several backends for an hour (SECONDS=60, BACKENDS=numpy,opencl)"
	@echo "make resume  kill a training at 20 random moments and resume it: the same bits (ARGS='--backend opencl')"
	@echo "make mutants show that the tests notice each of the faults planted by tests/mutants (ARGS='--area templates')"
	@echo "make oclgrind run small OpenCL kernels under a simulator that reports wrong accesses and races"
	@echo "make nvrtc   compile kernels for older GPUs and whole networks, without a GPU (ARGS='--arch sm_90 --networks vgg16')"
	@echo "make gpu     check and time the CuPy backend on an NVIDIA GPU, and write docs/gpu-report.md"
	@echo "make evidence train networks to try what is said of depth, shortcuts, dropout and normalisation (ARGS='depth')"
	@echo "make clean   remove .venv and everything built or cached here"

lenet: $(VENV)/.installed
	@$(BIN)/minigrad train lenet $(ARGS)

opencl: $(VENV)/.installed-opencl
	@$(BIN)/minigrad train lenet --backend opencl $(ARGS)

test: $(VENV)/.installed-test
	@$(CALM) $(BIN)/python -m pytest -q -n $(WORKERS) $(ARGS)

lint: $(VENV)/.installed-dev .links
	@$(BIN)/ruff check .
	@cd .links && ../$(BIN)/mypy --config-file ../pyproject.toml --cache-dir ../.mypy_cache -p minigrad

bench: $(VENV)/.installed
	@$(BIN)/minigrad bench $(ARGS)

soak: $(VENV)/.installed-test
	@$(CALM) $(BIN)/minigrad fuzz --backends $(BACKENDS) --seconds $(SECONDS) --workers $(WORKERS) $(ARGS)

resume: $(VENV)/.installed-test
	@$(CALM) $(BIN)/python tests/resume/kill.py $(ARGS)

mutants: $(VENV)/.installed-test
	@$(CALM) $(BIN)/python tests/mutants/run.py $(ARGS)

# An environment of its own: beside PoCL the simulator would be one more device for the other tests.
oclgrind:
	@$(MAKE) --no-print-directory VENV=.venv-oclgrind .venv-oclgrind/.installed-oclgrind
	@.venv-oclgrind/bin/python tests/oclgrind/run.py $(ARGS)

# What the tests compile for sm_90 is compiled for sm_80 too, then whole networks.
nvrtc: $(VENV)/.installed-test
	@NVRTC_ARCH=sm_80 $(BIN)/python -m pytest -q tests/unit/test_cuda_*.py tests/unit/test_cupy_networks.py
	@$(BIN)/python tests/nvrtc_networks.py $(ARGS)

# CuPy and CUDA's libraries are some GB: nothing is installed where there is no driver.
gpu:
	@command -v nvidia-smi >/dev/null || { \
	  echo "make gpu: no NVIDIA driver here (no nvidia-smi); docs/gpu-report.md stays as it is" >&2; exit 1; }
	@$(MAKE) --no-print-directory $(VENV)/.installed-gpu
	@$(BIN)/python tests/gpu/report.py $(ARGS)

evidence: $(VENV)/.installed-opencl
	@$(BIN)/python tests/evidence/run.py $(ARGS)

clean:
	rm -rf $(VENV) .venv-oclgrind .links build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp per set of extras, so that installing happens once and again when pyproject.toml changes.
$(VENV)/.installed: EXTRA :=
$(VENV)/.installed-opencl: EXTRA := [opencl]
$(VENV)/.installed-test: EXTRA := [test]
$(VENV)/.installed-dev: EXTRA := [dev]
$(VENV)/.installed-gpu: EXTRA := [test,cudnn]
$(VENV)/.installed-oclgrind: EXTRA := [oclgrind]

$(VENV)/.installed $(VENV)/.installed-opencl $(VENV)/.installed-test $(VENV)/.installed-dev $(VENV)/.installed-gpu $(VENV)/.installed-oclgrind: pyproject.toml | $(BIN)/pip
	@echo "installing minigrad$(EXTRA) and what it needs into $(VENV): about a minute"
	@$(BIN)/python -m pip install --quiet --editable ".$(EXTRA)"
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10))" 2>/dev/null || { \
	  echo "minigrad needs Python 3.10 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not there)." >&2; \
	  echo "Name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { \
	  echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu: sudo apt install python3-venv" >&2; exit 1; }

# mypy knows nothing of package-dir: it gets a tree of links in which the packages lie where their names say.
.PHONY: .links
.links:
	@rm -rf .links && mkdir -p .links/minigrad
	@ln -s $(addprefix ../../,$(wildcard minigrad/*) backends nn) .links/minigrad/
