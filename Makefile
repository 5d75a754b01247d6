# `make run` and `make test` install everything they need. Requirements: make, and Python 3.11 or later with venv.
PYTHON ?= python3
BIN := .venv/bin
SERVING := .venv/.serving
INSTALLED := .venv/.installed
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
DEV := $(CURDIR)/.dev
# Addresses of `make run`. Another port: make run WEBHOOK_BIND=127.0.0.1:8181
WEBHOOK_BIND ?= 127.0.0.1:8080
WEBHOOK_ADMIN_BIND ?= 127.0.0.1:9090
WEBHOOK_RELAY_BIND ?= 127.0.0.1:9091
EXAMPLE_PORT ?= 9000
DESTINATIONS := $(DEV)/destinations.yaml
FUZZ_SECONDS ?= 3600
# Programs that only a release and the check of the workflows need, outside the tree.
TOOLS ?= $(HOME)/.cache/whatsapp-webhook-tools
ACTIONLINT := github.com/rhysd/actionlint/cmd/actionlint@v1.7.7
GO_TOOLS := $(ACTIONLINT) github.com/google/go-containerregistry/cmd/crane@v0.20.6 \
  github.com/sigstore/cosign/v2/cmd/cosign@v2.6.1 github.com/anchore/syft/cmd/syft@v1.38.0 \
  github.com/distribution/distribution/v3/cmd/registry@v3.0.0
# More than one process per core: tests wait more than they compute.
PROCESSES ?= $(shell expr 2 '*' "$$(getconf _NPROCESSORS_ONLN)")
LOCK := $(BIN)/uv pip compile -q --universal --generate-hashes --no-header

