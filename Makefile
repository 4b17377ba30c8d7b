# Two commands do the work: `make book` and `make test`. Each sets up what is missing, and needs nothing but
# Python 3.11, 3.12 or 3.13 with venv. A stopped `make` is taken up again by the same command.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

PROFILE ?= quick
PORT ?= 8000
WORKERS ?= auto
# What a user gives goes to the commands through the environment, as it is: recipes quote it, neither make nor a shell
# reads what is in it.
GIVEN := NB P NAME PROFILE PORT WORKERS KERAS TORCH_INDEX
$(foreach name,$(GIVEN),$(eval override $(name) := $$(value $(name))))
export $(GIVEN)
# PYTHON=python3.13 names the Python of a new .venv; the first of these is that of the published numbers.
PYTHONS := $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python)

# TRECX_PYTHON=... names a Python that already has requirements.lock, such as the one of the conda environment
# `trecx`; then no .venv is made.
ifeq ($(CONDA_DEFAULT_ENV),trecx)
TRECX_PYTHON ?= python
endif
ifdef TRECX_PYTHON
PY := $(TRECX_PYTHON)
READY :=
else
PY := .venv/bin/python
READY := .venv/.ready
endif

# This checkout's package is used, wherever the environment was made, before those that a module system has put there.
export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))

# Those that the table of contents names: a copy made in Jupyter is no page. Files with a space in their name, copies
# too, are nobody's prerequisites.
NOTEBOOKS := $(sort $(wildcard $(shell sed -nE '/_live$$/d; s|.*file: (notebooks/[0-9][0-9]_[a-z0-9_]+)$$|\1.ipynb|p' book/_toc.yml 2>/dev/null)))
# Chapters run twice, on published records and live; the first number of a notebook says which are chapters.
CHAPTERS := $(filter $(foreach k,1 2 3 4 5 6,notebooks/0$k_%),$(NOTEBOOKS))
TWINS := $(CHAPTERS:notebooks/%.ipynb=book/notebooks/%_live.ipynb)
EXECUTED := $(NOTEBOOKS:%=book/%) $(TWINS)
PACKAGE := $(sort $(shell find trecx -not -name '* *' \( -name '*.py' -o -name '*.yaml' \)))
# The published records that a chapter reads; those of one benchmark concern no other's.
records = $(sort $(shell find $(1:%=book/records/%) -type f -not -path '* *' 2>/dev/null))
ALL_RECORDS := cifar10 speech_commands vww96 reference device
PAGES := $(sort $(shell find book -type f -not -path 'book/notebooks/*' -not -path 'book/tables/*' \
  -not -path '*/.*' -not -name '*.pyc' -not -path '* *'))
JUPYTER_BOOK := $(PY) -c 'from jupyter_book.cli.main import main; main()'

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: book
book: _build/html/.built ## run the notebooks that changed, render the book; PROFILE=quick (default) or full
	@echo "The book is ready: open _build/html/index.html, or run: make serve"

.PHONY: test
test: $(READY) ## run the tests; ARGS='-m "not slow"' leaves out the long ones, WORKERS=0 runs one at a time
	@$(PY) -m pytest -n "$$WORKERS" --dist worksteal $(ARGS)

.PHONY: notebook
notebook: $(READY) ## rerun one notebook as a page of its own: NB=02_keyword_spotting P='-p source quick -p seed 3'
	@$(PY) -m trecx.report.runner --parent $$PPID --words="$$P" -- "$$NB"

.PHONY: data
data: $(READY) ## fetch and prepare a data set: NAME=cifar10; without NAME, list them
	@$(PY) -m trecx data $(if $(value NAME),-- "$$NAME")

.PHONY: serve
serve: $(READY) ## show the rendered book and the reruns on http://127.0.0.1:8000; PORT=...
	@$(PY) -m trecx.report.serve "$$PORT"

.PHONY: lint
lint: $(READY) ## check style, types, the direction of imports, and that no notebook holds output
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(if $(NOTEBOOKS),$(PY) -m nbstripout --verify $(NOTEBOOKS))
	$(PY) -m mypy
	$(PY) -c 'from importlinter.cli import lint_imports_command; lint_imports_command()' --no-cache --no-logo

.PHONY: format
format: $(READY) ## repair what lint can repair
	$(PY) -m ruff check --fix
	$(PY) -m ruff format
	$(if $(NOTEBOOKS),$(PY) -m nbstripout $(NOTEBOOKS))

.PHONY: benchmark
benchmark: $(READY) ## measure speed, on an idle machine: KERAS=/path/to/python-with-tensorflow compares with Keras
	@$(PY) benchmarks/run.py $(if $(value KERAS),--keras "$$KERAS")

.PHONY: clean
clean: ## remove everything that was built; downloaded data stay in data/
	rm -rf _build book/notebooks book/tables

# uv is much faster than pip where it is there, but does not read PIP_ variables: pip serves whoever sets one of these.
ifneq ($(shell command -v uv 2>/dev/null),)
ifeq ($(PIP_INDEX_URL)$(PIP_EXTRA_INDEX_URL)$(PIP_CONFIG_FILE),)
PIP_INSTALL := uv pip install --python .venv/bin/python
FROM_INDEX := --index
endif
endif
PIP_INSTALL ?= .venv/bin/python -m pip install --disable-pip-version-check
FROM_INDEX ?= --index-url

# TORCH_INDEX=... names an index of another build of torch, such as the one for processors alone. Its packages have the
# pinned versions but not the pinned checksums, which are those of PyPI's files.
TORCH := torch|torchvision|triton|(cuda|nvidia)-[a-z0-9-]+

