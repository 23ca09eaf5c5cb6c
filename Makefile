# Each target works alone on a fresh Debian 12, Ubuntu 22.04, or newer, with sudo: it installs what it needs first.
# Options for pytest go into ARGS:  sudo make test ARGS='-k boot -x'

VENV := .venv
PYTEST := $(VENV)/bin/pytest
PIP := $(VENV)/bin/pip install --quiet --disable-pip-version-check
READY := $(VENV)/.ready
READY_TEST := $(VENV)/.ready-test
AZURE_CLI := .venv-azure-cli
READY_AZURE_CLI := $(AZURE_CLI)/.ready
DEBIAN := example_images/debian/debian.vhd
ARGS ?=

# A test that waits for ever fails after ten minutes, with the stacks of its threads. Where it does not end even then, its
# worker is ended, and what is left of its file is tried once more by another one, after all else.
PATIENCE := --timeout 600 --timeout-method signal --max-worker-restart 1 \
	-o faulthandler_timeout=900 -o faulthandler_exit_on_timeout=true

.DEFAULT_GOAL := help
.PHONY: help example customize boot test clients azure-cli lint format setup setup-test clean

help: ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | while IFS="$$(printf '\t')" read -r target text; do \
		printf '  make %-10s %s\n' "$$target" "$$text"; done

example: setup $(READY) ## Build, check and publish example_images/debian, in place of the last one
	$(PYTEST) example_images/debian --azchroot-overwrite $(ARGS)

customize: setup $(READY) $(DEBIAN) ## The same with example_images/customize, which starts from that
	$(PYTEST) example_images/customize --azchroot-overwrite $(ARGS)

$(DEBIAN): | setup $(READY)
	$(PYTEST) example_images/debian

boot: setup-test $(DEBIAN) ## Start what `make example` built: console here (Ctrl-A X ends it), pages at localhost:8080
	qemu-system-x86_64 -accel tcg -cpu max -m 512 -nographic -no-reboot -drive file=$(DEBIAN),format=vpc,if=virtio,snapshot=on \
		-nic user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:8080-:80

test: setup-test $(READY_TEST) ## Run all tests of the project
	$(PYTEST) --numprocesses auto --dist loadfile $(PATIENCE) $(ARGS)

clients: setup-test $(READY_TEST) $(READY_AZURE_CLI) ## Run those with real clients of Azure alone, slow ones too
	AZCHROOT_ALL_CLIENTS=1 $(PYTEST) --numprocesses auto --dist loadfile tests/clients $(ARGS)

azure-cli: $(READY_AZURE_CLI) ## Install azure-cli, which `make test` leaves out where it is not there

lint: $(READY_TEST) ## Look for mistakes without running anything
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(READY_TEST) ## Lay the code out as `make lint` wants it
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

setup:
	@tools/setup build

setup-test:
	@tools/setup test

# To build images, the project alone; to test it, tools and other pytest plugins that a reader of a build need not see.
$(READY): pyproject.toml tools/python | setup
	@echo 'Installing the project into $(VENV)'
	@python=$$(tools/python) && $$python -m venv $(VENV)
	@$(PIP) --editable .
	@touch $@

$(READY_TEST): $(READY)
	@echo 'Installing what its tests need into $(VENV)'
	@$(PIP) --editable '.[test]'
	@touch $@

# The tests quote its words: another version may say it differently. Its modules are compiled when they are used.
$(READY_AZURE_CLI): | setup
	@echo 'Installing azure-cli into $(AZURE_CLI): 400 MB'
	@python=$$(tools/python) && $$python -m venv $(AZURE_CLI)
	@$(AZURE_CLI)/bin/pip install --quiet --disable-pip-version-check --no-compile azure-cli==2.91.0
	@touch $@

clean: ## Remove the virtual environment and caches, not what you built
	rm -rf $(VENV) $(AZURE_CLI) .pytest_cache .mypy_cache .ruff_cache
	find pytest_azchroot tests example_images -name __pycache__ -type d -prune -exec rm -rf {} +
