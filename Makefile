# SPDX-License-Identifier: GPL-2.0-only
#
#   make run     set everything up, then test the default series on emulated hosts
#   make test    set everything up, then run the harness's own tests (through tox)
#
# ARGS go to the command: make run ARGS="--series my.mbox --host n1"

PYTHON ?= python3
BIN := .venv/bin

run: setup
	@$(BIN)/kvm-harness run $(ARGS)

test: setup
	@$(BIN)/tox run $(ARGS)

# What a machine of a lab may do wrong, and docs/faults.md from it: three quarters of an hour.
test-faults: setup
	@$(BIN)/tox run -e faults $(ARGS)

# Runs over two hosts, killed at random points and resumed; ARGS="-- --count 50" kills so many.
test-kills: setup
	@$(BIN)/tox run -e kills $(ARGS)

# Machines of a lab: with modules of its own; from its disk by UEFI and GRUB. Each takes a kernel.
test-lab: setup
	@$(PYTHON) -m harness.doctor --install --quiet --lab
	@$(BIN)/tox run -e lab $(ARGS)

# HTML reports in Chromium, narrow and wide, light and dark; pictures of them in .tox/look/tmp.
test-look: setup
	@$(PYTHON) -m harness.doctor --install --quiet --look
	@$(BIN)/tox run -e look $(ARGS)

bench: setup
	@$(BIN)/kvm-harness bench $(ARGS)

# Debian packages first (the virtual environment needs one), then the Python
# packages of the lock file, then the project itself.
setup: packages .venv/up-to-date

packages:
	@$(PYTHON) -m harness.doctor --install --quiet

.venv/up-to-date: requirements.lock pyproject.toml | packages
	@echo "Setting up the virtual environment in .venv ..."
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

clean:
	rm -rf .venv .tox guests/build *.egg-info

.PHONY: run test test-faults test-kills test-lab test-look bench setup packages clean
