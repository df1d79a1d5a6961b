# Two commands matter: `make up` runs the stack, `make test` checks it. Both set themselves up in .venv.
PYTHON ?= python3
SIMULATE ?=
STATE_DIR ?= state
VENV := .venv
BIN := $(VENV)/bin

.PHONY: up test fuzz test-compose test-readme test-tensorflow lint format bench-backtest bench-exporter bench-advisor bench-accuracy bench-allocation bench-api bench-diagnosis bench-monitor bench-report bench-loaders bench-dashboards bench-batch bench-finder soak rules dashboards preview docs golden clean

up: $(VENV)/.up
	@exec $(BIN)/gpu-advisor up --state-dir $(STATE_DIR) $(if $(SIMULATE),--simulate $(SIMULATE))

test: $(VENV)/.test lint
	@tests/get_servers.sh $(VENV)/servers
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(BIN)/python -m pytest

# The properties with other examples than the fixed ones of `make test`.
fuzz: $(VENV)/.test
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" HYPOTHESIS_PROFILE=random $(BIN)/python -m pytest tests/unit

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/mypy

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

rules: $(VENV)/.test
	$(BIN)/gpu-advisor rules > prometheus/rules/recording.yml

dashboards: $(VENV)/.test
	$(BIN)/python grafana/build.py

# Pictures of the dashboards for docs/, drawn by Grafana's npm packages over the demo fleet; needs node, npm, Chromium.
preview: $(VENV)/.test
	@tests/get_servers.sh $(VENV)/servers
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(BIN)/python -m tests.preview.screenshots docs/images/dashboards

# Each query of the dashboards with 1,000 GPUs, beside an instant query of one recorded series.
bench-dashboards: $(VENV)/.test
	@tests/get_servers.sh $(VENV)/servers
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(BIN)/python -m benchmarks.dashboards

# The shipped docker-compose.yml, started for real in an engine of its own; needs root, docker.io and debootstrap.
test-compose: $(VENV)/.test
	@tests/compose/run.sh $(VENV)

# The README's commands on a bare Debian; needs root and debootstrap, and sets itself up in there.
test-readme:
	@tests/readme/run.sh $(VENV)/readme

# The settings for TensorFlow in the real one, which is too large for every build; in an environment of its own.
test-tensorflow:
	$(PYTHON) -m venv $(VENV)/tensorflow
	$(VENV)/tensorflow/bin/pip install --quiet --editable '.[advisor]' hypothesis pytest requests tensorflow
	$(VENV)/tensorflow/bin/python -m pytest tests/unit/allocation/test_frameworks_tensorflow.py

# Beside nvitop-exporter and node_exporter, interleaved in one run; figures go to benchmarks/results/.
bench-exporter: $(VENV)/.test
	@tests/get_servers.sh $(VENV)/servers
	$(BIN)/pip install --quiet --editable '.[bench]'
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(BIN)/python -m benchmarks.exporter

# One real Prometheus with 100, 1,000 and 10,000 GPUs; the last takes long, and 10 GiB below TMPDIR while it is made.
bench-advisor: $(VENV)/.test
	@tests/get_servers.sh $(VENV)/servers
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(BIN)/python -m benchmarks.advisor

bench-accuracy: $(VENV)/.test
	$(BIN)/python -m benchmarks.accuracy

# Pages of 10,000 recommendations to 50 clients, beside a static answer from the same server.
bench-api: $(VENV)/.test
	$(BIN)/python -m benchmarks.api

# A report of a simulated week of 100 GPUs, beside its bare queries.
bench-report: $(VENV)/.test
	@tests/get_servers.sh $(VENV)/servers
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(BIN)/python -m benchmarks.weekly_report

# Leases of GPUs under load and kill -9, held against what a correct service could say: about two minutes.
bench-allocation: $(VENV)/.test
	$(BIN)/python -m benchmarks.allocation

# Confusion matrix over situations from the physics, and false alarms on a healthy fleet: about half an hour.
bench-diagnosis: $(VENV)/.test
	$(BIN)/python -m benchmarks.diagnosis

# What the training monitor costs a loop, and whether the data loader finds the right number of workers.
bench-monitor: $(VENV)/.test
	$(BIN)/python -m benchmarks.monitor

bench-loaders: $(VENV)/.test
	$(BIN)/python -m benchmarks.loaders

# Predicted memory of batch sizes beside a line and scaling in proportion, on simulated models.
bench-batch: $(VENV)/.test
	$(BIN)/python -m benchmarks.batch_fit

# The largest batch that fits, beside Lightning's and accelerate's finders: about ten minutes.
bench-finder: $(VENV)/.test
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.finder

# The advisor's sizes beside autoscalers' and an oracle's, over generated days: about ten minutes.
bench-backtest: $(VENV)/.test
	$(BIN)/python -m benchmarks.backtest

soak: $(VENV)/.test
	$(BIN)/python -m benchmarks.soak --minutes 60

docs: $(VENV)/.test
	$(BIN)/python docs/build_metrics.py
	$(BIN)/python docs/build_diagnosis.py
	$(BIN)/python docs/build_configuration.py
	$(BIN)/python docs/build_api.py
	$(BIN)/python docs/build_planning.py
	$(BIN)/python docs/build_cost.py
	$(BIN)/python docs/build_alerts.py

# The golden pages anew, after a change that is meant: read the difference.
golden: $(VENV)/.test
	$(BIN)/python -m pytest tests/unit/exporter/test_golden.py --update-golden

# A stamp a set of requirements, made anew when pyproject.toml changes.
$(VENV)/.up: pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet --editable '.[advisor]'
	@touch $@

$(VENV)/.test: pyproject.toml tests/constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --constraint tests/constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.up

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; name one with: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "Python's venv module is needed; on Debian: apt-get install python3-venv" >&2; exit 1; }

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
