# Two commands matter: `make up` runs the stack, `make test` checks it. Both set themselves up in .venv.
PYTHON ?= python3
SIMULATE ?=
STATE_DIR ?= state
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: up test test-engines test-exporter pytest fuzz test-compose test-readme test-slurm test-vllm test-tensorflow test-frameworks lint format bench-backtest bench-exporter bench-advisor bench-accuracy bench-allocation bench-api bench-page bench-diagnosis bench-monitor bench-report bench-telemetry bench-owners bench-loaders bench-dashboards bench-plans bench-batch bench-finder bench-gradients bench-hot-paths bench-connections bench-pools bench-fuzz-http bench-fuzz-api bench-grid bench-serving bench-serving-healthy lock sbom audit soak rules dashboards preview screenshots docs docs-site golden clean

# More options of `gpu-advisor up`: make up ARGS='--advisor-address 0.0.0.0:9817'
up: $(VENV)/.up
	@echo "3/3  gpu-advisor up"
	@GPU_ADVISOR_OPTIONS_AFTER='make up ARGS' exec $(BIN)/gpu-advisor up --state-dir $(STATE_DIR) $(if $(SIMULATE),--simulate $(SIMULATE)) $(ARGS)

# Lint and tests run side by side: the tests wait for servers much of the time, hence also a worker more than cores.
test:
	@$(MAKE) --no-print-directory --jobs=2 lint pytest

WORKERS ?= $(shell expr $$(nproc) + 1)
# Hundreds of short-lived processes: compile each module once, also where the environment says not to.
pytest test-exporter: export PYTHONDONTWRITEBYTECODE =
pytest: $(VENV)/.test
	@tests/get_servers.sh $(VENV)/servers prometheus-2.42 prometheus-3.5
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=loadscope \
		--no-loadscope-reorder

# The same numbers and advice on each engine: several minutes each. To run some: make test-engines ENGINES=prometheus-3.5
ENGINES := prometheus-2.42 prometheus-2.53 prometheus-3.5 victoriametrics-1.79 victoriametrics-1.145
ALERTMANAGERS := alertmanager-0.25 alertmanager-0.33
ENGINE_TESTS := $(addprefix tests/integration/,test_sources.py test_source_equivalence.py test_exporters.py test_curves.py \
	test_report.py test_scaling_prometheus.py test_dashboard_queries.py test_end_to_end.py)
ALERTMANAGER_TESTS := tests/integration/test_end_to_end.py tests/integration/test_alertmanagers.py
test-engines: export GPU_ADVISOR_REQUIRE_SERVERS = 1
test-engines: $(VENV)/.test
	@tests/get_servers.sh $(VENV)/servers $(ENGINES) $(ALERTMANAGERS)
	@export PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH"; failed=; \
	for engine in $(ENGINES); do \
		echo "$$engine"; \
		GPU_ADVISOR_TEST_ENGINE=$$engine $(BIN)/python -m pytest $(ENGINE_TESTS) || failed="$$failed $$engine"; \
	done; \
	for version in $(ALERTMANAGERS); do \
		echo "$$version"; \
		GPU_ADVISOR_TEST_ALERTMANAGER=$$version $(BIN)/python -m pytest $(ALERTMANAGER_TESTS) || failed="$$failed $$version"; \
	done; \
	[ -z "$$failed" ] || { echo "failed on:$$failed" >&2; exit 1; }

# Lint and tests of the exporter alone, in an environment of its own without the advisor's dependencies.
EXPORTER_FILES := exporter $(addprefix tests/unit/,devices exporter host jobs owners)
test-exporter: $(VENV)/exporter/.ready
	$(VENV)/exporter/bin/ruff check $(EXPORTER_FILES)
	$(VENV)/exporter/bin/ruff format --check $(EXPORTER_FILES)
	$(VENV)/exporter/bin/lint-imports --no-cache
	$(VENV)/exporter/bin/mypy $(EXPORTER_FILES)
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(VENV)/exporter/bin/python -m pytest --numprocesses=$(WORKERS) \
		$(wordlist 2,9,$(EXPORTER_FILES))

# Property tests with new random examples; `make test` uses fixed ones.
fuzz: $(VENV)/.test
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" HYPOTHESIS_PROFILE=random $(BIN)/python -m pytest tests/unit

