# One place for people and CI. Every variable can be set on the command line, e.g. for a second checkout beside this
# one: make up POSTGRES_PORT=25432 SMTP_PORT=20025 INBOX_PORT=28025 AIRFLOW_PORT=28080
PYTHON        ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
STATE_DIR     ?= .local
POSTGRES_PORT ?= 15432
SMTP_PORT     ?= 10025
INBOX_PORT    ?= 18025
AIRFLOW_PORT  ?= 18080
export STATE_DIR POSTGRES_PORT SMTP_PORT INBOX_PORT AIRFLOW_PORT

BIN := .venv/bin
BROWSER_DRIVER := playwright==1.65.2

.DEFAULT_GOAL := help
.PHONY: help setup up down demo test flaky check lock pictures cap-rounds incident acceptance chaos mta-cuts model mutants coverage browser stories \
  bench bench-peers bench-million

help: ## Show every target in a line
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

setup: ## Make the virtual environment from requirements.lock (nothing to do when it has not changed)
	@$(PYTHON) -I local_stack/environment.py

demo: setup ## Show the whole promise in three minutes: send, run again, clear, backfill, count the copies
	@$(BIN)/python -m local_stack.demo

up: setup ## Start the local stack, send one day, and leave it running
	@$(BIN)/python -m local_stack up

down: ## Stop the local stack; no process is left
	@if [ -x $(BIN)/python ]; then $(BIN)/python -m local_stack down; fi

test: setup ## Run all tests (ten to twenty minutes on two cores)
	@$(BIN)/python -m pytest $(ARGS)

flaky: setup ## Run the fast tests RUNS=10 times in a row, or all of them (ALL=1), and end at the first that is red
	@for run in $$(seq $(or $(RUNS),10)); do \
	  echo "run $$run of $(or $(RUNS),10)"; $(BIN)/python -m pytest -q $(if $(ALL),,-m "not slow") $(ARGS) || exit 1; done

chaos: setup ## Play every fault and N seeded schedules from SEED (LONG=1: all of them, RESULTS=file to go on with)
	@$(BIN)/python -m reliability.fault_bench --seed $(or $(SEED),1) $(if $(N),--schedules $(N)) \
	  $(if $(LONG),--long) $(if $(ROWS),--rows "$(ROWS)") $(if $(RESULTS),--results $(RESULTS))

model: setup ## Search every order of events of the protocol, of careless ones and of its mutants
	@$(BIN)/python -m reliability.protocol_model $(ARGS)

mutants: setup ## Plant wrong changes in copies of the package and see the fast tests notice each
	@$(BIN)/python -m reliability.mutants $(ARGS)

coverage: setup ## Branch coverage of ledger, delivery and frequency cap by their tests; fails under 100 %
	@$(BIN)/coverage erase
	@$(BIN)/coverage run -m pytest -q tests/unit tests/integration $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --fail-under=100

cap-rounds: setup ## Race the frequency cap, ROUNDS=10000 times with 16 connections at once
	@$(BIN)/python -m reliability.cap_rounds --rounds $(or $(ROUNDS),10000)

incident: setup ## Replay the incident on a real Redis and Celery: the old way, and this package (needs redis-server)
	@$(BIN)/python -m reliability.incident

acceptance: setup ## Send 10,000 users a day's mail on Celery as docker-compose.yaml has it (needs redis-server)
	@$(BIN)/python -m reliability.acceptance

mta-cuts: setup ## Cut the dialogue with a real Postfix at every point (needs Postfix and root)
	@$(BIN)/python -m reliability.mta_cuts

bench: setup ## Compare with smtp-source, smtplib and EmailOperator on this machine (SIZE=20000 mails a round)
	@$(BIN)/python -m bench $(if $(SIZE),--size $(SIZE)) $(ARGS)

bench-peers: setup ## The same with django-post_office and Nodemailer beside it (needs node and npm)
	@$(BIN)/python -m bench $(if $(SIZE),--size $(SIZE)) --peers $(STATE_DIR)/bench-peers $(ARGS)

bench-million: setup ## Send a day of SIZE=1000000 users in a real Airflow, from trigger to success
	@$(BIN)/python -m bench.million $(if $(SIZE),--size $(SIZE)) $(ARGS)

check: setup ## Lint, format, types, and whether generated files, the lock and docker-compose.yaml are in step
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m local_stack.lock_check
	$(BIN)/pip --disable-pip-version-check check
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/python -m local_stack.generated_check
	$(BIN)/check-jsonschema --schemafile include/campaign.schema.json include/campaigns/*.yaml
	$(if $(wildcard include/throttles.yaml),$(BIN)/check-jsonschema --schemafile include/throttles.schema.json \
	  include/throttles.yaml)

lock: setup ## Resolve requirements.txt and requirements-dev.txt into requirements.lock anew
	@$(BIN)/uv pip compile requirements.txt requirements-dev.txt --universal --python-version 3.11 \
	  --generate-hashes --no-emit-index-url --quiet --custom-compile-command "make lock" -o requirements.lock
	@$(MAKE) --no-print-directory setup

browser: setup ## Install what drives Chromium, for pictures and stories (apt-get install chromium for the browser)
	@$(BIN)/pip --disable-pip-version-check install --quiet --no-deps $(BROWSER_DRIVER)

pictures: browser ## Take the pictures of docs/images anew from the running stack (needs Chromium and fonts)
	@$(BIN)/python -m local_stack.pictures

stories: browser ## Play the runbook on a real Airflow, in at most 20 minutes (needs Chromium; ONLY=words plays a part)
	@$(BIN)/python -m reliability.stories --only "$(ONLY)"
