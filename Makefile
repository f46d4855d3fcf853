# make setup | make lab | make test | make video PROMPT="a red circle moves right"
# TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu takes PyTorch's smaller CPU builds (Linux).

PYTHON ?= python3
PROMPT ?= a red circle moves right
TORCH_INDEX_URL ?=
export PROMPT

.PHONY: help setup lab test video
help:
	@echo "make setup                    set up .venv, and nothing more"
	@echo "make lab                      open the course in JupyterLab"
	@echo "make test                     check an unchanged clone, the notebooks too"
	@echo "make video PROMPT=\"...\"       turn a sentence into an mp4"

.venv/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "The course needs Python 3.10 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; call make PYTHON=python3.12, say.")'
	@echo "Setting up .venv: PyTorch and what the course needs, once. On Linux this is about 5 GB; a few minutes."
	$(PYTHON) -m venv .venv
	@if [ -n "$(TORCH_INDEX_URL)" ]; then .venv/bin/python -m pip install --index-url "$(TORCH_INDEX_URL)" torch torchvision; fi
	.venv/bin/python -m pip install -e ".[test]"
	@touch .venv/.ready
	@echo "Ready. Next: make lab opens the course, make test checks it, make video PROMPT=\"a red circle moves right\" makes a film."

setup: .venv/.ready

lab: .venv/.ready
	.venv/bin/jupyter lab notebooks/00_welcome.ipynb

test: .venv/.ready
	.venv/bin/python -m pytest -n 2 --dist loadscope --no-loadscope-reorder

video: .venv/.ready
	@.venv/bin/sora-course generate "$$PROMPT"
