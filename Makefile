# make demo and make test do all their set-up: a virtual environment in .venv, nothing outside.
.POSIX:
.PHONY: demo sample test bench coverage lint format lab clean

PYTHON = $$(for p in python3.13 python3.12 python3.11 python3.14 python3 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
RUN = .venv/bin/python -m
PIP = $(RUN) pip --disable-pip-version-check --quiet install --constraint constraints.txt

demo: .venv/demo.installed  ## the bookings story, from the plan to the report
	@$(RUN) indexlab demo

sample: .venv/demo.installed  ## reports/sample anew, from a demo on a machine that does nothing else
	@rm -rf reports/.demo
	@$(RUN) indexlab demo --scale 0.03,0.1,0.3 --out reports/.demo
	@.venv/bin/python .ci/sample.py reports/.demo reports/sample
	@rm -rf reports/.demo

test: .venv/test.installed  ## every test, notebooks included; real servers only
	@INDEXLAB_DEMO_ROWS=$${INDEXLAB_DEMO_ROWS:-20000} \
		$(RUN) pytest --numprocesses 2 --dist loadfile --nbval-lax tests notebooks

bench: .venv/bench.installed  ## the figures of tests/perf/README.md
	@$(RUN) pytest --override-ini addopts= --import-mode=importlib -s tests/perf

coverage: .venv/dev.installed  ## branches that the tests reach, commands and kernels included
	@INDEXLAB_DEMO_ROWS=$${INDEXLAB_DEMO_ROWS:-20000} \
		$(RUN) coverage run -m pytest --numprocesses 2 --dist loadfile --nbval-lax tests notebooks; \
		status=$$?; $(RUN) coverage combine --quiet; $(RUN) coverage report; exit $$status

lint: .venv/dev.installed
	@$(RUN) ruff check .
	@$(RUN) ruff format --check .
	@$(RUN) mypy
	@$(RUN) nbstripout --verify notebooks/*.ipynb

format: .venv/dev.installed
	@$(RUN) ruff check --fix .
	@$(RUN) ruff format .
	@$(RUN) nbstripout notebooks/*.ipynb

lab: .venv/demo.installed  ## JupyterLab on the notebooks
	@$(RUN) indexlab lab notebooks

clean:  ## the environment and caches; reports stay
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache build dist
	find lib tests -name __pycache__ -prune -exec rm -rf {} +

.venv/bin/python:
	@test -n "$(PYTHON)" || { echo "indexlab needs Python 3.11 or newer: none was found" >&2; exit 1; }
	@echo "making .venv"
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "cannot make .venv: install Python's venv module (Debian: apt-get install python3-venv)" >&2; exit 1; }

.venv/demo.installed: .venv/bin/python pyproject.toml constraints.txt
	@echo "installing indexlab and what it needs"
	@$(PIP) --editable .
	@touch $@

.venv/test.installed: .venv/demo.installed
	@$(PIP) --editable '.[test]'
	@touch $@

.venv/bench.installed: .venv/test.installed
	@$(PIP) --editable '.[test,bench]'
	@touch $@

.venv/dev.installed: .venv/test.installed
	@$(PIP) --editable '.[test,dev]'
	@touch $@
