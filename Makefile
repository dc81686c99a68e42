# make demo and make test do everything on a machine with Python 3.11+ and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 2

.PHONY: demo test quick check fix docs clean

demo: $(VENV)/.installed
	$(BIN)/segwright demo --output demo

test: $(VENV)/.developing $(VENV)/.nnunet
	$(BIN)/python -m pytest -m "not slow"
	$(BIN)/python -m pytest -m "slow and not alone"
	$(BIN)/python -m pytest -m alone -n 0
	SEGWRIGHT_NNUNET=1 $(VENV)/nnunet/bin/python -m pytest -m nnunet -n 0 $$(grep -l "mark\.nnunet" tests/*.py)

quick: $(VENV)/.developing
	$(BIN)/python -m pytest -m "not slow"

check: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fix: $(VENV)/.developing
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(VENV)/.developing
	$(BIN)/python docs/generate.py

clean:
	rm -rf $(VENV) demo

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --editable '.[dev,test]'
	touch $@

# nnU-Net holds timm at an older version, so it has an environment of its own, which takes the rest from the first.
$(VENV)/.nnunet: $(VENV)/.developing
	$(PYTHON) -m venv $(VENV)/nnunet
	{ $(BIN)/python -c "import site; print(site.getsitepackages()[0])"; echo $(CURDIR)/src; } \
		> $$($(VENV)/nnunet/bin/python -c "import site; print(site.getsitepackages()[0])")/segwright.pth
	$(VENV)/nnunet/bin/python -m pip install --quiet "nnunetv2>=2.8"
	touch $@
