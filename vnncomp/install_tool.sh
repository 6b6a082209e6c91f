#!/bin/sh
# VNN-COMP, step 1, once: install_tool.sh v1. Installs assay into .venv beside this folder; no licence, no compiler.
set -eu
[ "${1:-}" = v1 ] || { echo "usage: install_tool.sh v1" >&2; exit 1; }
cd "$(dirname "$0")/.."
"${PYTHON:-python3}" -m venv .venv
# torch comes first and pinned: a looser request can pull several GB of packages for accelerators.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
.venv/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt .
.venv/bin/assay --version
