#!/bin/sh
# VNN-COMP, step 2, before each instance: prepare_instance.sh v1 CATEGORY ONNX VNNLIB. Ends with 0 if the files are
# there. Nothing is converted and nothing of an earlier instance is left to end: only the libraries are read once, so
# that the instance finds them in the system's cache.
set -eu
[ "${1:-}" = v1 ] && [ $# -eq 4 ] || { echo "usage: prepare_instance.sh v1 CATEGORY ONNX VNNLIB" >&2; exit 1; }
for file in "$3" "$4"; do
    [ -f "$file" ] || [ -f "$file.gz" ] || { echo "there is no file $file" >&2; exit 1; }
done
python="$(dirname "$0")/../.venv/bin/python"
[ -x "$python" ] || python=python3
exec "$python" -c "import onnx, onnxruntime, torch, assay.verify.solving.auto"