# The environment. The stamp comes last, so that a stopped installation is not taken for a finished one.
.venv/.ready: requirements.lock pyproject.toml
	@rm -f $@
	@python=; for p in $(PYTHONS); do \
	  if "$$p" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then \
	    python=$$p; break; \
	  fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "Python 3.11, 3.12 or 3.13 is needed and was not found (tried $(PYTHONS); python3 is $$(python3 -V 2>&1)): install one, or use environment.yml." >&2; \
	  exit 1; \
	fi; \
	"$$python" -m venv .venv || { \
	  echo "$$python cannot make .venv, for the reason above; if it lacks venv, install its package, such as python3.11-venv." >&2; \
	  exit 1; \
	}
ifdef TORCH_INDEX
	@echo "Installing the pinned packages into .venv (once), torch from $$TORCH_INDEX"
	@awk '/^[^ #]/ {kept = $$0 !~ /^($(TORCH))==/} kept' requirements.lock > .venv/without-torch.lock
	@sed -nE 's/^(torch|torchvision)(==[^ ;]+).*/\1\2/p' requirements.lock > .venv/torch.lock
	@$(PIP_INSTALL) --require-hashes --no-deps -r .venv/without-torch.lock
	@$(PIP_INSTALL) --no-deps $(FROM_INDEX) "$$TORCH_INDEX" -r .venv/torch.lock
else
	@echo "Installing the pinned packages into .venv (once; torch's GPU build takes about 6 GB of disk)"
	@$(PIP_INSTALL) --require-hashes -r requirements.lock
endif
	@$(PIP_INSTALL) --no-build-isolation --no-deps -e .
	@touch $@

# Changes only when the profile does, so that only then every notebook runs again.
.PHONY: force
MADE := $(shell cat _build/profile 2>/dev/null)
_build/profile: $(if $(subst x$(MADE),,x$(PROFILE))$(subst x$(PROFILE),,x$(MADE)),force)
	@case "$$PROFILE" in quick|full) ;; \
	  *) printf "PROFILE is '%s': choose quick or full.\n" "$$PROFILE" >&2; exit 2 ;; esac
	@mkdir -p $(@D)
	@echo "$$PROFILE" > $@

# The runner works in _build/runs and moves a notebook here only when all of its cells succeeded.
$(NOTEBOOKS:%=book/%): book/notebooks/%.ipynb: notebooks/%.ipynb $(PACKAGE) $(READY)
	@$(PY) -m trecx.report.runner $* --publish --parent $$PPID $(if $(filter 08_networks_and_runs,$*),-p profile "$$PROFILE")

$(TWINS): book/notebooks/%_live.ipynb: notebooks/%.ipynb $(PACKAGE) _build/profile $(READY)
	@$(PY) -m trecx.report.runner $* --publish --parent $$PPID -p source "$$PROFILE"

book/notebooks/01_image_classification.ipynb: $(call records,cifar10 reference)
book/notebooks/02_keyword_spotting.ipynb: $(call records,speech_commands reference)
book/notebooks/03_visual_wake_words.ipynb: $(call records,vww96 reference device)
book/notebooks/07_microcontroller.ipynb: $(call records,device)
book/notebooks/09_authors_checkpoints.ipynb: $(call records,reference)
$(filter book/notebooks/04_% book/notebooks/05_% book/notebooks/06_%,$(filter-out $(TWINS),$(EXECUTED))): \
  $(call records,$(ALL_RECORDS))

# `make -j2 book` runs two notebooks at a time, but one of those that train: a training uses every core. The live chapters
# after the first three find their trainings done. The page of networks and runs lists every run and the run time of
# every page, so it comes last.
TRAINING := $(filter book/notebooks/01_% book/notebooks/02_% book/notebooks/03_%,$(TWINS))
$(filter book/notebooks/04_% book/notebooks/05_% book/notebooks/06_%,$(TWINS)): | $(TRAINING)
$(filter book/notebooks/02_%,$(TRAINING)): | $(filter book/notebooks/01_%,$(TRAINING))
$(filter book/notebooks/03_%,$(TRAINING)): | $(filter book/notebooks/02_%,$(TRAINING))
ifeq ($(PROFILE),full) # then they train, too
$(filter book/notebooks/05_%,$(TWINS)): | $(filter book/notebooks/04_%,$(TWINS))
$(filter book/notebooks/06_%,$(TWINS)): | $(filter book/notebooks/05_%,$(TWINS))
endif
book/notebooks/08_networks_and_runs.ipynb: _build/profile $(filter-out %/08_networks_and_runs.ipynb,$(EXECUTED)) $(wildcard benchmarks/results.json)

# Always the whole book: a page that quotes a number of another page is not seen as changed otherwise (seconds).
# A table for download that was changed or removed comes back from the notebooks. The stamp has the time at which
# rendering began: what changes meanwhile is rendered by the next call.
_build/html/.built: $(EXECUTED) $(PAGES) _config.yml _build/profile $(READY) \
  $(or $(wildcard book/tables),force) $(wildcard book/tables/*.csv)
	@rm -rf _build/html _build/.doctrees
	@rm -f $(filter-out $(EXECUTED),$(wildcard book/notebooks/*.ipynb))
	@$(PY) -m trecx.report.downloads
	@touch _build/.rendering
	@echo "Rendering the book"
	@$(JUPYTER_BOOK) build book --config _config.yml --path-output . --all -W --keep-going -q
	@test -s _build/html/index.html
	@mv _build/.rendering $@