# Small wrong changes of the pure core, one at a time: do the unit tests fail? About a quarter of an hour.
mutants: $(VENV)/.test
	$(BIN)/python -m tests.mutation

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
	$(BIN)/gpu-advisor rules --serving > prometheus/rules/serving-recording.yml
	for exporter in dcgm-exporter nvidia_gpu_exporter nvitop-exporter amd-device-metrics-exporter npu-exporter all-smi; do \
	  $(BIN)/gpu-advisor rules --source $$exporter --source node_exporter \
	    > charts/gpu-advisor/recording/$$exporter.yml || exit 1; done

dashboards: $(VENV)/.test
	$(BIN)/python grafana/build.py

# Screenshots of the dashboards for docs/, rendered by Grafana's npm packages over the demo fleet; needs node, npm and
# Chromium.
preview: $(VENV)/.test
	@tests/get_servers.sh $(VENV)/servers
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(BIN)/python -m tests.preview.screenshots docs/images/dashboards

# Every page of the advisor in six situations, light and dark, wide and on a phone, to look at: make screenshots OUT=DIR.
screenshots: $(VENV)/.test
	@tests/get_servers.sh $(VENV)/servers
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(BIN)/python -m tests.preview.page_screenshots $(OUT)

# Situations of telemetry and drawn histories on five engines, against what is true.
bench-telemetry: $(VENV)/.test
	@tests/get_servers.sh $(VENV)/servers prometheus-2.42 prometheus-2.53 prometheus-3.5 victoriametrics-1.145 \
		victoriametrics-1.79
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(BIN)/python -m benchmarks.telemetry

# Who forgot a GPU, and who only looks as if: 500 drawn days of each class.
bench-owners: $(VENV)/.test
	$(BIN)/python -m benchmarks.owner_days

# Every dashboard query with 1,000 GPUs, relative to an instant query of one recorded series.
bench-dashboards: $(VENV)/.test
	@tests/get_servers.sh $(VENV)/servers
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(BIN)/python -m benchmarks.dashboards

# Starts the shipped docker-compose.yml in a Docker engine of its own; needs root, docker.io and debootstrap.
test-compose: $(VENV)/.test
	@tests/compose/run.sh $(VENV)

# Runs the README's commands in a minimal Debian root; needs root and debootstrap.
test-readme:
	@tests/readme/run.sh $(VENV)/readme

# Owners, demand and requests on a real Slurm of two versions; needs root and debootstrap. About six minutes.
test-slurm: $(VENV)/.test
	@tests/slurm/run.sh $(VENV)

# The serving advice on a real vLLM (CPU build, tiny random model): 3.5 GB on disk, about ten minutes on a quiet machine.
test-vllm: $(VENV)/.test
	@PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" tests/vllm/run.sh $(VENV)

# The TensorFlow settings, tested with TensorFlow itself: too large for `make test`, so in an environment of its own.
test-tensorflow:
	$(PYTHON) -m venv $(VENV)/tensorflow
	$(VENV)/tensorflow/bin/pip install --quiet --editable '.[advisor]' hypothesis pytest psutil requests tensorflow
	$(VENV)/tensorflow/bin/python -m pytest tests/unit/allocation/test_frameworks_tensorflow.py \
	  tests/unit/compatibility/test_tensorflow_model.py

# Scrape cost next to nvitop-exporter and node_exporter, interleaved in one run; figures go to benchmarks/results/.
bench-exporter: $(VENV)/.test
	@tests/get_servers.sh $(VENV)/servers
	$(BIN)/pip install --quiet --editable '.[bench]'
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(BIN)/python -m benchmarks.exporter

# Evaluations over a real Prometheus with 100, 1,000 and 10,000 GPUs; the last is slow and needs 10 GiB in TMPDIR.
bench-advisor: $(VENV)/.test
	@tests/get_servers.sh $(VENV)/servers
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(BIN)/python -m benchmarks.advisor

bench-accuracy: $(VENV)/.test
	$(BIN)/python -m benchmarks.accuracy

# Driver readings and imports, each relative to the least work that it needs.
bench-hot-paths: $(VENV)/.test
	$(BIN)/python -m benchmarks.hot_paths

# 10,000 recommendations, paginated, to 50 clients, relative to a static response from the same server.
bench-api: $(VENV)/.test
	$(BIN)/python -m benchmarks.api

