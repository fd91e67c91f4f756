# Tuneloom for its developers. `make demo` and `make test` install what they need.
SHELL := bash
BIN := .venv/bin

.PHONY: help install install-postgresql install-engine demo up check format test test-unit test-full test-compose test-chaos protos base bench images clean

help:
	@grep -E '^[a-z-]+:.*## ' Makefile | sed 's/:.*## /|/' | column -t -s '|'

install: ## Services, worker and tools into .venv
	@scripts/install services

install-postgresql:
	@scripts/install postgresql

install-engine: install
	@scripts/install engine

demo: install-engine ## From nothing to a fine-tuned, merged, proven and served model
	@$(BIN)/python examples/demo.py

up: install-engine ## Start every service on this machine
	@$(BIN)/tuneloom up

check: install install-postgresql ## Lint, types, import rules, proto and lock drift, slim imports, contracts of earlier releases
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy protos/gen/tuneloom services examples/demo.py
	@$(BIN)/lint-imports
	@scripts/protos --check
	@$(BIN)/python docker/lock.py --check
	@$(BIN)/pytest -q tests/slim tests/contract

format: install ## Format the code
	@$(BIN)/ruff check --fix -q . ; $(BIN)/ruff format -q .

test-unit: install install-postgresql ## The fast tests
	@$(BIN)/pytest -q -n 2 -m "not worker" tests/unit

test: install-engine install-postgresql ## Units and contracts on every database, a real engine, real training jobs
	@$(BIN)/pytest -q -n 2 -m "not worker" tests/unit
	@$(BIN)/pytest -q -m worker tests/unit
	@$(BIN)/pytest -q tests/integration tests/e2e

test-full: install install-postgresql ## What else gates a change: S3, several of each service, containers in short
	@$(BIN)/pytest -q tests/s3 tests/cluster
	@$(MAKE) --no-print-directory test-compose SHORT=1

protos: install ## Generate protos/gen
	@scripts/protos

base: install
	@$(BIN)/python -m models.seed.build models/seed/weights

test-chaos: install-engine ## Faults while jobs train: on a cluster (FAULTS=200 SEED=1), or kill -9 on one machine (KILLS=100)
	@$(BIN)/python -m $(if $(KILLS),tests.chaos.kills --kills $(KILLS),tests.chaos.campaign --faults $(or $(FAULTS),200)) --seed $(or $(SEED),1)

bench: install ## A benchmark against its peers: make bench NAME=gateway (without NAME: those there are)
	@if [ -n "$(NAME)" ]; then $(BIN)/python tests/benchmarks/$(NAME).py; else \
	  for file in tests/benchmarks/[a-z]*.py; do echo "make bench NAME=$$(basename $$file .py): $$(head -1 $$file | tr -d '\"')"; done; fi

test-compose: install ## The journey, restarts and an upgrade in containers, images built (needs Docker): make test-compose SHORT=1
	@$(BIN)/pytest -q tests/compose $(if $(SHORT),-m "not long")

images: ## Build the container images, one per part: make images PARTS="gateway cli" BASE=python:3.11-slim-bookworm TAG=dev
	@$(if $(BASE),BASE=$(BASE)) $(if $(TAG),TAG=$(TAG)) docker/build $(PARTS)

clean: ## Remove environments and caches
	@rm -rf .venv .venv-engine .venv-swift .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
