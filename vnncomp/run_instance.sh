#!/bin/sh
# VNN-COMP, step 3, an instance: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT. Writes one of sat, unsat,
# unknown, timeout, error into RESULTS, after sat the counterexample, and ends with 0 when it has.
set -u
[ "${1:-}" = v1 ] && [ $# -eq 6 ] || {
    echo "usage: run_instance.sh v1 CATEGORY ONNX VNNLIB RESULTS TIMEOUT" >&2
    exit 1
}
python="$(dirname "$0")/../.venv/bin/python"
[ -x "$python" ] || python=python3
rm -f "$5"
"$python" -m assay verify "$3" "$4" --results "$5" --timeout "$6" --no-check > /dev/null
code=$?
# A process that was killed, or ended by a fault of a library, has not come to writing an answer.
[ -f "$5" ] || echo error > "$5"
[ "$code" -ne 130 ]