# The overview and filters of 10,000 GPUs beside static pages of the same size.
bench-page: $(VENV)/.test
	$(BIN)/python -m benchmarks.page

# Diagnoses of 21 scenarios on six GPU models through four exporters, as a table.
bench-grid: $(VENV)/.test
	$(BIN)/python -m benchmarks.grid

# A report on a simulated week of 100 GPUs, relative to its queries alone.
bench-report: $(VENV)/.test
	@tests/get_servers.sh $(VENV)/servers
	PATH="$(CURDIR)/$(VENV)/servers/usr/bin:$$PATH" $(BIN)/python -m benchmarks.weekly_report

# GPU leases under load and kill -9, checked for consistency: about two minutes.
bench-allocation: $(VENV)/.test
	$(BIN)/python -m benchmarks.allocation

# Confusion matrix over simulated situations, and false alarms on a healthy fleet: about half an hour.
bench-diagnosis: $(VENV)/.test
	$(BIN)/python -m benchmarks.diagnosis

# Inference servers: causes recognized, learned curves against published ones, and a week of scaling.
bench-serving: $(VENV)/.test
	$(BIN)/python -m benchmarks.serving_curves
	$(BIN)/python -m benchmarks.serving_backtest
	$(BIN)/python -m benchmarks.serving_diagnosis

# No false advice on healthy servers: about a second of one core for each hour of a replica.
bench-serving-healthy: $(VENV)/.test
	$(BIN)/python -m benchmarks.serving_healthy --servers 1000 --hours 8 --runs $(VENV)/healthy.runs

# Overhead of the training monitor, and whether the data loader finds the right number of workers.
bench-monitor: $(VENV)/.test
	$(BIN)/python -m benchmarks.monitor

bench-gradients: $(VENV)/.test
	$(BIN)/python -m benchmarks.gradients

bench-loaders: $(VENV)/.test
	$(BIN)/python -m benchmarks.loaders

# Predicted memory per batch size, compared with a linear fit and proportional scaling, on simulated models.
bench-plans: $(VENV)/.test
	$(BIN)/python -m benchmarks.published_runs
	$(BIN)/python -m benchmarks.published_plans

bench-batch: $(VENV)/.test
	$(BIN)/python -m benchmarks.batch_fit

# Exported launch settings, read by the frameworks' own libraries, in an environment of its own beside that of the tests.
# Without their dependencies: configurations need none of the kernels.
test-frameworks: $(VENV)/.test
	@$(PYTHON) -m venv $(VENV)/frameworks
	@$(BIN)/python -c "import site; print('import site; site.addsitedir(%r)' % site.getsitepackages()[0])" > "$$($(VENV)/frameworks/bin/python -c 'import site; print(site.getsitepackages()[0])')/tests.pth"
	$(VENV)/frameworks/bin/pip install --quiet --no-deps wheel ninja msgpack hjson py-cpuinfo einops docstring-parser shtab tomli \
	  tyro typeguard megatron-core==0.16.1 torchtitan==0.2.2
	DS_BUILD_OPS=0 $(VENV)/frameworks/bin/pip install --quiet --no-deps --no-build-isolation deepspeed==0.19.8
	$(VENV)/frameworks/bin/python -m pytest -p no:cacheprovider tests/frameworks -W ignore

# The largest batch that fits, compared with Lightning's and accelerate's finders: about ten minutes.
bench-finder: $(VENV)/.test
	$(BIN)/pip install --quiet --editable '.[bench]'
	$(BIN)/python -m benchmarks.finder

# The advisor's pool sizes compared with autoscalers and an oracle, over generated days: about ten minutes.
bench-backtest: $(VENV)/.test
	$(BIN)/python -m benchmarks.backtest
	$(BIN)/python -m benchmarks.slo_backtest
	$(BIN)/python -m benchmarks.headroom_by_hand --first-seed 40
	$(BIN)/python -m benchmarks.heavy_tail_bound
	$(BIN)/python -m benchmarks.forecast_bound --days 8

# Health and metrics under 1,600 idle, slow and one-byte clients, with and without TLS, next to other servers.
bench-connections: $(VENV)/.test
	$(BIN)/pip install --quiet --editable '.[bench-servers]'
	$(BIN)/python -m benchmarks.connections