# Before anything starts: fail if another `make run` uses this directory, or a port is in use; name the option that
# chooses another port.
define CHECK_START
import contextlib, fcntl, os, socket, sys
with contextlib.suppress(FileNotFoundError):
    lock = open(sys.argv[1], "rb+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("make run is already running in this directory: stop it, or use another clone")
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
        why = os.strerror(ex.errno) if getattr(ex, "errno", 0) else "two listeners need different ports"
        other = where.rpartition(":")[0] + ":PORT" if ":" in where else "PORT"
        taken.append(f"{where} can't be used ({why}): choose another port with  make run {name}={other}")
sys.exit("\n".join(taken) or None)
endef
export CHECK_START

# Create the files of `make run` that are missing, and set the example's port in the destinations file. Not before
# CHECK_START: another `make run` may use these files.
define CREATE_FILES
import base64, contextlib, os, pathlib, re, secrets, sys
dev, port = pathlib.Path(sys.argv[1]), sys.argv[2]
os.umask(0o077)
(dev / "credentials").mkdir(parents=True, exist_ok=True)
example = f"""\
destinations:
  - name: example
    url: http://127.0.0.1:{port}/
    internal: true   # allows http and addresses of this machine
    format: cloudevents
    secretFile: example-secret
    tests: true
"""
for name, text in (
    ("credentials/verify-token", secrets.token_hex(16) + "\n"),
    ("credentials/app-secret", secrets.token_hex(16) + "\n"),
    ("example-secret", f"whsec_{base64.b64encode(secrets.token_bytes(24)).decode()}\n"),
    ("destinations.yaml", example),
):
    with contextlib.suppress(FileExistsError), (dev / name).open("x") as file:
        file.write(text)
destinations = (dev / "destinations.yaml").read_text()
moved = re.sub(r"(- name: example\n    url: http://127\.0\.0\.1:)\d+/", rf"\g<1>{port}/", destinations, count=1)
if moved != destinations:
    (dev / "destinations.yaml").write_text(moved)
endef
export CREATE_FILES

.PHONY: help install run fresh test test-cluster test-cluster-long check check-tools release-tools audit release release-check publish bench faults upgrade fuzz mutants dashboard picture transcript docs golden lock clean

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | while IFS='|' read -r target meaning; do \
	  printf '%-18s %s\n' "$$target" "$$meaning"; done

install: $(INSTALLED) ## install everything into .venv

$(SERVING): requirements-run.lock pyproject.toml
	@echo "Installing the service into .venv: less than a minute, once."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=python3.13 ...")'
	@$(PYTHON) -m venv .venv || { rm -rf .venv; echo "Python's venv module is required: on Debian and Ubuntu, apt install python3-venv"; exit 1; }
	$(PIP) --require-hashes --only-binary :all: -r requirements-run.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

$(INSTALLED): $(SERVING) requirements-dev.lock
	@echo "Installing the tests' packages into .venv: one to three minutes, once."
	$(PIP) --require-hashes --only-binary :all: -r requirements-dev.lock
	touch $@

run: $(SERVING) ## start receiver, relay and an example application on 127.0.0.1
	@$(BIN)/python -c "$$CHECK_START" $(DEV)/inbox.db.lock WEBHOOK_BIND=$(WEBHOOK_BIND) \
	  WEBHOOK_ADMIN_BIND=$(WEBHOOK_ADMIN_BIND) \
	  WEBHOOK_RELAY_BIND=$(WEBHOOK_RELAY_BIND) EXAMPLE_PORT=$(EXAMPLE_PORT)
	@$(BIN)/python -c "$$CREATE_FILES" $(DEV) $(EXAMPLE_PORT)
	@echo "In a second terminal:"
	@echo "  export WEBHOOK_INBOX=sqlite://$(DEV)/inbox.db WEBHOOK_DESTINATIONS=$(DESTINATIONS)"
	@echo "  export WEBHOOK_CREDENTIALS_DIR=$(DEV)/credentials PATH=$(abspath $(BIN)):\$$PATH"
	@echo "  export WEBHOOK_BIND=$(WEBHOOK_BIND) WEBHOOK_ADMIN_BIND=$(WEBHOOK_ADMIN_BIND) WEBHOOK_RELAY_BIND=$(WEBHOOK_RELAY_BIND)"
	@echo "  whatsapp-webhook simulate http://$(WEBHOOK_BIND)/webhooks"
	@echo "  whatsapp-webhook events list"
	@echo "  curl http://$(WEBHOOK_ADMIN_BIND)/readyz"
	@echo
	@export WEBHOOK_BIND=$(WEBHOOK_BIND) WEBHOOK_ADMIN_BIND=$(WEBHOOK_ADMIN_BIND) WEBHOOK_RUN_DIR=$(DEV)/run \
	  WEBHOOK_CREDENTIALS_DIR=$(DEV)/credentials WEBHOOK_INBOX=sqlite://$(DEV)/inbox.db \
	  WEBHOOK_RELAY_BIND=$(WEBHOOK_RELAY_BIND) WEBHOOK_DESTINATIONS=$(DESTINATIONS); \
	trap 'kill $$started 2>/dev/null; wait' EXIT; trap 'exit 0' INT TERM HUP; \
	$(BIN)/python docs/examples/receivers/stdlib_cloudevents.py $(EXAMPLE_PORT) $(DEV)/example-secret & example=$$!; \
	$(BIN)/whatsapp-webhook serve & serving=$$!; started="$$example $$serving"; \
	until [ -e $(DEV)/inbox.db ] || ! kill -0 $$serving 2>/dev/null; do sleep 0.1; done; \
	$(BIN)/whatsapp-webhook relay & relaying=$$!; started="$$started $$relaying"; \
	while kill -0 $$serving && kill -0 $$relaying && kill -0 $$example; do sleep 0.5; done 2>/dev/null; \
	echo "Receiver, relay or example has stopped, so the others are stopped too. The reason is above." >&2; exit 1

fresh: ## remove .dev: the inbox, credentials and destinations of make run
	rm -rf $(DEV)

test: install ## run all tests that take minutes, in parallel, then those that measure time alone
	$(BIN)/pytest --ignore tests/cluster --durations 20 -n $(PROCESSES) --dist loadgroup -m "not alone and not long"
	$(BIN)/pytest --ignore tests/cluster --durations 20 -m "alone and not long"

test-cluster: install ## test the chart on the cluster of KUBECONFIG; its nodes must have the image TEST_IMAGE
	$(BIN)/pytest tests/cluster -m "not long" --durations 20 -n 2 --dist loadfile

test-cluster-long: install ## test-cluster, and the tests that take longer
	$(BIN)/pytest tests/cluster -s

check: install ## lint code and language, check types and import contracts, build the documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(BIN)/pytest -q -p no:cacheprovider tests/test_language.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --site-dir $$(mktemp -d)
	@if [ -x $(TOOLS)/bin/actionlint ]; then set -x; $(TOOLS)/bin/actionlint -shellcheck $(TOOLS)/bin/shellcheck && $(TOOLS)/bin/zizmor --quiet --offline .github; \
	  else echo "the workflows are not checked: make check-tools installs actionlint, shellcheck and zizmor"; fi

# Go downloads the version of itself that a program needs.
define INSTALL_GO_TOOLS
  for tool in $(1); do stamp=$(TOOLS)/.$$(basename $$tool); [ -e $$stamp ] \
    || { GOBIN=$(abspath $(TOOLS))/bin go install $$tool && touch $$stamp; } || exit 1; done
endef

$(TOOLS)/.python-tools: requirements-tools.lock
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: -r requirements-tools.lock
	touch $@

check-tools: $(TOOLS)/.python-tools ## install the programs that check the workflows, outside the tree (needs go)
	@$(call INSTALL_GO_TOOLS,$(ACTIONLINT))

release-tools: $(TOOLS)/.python-tools ## check-tools, and the programs that publish a release
	@$(call INSTALL_GO_TOOLS,$(GO_TOOLS))

audit: install ## licences and known vulnerabilities of the packages in the image; writes THIRD_PARTY.md
	$(BIN)/python -m tests.support.third_party $(TOOLS)/bin/pip-audit

release: install ## prepare a release: make release VERSION=1.2.3 (versions, changelog, golden files)
	PYTHONPATH=deploy $(BIN)/python -m release.prepare "$(VERSION)"
	$(MAKE) golden docs
	@echo "Review the changes, commit them as \"Release $(VERSION)\", and tag that commit v$(VERSION)."

release-check: ## check that TAG names the version of this commit, and that the version is prepared
	PYTHONPATH=deploy $(PYTHON) -m release.prepare --check "$(TAG)"

publish: ## publish chart, bills of materials and signatures of a pushed image: docs/releasing.md
	@[ -x $(TOOLS)/bin/cosign ] || { echo "make release-tools installs the programs that this needs"; exit 1; }
	PATH=$(abspath $(TOOLS))/bin:$$PATH PYTHONPATH=deploy $(TOOLS)/bin/python -m release.publish --image "$(IMAGE)" \
	  --digest "$(DIGEST)" --charts "$(CHARTS)" --source "$(SOURCE)" $(PUBLISH_OPTIONS)

bench: install ## measure CPU and throughput of receiver, relay and engines
	$(BIN)/python bench/receiver.py
	$(BIN)/python bench/relay.py
	$(BIN)/python bench/engines.py

faults: install ## kill -9, power loss, attacks: the long form (about an hour; power loss needs root)
	TEST_KILL_ROUNDS=200 TEST_POWER_TRIALS=200 TEST_RELAY_EVENTS=20000 TEST_STOPPED_SECONDS=10 \
	  $(BIN)/pytest tests/faults --timeout 7200
	TEST_ATTACK_SECONDS=20 $(BIN)/pytest tests/faults/test_attacks.py -s --timeout 600
	TEST_SIMULATED_SECONDS=3600 $(BIN)/pytest tests/relay/test_relay.py tests/relay/test_shares.py -m "long or not alone"

upgrade: install ## upgrade and roll back under load on each engine: make upgrade FROM=v1.2.3
	@git rev-parse --quiet --verify "$(FROM)^{commit}" >/dev/null || { echo "name an earlier version: make upgrade FROM=v1.2.3"; exit 1; }
	TEST_UPGRADE_FROM=$(FROM) $(BIN)/pytest tests/faults/test_upgrade.py -s

mutants: install ## mutation tests of authentication, delivery policy and registration at Meta
	$(BIN)/python -m tests.mutants

fuzz: install ## fuzz the HTTP parser for an hour, starting with the corpus (atheris: Linux, Python 3.11 to 3.13)
	$(PIP) --require-hashes --only-binary :all: -r requirements-fuzz.lock
	mkdir -p .fuzz && $(BIN)/python -c "from tests.receiver.worker.cases import read; from pathlib import Path; \
	  [Path('.fuzz', case.name).write_bytes(b'x' + case.raw) for case in read()]"
	$(BIN)/python -m tests.receiver.worker.fuzz -max_total_time=$(FUZZ_SECONDS) .fuzz

dashboard: install ## generate the chart's dashboard
	PYTHONPATH=deploy $(BIN)/python -m dashboard

picture: install ## draw the README's picture of the dashboard (needs prometheus; five minutes)
	PYTHONPATH=deploy $(BIN)/python -m tests.chart.picture

transcript: install ## generate the README's transcript of doctor (needs nginx)
	$(BIN)/python -m tests.support.transcript

docs: install ## generate the tables of the documentation, and build its site into site/
	$(BIN)/python -m tests.support.doc_tables
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

golden: ## write the chart's rendering without values, which a test compares
	helm template wh deploy/helm --namespace here > tests/chart/golden.yaml

lock: ## update the lock files
	$(LOCK) --all-extras -o requirements.lock pyproject.toml
	$(LOCK) --group build -o requirements-build.lock
	$(LOCK) --group build --group example --all-extras -o requirements-run.lock pyproject.toml
	$(LOCK) --group dev --all-extras -o requirements-dev.lock pyproject.toml
	$(LOCK) --group tools -o requirements-tools.lock
	$(LOCK) --group fuzz -o requirements-fuzz.lock

clean: ## remove .venv, .dev and everything else that make created
	rm -rf .venv .dev .fuzz build dist site *.egg-info
