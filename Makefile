# make run: everything there is to know for a start. See README.md.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
CLIENTS := .venv-clients
TOOLS   := .venv-tools
AGENTS  := .agents
VLLM    := .vllm
NPM_AGENTS := @openai/codex@0.171.0 @anthropic-ai/claude-code@2.1.197 opencode-ai@1.18.33 @qwen-code/qwen-code@0.15.10
PIP_AGENTS := aider-chat==0.86.2
PIP    := $(BIN)/pip --disable-pip-version-check install --quiet

.PHONY: run setup setup-dev test test-clients test-vllm lint versions vendored audit check format benchmark benchmark-embedded benchmark-peers benchmark-console pictures soak openapi lock clean

run: setup ## install if need be, then serve; without PRIMARY_URL with the embedded CPU model
	@exec $(BIN)/ai-router serve

setup: $(VENV)/installed ## a virtual environment with the router and the embedded model in it

setup-dev: $(VENV)/installed-dev ## and what the tests and checks need

test: setup-dev $(CLIENTS)/installed $(TOOLS)/installed ## all tests
	$(BIN)/python -m pytest $(ARGS)

test-clients: setup-dev $(AGENTS)/installed ## coding agents of the command line; those that cannot be installed are skipped
	$(BIN)/python -m pytest tests/agents $(ARGS)

test-vllm: setup-dev $(VLLM)/installed ## a real vLLM on this processor, as classifier and primary; 2.4 GB
	$(BIN)/python -m pytest tests/vllm $(ARGS)

lint: setup-dev ## format, lint, types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

versions: setup-dev ## requests through the lowest versions allowed, and through the locked ones on the image's Python
	$(BIN)/python -m scripts.try_versions $(PYTHON) requirements-lowest.txt
	$(BIN)/python -m scripts.try_versions --skip-if-missing python3.13 requirements.txt

vendored: setup-dev ## the console's libraries beside the packages that they were taken from
	$(BIN)/python -m scripts.vendor --check

audit: setup-dev $(TOOLS)/installed ## known vulnerabilities of what is installed, and a bill of materials: build/sbom.cdx.json
	$(BIN)/python -m scripts.audit

check: lint test ## everything that has to be green

format: setup-dev ## put the code in form
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

benchmark: setup-dev ## the six measurements, strategies, loads (ARGS=--list: the parts): docs/benchmarks.md
	$(BIN)/python Benchmark $(ARGS)

benchmark-embedded: setup-dev ## the six on the real embedded model, on this CPU
	$(BIN)/python Benchmark --embedded $(ARGS)

benchmark-peers: setup-dev ## beside others of the field, each installed into a folder of its own
	$(BIN)/python Benchmark --only peers $(ARGS)

benchmark-console: setup-dev ## how long the console lets people wait, in Chromium (ARGS=--serve: look around in it)
	$(BIN)/python -m benchmarks.console $(ARGS)

pictures: setup-dev ## the pictures of the console in docs/images
	$(BIN)/python -m benchmarks.console --pictures docs/images

soak: setup-dev ## fifty clients and every fault for three minutes: what is held must stay flat
	$(BIN)/python -m benchmarks.soak $(ARGS)

openapi: setup-dev ## write what is served at /openapi.json from docs/openapi.yaml
	$(BIN)/python -m scripts.openapi

lock: ## write the pinned requirements anew
	scripts/lock

clean: ## everything that was made here, data excepted
	rm -rf $(VENV) $(CLIENTS) $(TOOLS) $(AGENTS) $(VLLM) .benchmark-peers build dist src/*.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(VENV)/installed: requirements.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("ai-router needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(PIP) --require-hashes --no-deps -r requirements.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed requirements-dev.txt
	$(PIP) --require-hashes --no-deps -r requirements-dev.txt
	@touch $@

$(CLIENTS)/installed: requirements-clients.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/pip --disable-pip-version-check install --quiet --require-hashes --no-deps -r requirements-clients.txt
	@touch $@

$(TOOLS)/installed: requirements-tools.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip --disable-pip-version-check install --quiet --require-hashes --no-deps -r requirements-tools.txt
	@touch $@

# Each by itself, so that one that cannot be had does not keep the others away.
$(AGENTS)/installed: Makefile
	@mkdir -p $(AGENTS)
	-for agent in $(NPM_AGENTS); do npm install --prefix $(AGENTS) --no-audit --no-fund $$agent; done
	-$(PYTHON) -m venv $(AGENTS)/aider && $(AGENTS)/aider/bin/pip --disable-pip-version-check install --quiet $(PIP_AGENTS)
	@touch $@

# Where it cannot be had, the tests are skipped, and say so.
$(VLLM)/installed: scripts/make_vllm
	-scripts/make_vllm $(VLLM) $(PYTHON)
	@touch $@