# The dependencies of the images with their hashes, for the oldest Python that the images may have.
LOCKED = $(VENV)/lock/bin/uv pip compile pyproject.toml --python-version 3.11 --universal --generate-hashes \
	--no-emit-index-url --no-header --quiet
lock:
	@$(PYTHON) -m venv $(VENV)/lock && $(VENV)/lock/bin/pip install --quiet uv
	@for part in exporter:web advisor:advisor,web,kubernetes; do \
		file=docker/requirements-$${part%%:*}.txt; \
		echo "# Dependencies of the $${part%%:*}'s image, with hashes: make lock. Do not edit." > $$file; \
		$(LOCKED) $$(echo $${part#*:} | tr ',' '\n' | sed 's/^/--extra /') >> $$file || exit 1; \
	done

OUT ?= build
# What is in the images, as CycloneDX documents.
sbom:
	@$(PYTHON) -m venv $(VENV)/sbom && $(VENV)/sbom/bin/pip install --quiet cyclonedx-bom
	@mkdir -p $(OUT)
	@for part in exporter advisor; do \
		$(VENV)/sbom/bin/cyclonedx-py requirements docker/requirements-$$part.txt --output-format JSON \
			--output-file $(OUT)/gpu-$$part.cdx.json || exit 1; \
	done

# Known vulnerabilities of the images' dependencies. Where the vulnerability database cannot be reached: a word.
audit:
	@$(PYTHON) -m venv $(VENV)/audit && $(VENV)/audit/bin/pip install --quiet pip-audit
	@for part in exporter advisor; do \
		$(VENV)/audit/bin/pip-audit --disable-pip --require-hashes --requirement docker/requirements-$$part.txt \
			2> $(VENV)/audit/log && status=0 || status=$$?; cat $(VENV)/audit/log; \
		if grep -q 'found in' $(VENV)/audit/log; then exit 1; fi; \
		test $$status -eq 0 || echo "audit of $$part skipped: the vulnerability database cannot be reached"; \
	done

# Malformed requests to both servers, for ten minutes each.
bench-fuzz-http: $(VENV)/.test
	$(BIN)/python -m benchmarks.fuzz_http

# Documented operations of both servers by schemathesis: ten minutes.
bench-fuzz-api: $(VENV)/.test
	$(BIN)/python -m benchmarks.fuzz_api

# A thousand pools over 5,000 GPUs, next to ten.
bench-pools: $(VENV)/.test
	$(BIN)/python -m benchmarks.pools

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
	$(BIN)/python docs/build_nvidia.py
	$(BIN)/python docs/build_gpu_types.py

# docs/ as a site in build/site, in an environment of its own. Fails on a broken link.
docs-site: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/docs/bin/mkdocs build --strict

$(VENV)/.docs: pyproject.toml | $(BIN)/pip
	@$(PYTHON) -m venv $(VENV)/docs
	$(VENV)/docs/bin/pip install --quiet --editable '.[docs]'
	@touch $@

# Rewrite the golden pages after an intended change; review the diff.
golden: $(VENV)/.test
	$(BIN)/python -m pytest tests/unit/exporter/test_golden.py tests/unit/advisor/test_terminal.py --update-golden

# One stamp per set of requirements; a new version also reinstalls, because the package metadata has it.
VERSION_FILE := exporter/gpu_exporter/__init__.py

$(VENV)/.up: pyproject.toml $(VERSION_FILE) | $(BIN)/pip
	@echo "2/3  dependencies, the first time about a minute"
	@$(BIN)/pip install --quiet --editable '.[advisor]'
	@touch $@

$(VENV)/.test: pyproject.toml $(VERSION_FILE) tests/constraints.txt | $(BIN)/pip
	$(BIN)/pip install --quiet --constraint tests/constraints.txt --editable '.[dev]'
	@touch $@ $(VENV)/.up

$(VENV)/exporter/.ready: pyproject.toml $(VERSION_FILE) | $(BIN)/pip
	@$(PYTHON) -m venv $(VENV)/exporter
	$(VENV)/exporter/bin/pip install --quiet --editable '.[dev-exporter]'
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "Python 3.10 or newer is needed; name one with: make PYTHON=python3.12" >&2; exit 1; }
	@echo "1/3  environment in $(VENV)"
	@$(PYTHON) -m venv $(VENV) || \
		{ rm -rf $(VENV); echo "Python's venv module is needed; on Debian: apt-get install python3-venv" >&2; exit 1; }

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
