# `make run` and `make test` do all the set-up: Python 3.11 or later and make are all that must be there.
PYTHON ?= python3
BIN := .venv/bin
SERVING := .venv/.serving
INSTALLED := .venv/.installed
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
DEV := $(CURDIR)/.dev
# Where `make run` serves; another port: make run WEBHOOK_BIND=127.0.0.1:8181
WEBHOOK_BIND ?= 127.0.0.1:8080
WEBHOOK_ADMIN_BIND ?= 127.0.0.1:9090
WEBHOOK_RELAY_BIND ?= 127.0.0.1:9091
EXAMPLE_PORT ?= 9000
DESTINATIONS := $(DEV)/destinations-$(EXAMPLE_PORT).yaml
FUZZ_SECONDS ?= 3600
# Tests wait more than they compute.
PROCESSES ?= $(shell expr 2 '*' "$$(getconf _NPROCESSORS_ONLN)")
LOCK := $(BIN)/uv pip compile -q --universal --generate-hashes --no-header

# Before anything starts: is another one at work here, and which of the ports are taken, each with the line that chooses
# another.
define CHECK_START
import contextlib, fcntl, os, socket, sys
with contextlib.suppress(FileNotFoundError):
    lock = open(sys.argv[1], "rb+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("make run is at work in this directory already: end it, or run a second one in another clone")
taken, chosen = [], set()
for name, _, where in (each.partition("=") for each in sys.argv[2:]):
    host, _, port = where.rpartition(":")
    host = host.strip("[]") or "127.0.0.1"
    try:
        if port in chosen:
            raise ValueError
        chosen.add(port)
        socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except (OSError, ValueError, OverflowError) as ex:
        why = os.strerror(ex.errno) if getattr(ex, "errno", 0) else "each wants a port of its own"
        other = where.rpartition(":")[0] + ":PORT" if ":" in where else "PORT"
        taken.append(f"{where} can't be used ({why}): choose another with  make run {name}={other}")
sys.exit("\n".join(taken) or None)
endef
export CHECK_START

.PHONY: install run test test-cluster test-cluster-long check bench faults fuzz mutants dashboard picture transcript docs golden lock clean

install: $(INSTALLED)

$(SERVING): requirements-run.lock pyproject.toml
	@echo "Installing what serves into .venv: less than a minute, once."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.13 ...")'
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "venv is needed: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	$(PIP) --require-hashes --only-binary :all: -r requirements-run.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

$(INSTALLED): $(SERVING) requirements-dev.lock
	@echo "Installing what tests into .venv: one to three minutes, once."
	$(PIP) --require-hashes --only-binary :all: -r requirements-dev.lock
	touch $@

run: $(SERVING) $(DEV)/credentials $(DESTINATIONS) ## serve on 127.0.0.1, and relay to an example that prints what it gets
	@$(BIN)/python -c "$$CHECK_START" $(DEV)/inbox.db.lock WEBHOOK_BIND=$(WEBHOOK_BIND) \
	  WEBHOOK_ADMIN_BIND=$(WEBHOOK_ADMIN_BIND) \
	  WEBHOOK_RELAY_BIND=$(WEBHOOK_RELAY_BIND) EXAMPLE_PORT=$(EXAMPLE_PORT)
	@echo "Now, in another terminal:"
	@echo "  $(BIN)/whatsapp-webhook simulate http://$(WEBHOOK_BIND)/webhooks --credentials .dev/credentials"
	@echo "  $(BIN)/whatsapp-webhook events list --inbox sqlite://$(DEV)/inbox.db"
	@echo "  curl http://$(WEBHOOK_ADMIN_BIND)/readyz"
	@echo
	@export WEBHOOK_BIND=$(WEBHOOK_BIND) WEBHOOK_ADMIN_BIND=$(WEBHOOK_ADMIN_BIND) WEBHOOK_RUN_DIR=$(DEV)/run \
	  WEBHOOK_CREDENTIALS_DIR=$(DEV)/credentials WEBHOOK_INBOX=sqlite://$(DEV)/inbox.db \
	  WEBHOOK_RELAY_BIND=$(WEBHOOK_RELAY_BIND) WEBHOOK_DESTINATIONS=$(DESTINATIONS); \
	trap 'kill $$started 2>/dev/null; wait' EXIT; trap 'exit 0' INT TERM HUP; \
	$(BIN)/python docs/receiving/receive.py $(EXAMPLE_PORT) $(DEV)/example-secret & example=$$!; \
	$(BIN)/whatsapp-webhook serve & serving=$$!; started="$$example $$serving"; \
	until [ -e $(DEV)/inbox.db ] || ! kill -0 $$serving 2>/dev/null; do sleep 0.1; done; \
	$(BIN)/whatsapp-webhook relay & relaying=$$!; started="$$started $$relaying"; \
	while kill -0 $$serving && kill -0 $$relaying && kill -0 $$example; do sleep 0.5; done 2>/dev/null; \
	echo "One of receiver, relay and example has ended, so the others are stopped: its reason is above." >&2; exit 1

$(DEV)/credentials:
	@umask 077 && mkdir -p $@
	@umask 077 && for name in verify-token app-secret; do \
	  $(PYTHON) -c "import secrets; print(secrets.token_hex(16))" > $@/$$name; done

$(DESTINATIONS):
	@umask 077 && mkdir -p $(DEV) && $(PYTHON) -c "import base64, secrets; \
	  print('whsec_' + base64.b64encode(secrets.token_bytes(24)).decode())" > $(DEV)/example-secret
	@printf '%s\n' 'destinations:' '  - name: example' '    url: http://127.0.0.1:$(EXAMPLE_PORT)/' \
	  '    internal: true  # so that it may be on this machine, and without TLS' '    format: cloudevents' \
	  '    secretFile: example-secret' '    tests: true' > $@

test: install ## everything that takes minutes, not hours: several at once, then alone what measures time
	$(BIN)/pytest --ignore tests/cluster --durations 20 -n $(PROCESSES) --dist loadgroup -m "not alone and not long"
	$(BIN)/pytest --ignore tests/cluster --durations 20 -m "alone and not long"

test-cluster: install ## the chart on the cluster of KUBECONFIG, whose nodes have the image TEST_IMAGE
	$(BIN)/pytest tests/cluster -m "not long" --durations 20 -n 2 --dist loadfile

test-cluster-long: install ## the same, and what takes longer
	$(BIN)/pytest tests/cluster -s

check: install ## lint, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

bench: install ## what a request costs, and a delivery
	$(BIN)/python bench/receiver.py
	$(BIN)/python bench/relay.py
	$(BIN)/python bench/engines.py

faults: install ## kill -9 and power loss, the long form (about an hour; the power loss wants root)
	TEST_KILL_ROUNDS=200 TEST_POWER_TRIALS=200 TEST_RELAY_EVENTS=20000 TEST_STOPPED_SECONDS=10 \
	  $(BIN)/pytest tests/faults --timeout 7200
	TEST_ATTACK_SECONDS=20 $(BIN)/pytest tests/faults/test_attacks.py -s --timeout 600
	TEST_SIMULATED_SECONDS=3600 $(BIN)/pytest tests/relay/test_relay.py tests/relay/test_shares.py -m "long or not alone"

mutants: install ## are the tests any good: of who gets in, of how deliveries are decided, of what is changed at Meta
	$(BIN)/python -m tests.mutants

fuzz: install ## an hour of bytes for the HTTP parser, begun with the corpus (atheris: Linux, Python 3.11 to 3.13)
	$(PIP) --require-hashes --only-binary :all: -r requirements-fuzz.lock
	mkdir -p .fuzz && $(BIN)/python -c "from tests.receiver.worker.cases import read; from pathlib import Path; \
	  [Path('.fuzz', case.name).write_bytes(b'x' + case.raw) for case in read()]"
	$(BIN)/python -m tests.receiver.worker.fuzz -max_total_time=$(FUZZ_SECONDS) .fuzz

dashboard: install ## write the chart's dashboard from its generator
	PYTHONPATH=deploy $(BIN)/python -m dashboard

picture: install ## draw the dashboard's queries for the README (wants prometheus; five minutes)
	PYTHONPATH=deploy $(BIN)/python -m tests.chart.picture

transcript: install ## run subscribe and doctor for the README (wants nginx)
	$(BIN)/python -m tests.support.transcript

docs: install ## write the tables of the documents that are made from the code
	$(BIN)/python -m tests.support.doc_tables

golden: ## write what the chart renders without values, for its test
	helm template wh deploy/helm --namespace here > tests/chart/golden.yaml

lock: ## update the lock files
	$(LOCK) --all-extras -o requirements.lock pyproject.toml
	$(LOCK) --group build -o requirements-build.lock
	$(LOCK) --group build --group example --all-extras -o requirements-run.lock pyproject.toml
	$(LOCK) --group dev --all-extras -o requirements-dev.lock pyproject.toml
	$(LOCK) --group fuzz -o requirements-fuzz.lock

clean:
	rm -rf .venv .dev .fuzz build *.egg-info
