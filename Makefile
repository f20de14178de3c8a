# The one list of tasks. Needs Python 3.11+, make and pip; everything else goes into .venv.

PYTHON ?= python3
ARGS ?=
PROFILE ?= embedded
TESTERS ?= 4
BIN := .venv/bin
S2_LITE := 0.42.7
S2 := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/sessions/s2-lite-$(S2_LITE)/bin/server
# Trust whom the machine trusts, as pip does, not only whom uv was built to trust.
export UV_SYSTEM_CERTS ?= 1
# uv does not read pip's configuration; where pip is told of another index, tell uv too.
INDEX = UV_DEFAULT_INDEX="$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$($(BIN)/python -m pip config get global.index-url 2>/dev/null)}}"
INSTALL = $(INDEX) $(BIN)/uv pip install --quiet --python $(BIN)/python -c constraints.txt -b constraints.txt

.DEFAULT_GOAL := help
.PHONY: help serve test check lint types imports audit fmt bench bench-replication bench-runs clients browser s2 lock clean

help:  ## show this list
	@sed -n 's/^\([a-z0-9-]*\):.*##/\1/p' Makefile | while read -r task text; do printf '%-17s %s\n' "$$task" "$$text"; done

serve: .venv/.server  ## run the server (ARGS='--help' shows its options)
	$(BIN)/sessions serve $(ARGS)

test: .venv/.dev  ## run the tests in TESTERS processes (ARGS='tests/unit -x' picks some)
	$(BIN)/pytest -n $(TESTERS) --dist loadscope $(ARGS)

check: lint types imports  ## all that is checked without running the code

lint: .venv/.dev  ## style and formatting
	$(BIN)/ruff check . && $(BIN)/ruff format --check .

types: .venv/.dev  ## mypy everywhere, pyright on the core and the type tests
	$(BIN)/mypy && $(BIN)/basedpyright

imports: .venv/.dev  ## who may import whom
	$(BIN)/lint-imports --no-logo

audit: .venv/.dev  ## ask whether a pinned version has a known vulnerability (ARGS=--required fails where nobody can be asked)
	@$(INSTALL) --group audit
	PYTHONPATH=tests $(BIN)/python -m harness.audit $(ARGS)

fmt: .venv/.dev  ## format, and fix what can be fixed
	$(BIN)/ruff check --fix-only . && $(BIN)/ruff format .

bench: .venv/.dev  ## run the benchmarks (PROFILE=postgres or scale measures those)
	$(BIN)/python benchmarks --profile $(PROFILE) $(ARGS)

bench-replication: .venv/.dev  ## measure replication from Postgres to ClickHouse (ARGS=--short takes less time)
	PYTHONPATH=.:tests $(BIN)/python -m benchmarks.replication $(ARGS)

bench-runs: .venv/.dev  ## measure runs on workers (ARGS=--short takes less time)
	PYTHONPATH=.:tests $(BIN)/python -m benchmarks.runs $(ARGS)

clients: tests/javascript/node_modules/.installed  ## install the official JavaScript clients that the tests drive (needs Node 20+)

browser: .venv/.dev  ## install what the tests of the chat page drive: Playwright and, as root where apt is, Chromium
	@$(INSTALL) --group browser
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; \
		then apt-get -qq update && apt-get -qq install -y --no-install-recommends chromium; \
		else echo 'There is no Chromium. Install it, e.g. with: sudo apt-get install chromium' >&2; exit 1; fi

s2: $(S2)  ## build s2-lite, the S2 server that tests start, once into a cache (needs Rust's cargo; about 10 minutes on two cores)

lock: $(BIN)/uv  ## write constraints.txt again (ARGS=--upgrade takes newer versions)
	@$(INDEX) $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --all-extras --group dev --group services --group browser --group audit --group bootstrap \
		--no-emit-index-url --no-header --no-annotate -o constraints.txt $(ARGS) pyproject.toml

clean:  ## remove the environment, caches and build output
	rm -rf .venv build dist .*_cache .hypothesis tests/javascript/node_modules && find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment. Stamp files make the second time quick.
$(BIN)/uv:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv

.venv/.server: pyproject.toml constraints.txt | $(BIN)/uv
	@echo 'installing the server into .venv'
	@$(INSTALL) -e '.[server]' && touch $@

.venv/.dev: pyproject.toml constraints.txt | $(BIN)/uv
	@echo 'installing the server and the development tools into .venv'
	@$(INSTALL) -e '.[server,postgres,replication,redis,clickhouse,s2,procrastinate,otel]' --group dev --group services && touch .venv/.server $@

$(S2):
	@command -v cargo >/dev/null || { echo 'Building s2-lite needs cargo: install Rust (https://rustup.rs), then run `make s2` again' >&2; exit 1; }
	cargo install --quiet --locked s2-lite --version $(S2_LITE) --root $(dir $(@D))

tests/javascript/node_modules/.installed: tests/javascript/package.json tests/javascript/.npmrc
	cd tests/javascript && npm install --no-progress && touch node_modules/.installed
