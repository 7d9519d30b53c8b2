.DEFAULT_GOAL := help
export UV_SYSTEM_CERTS := 1
UV := .venv/bin/uv
COMPILE := $(UV) pip compile --config-file requirements-metadata.toml --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-header --annotation-style line --no-emit-package smoothcache-core

.PHONY: help demo test check fix lock bench-env build test-torch-range
help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18
demo: ## run the small image demo into demo-output/
	python3 run.py demo
test: ## run the tests
	python3 run.py test
check: ## format, lint, types, import directions, tests
	python3 run.py check
fix: ## format, and apply the safe lint fixes
	.venv/bin/ruff format && .venv/bin/ruff check --fix
lock: ## resolve both lock files again
	$(COMPILE) packages/*/pyproject.toml --extra cli --extra stable-audio-tools --group dev \
		--output-file requirements.lock
	$(COMPILE) --group bench --no-deps --output-file requirements-bench.lock
bench-env: ## add the other caches that tools/ compares with to .venv
	$(UV) pip install --no-config --no-deps --require-hashes --requirements requirements-bench.lock
build: ## build the four wheels into dist/
	$(UV) build --no-config --all-packages --wheel --out-dir dist
test-torch-range: ## run the tests with the lowest and with the newest versions allowed
	.venv/bin/python tools/torch_range.py
