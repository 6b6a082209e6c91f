"""One property through the installed command: a single JSON document on standard output, with the right answer."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

INPUTS, OUTPUTS = 64, 10
ASSAY = [sys.executable, "-m", "assay"]
# The first answers by what is quickest, the others are made to ask HiGHS.
METHODS = ("auto", "lp-bab(optimum=True,steps=0)", "milp(optimum=True,steps=0)")


def main() -> None:
    """Make a network and properties, ask, and compare."""
    with tempfile.TemporaryDirectory() as folder:
        net, prop = Path(folder, "net.onnx"), Path(folder, "prop.vnnlib")
        subprocess.run([*ASSAY, "export", "zoo:digits-mlp-pgd", str(net)], check=True, cwd=folder)
        for threshold, expected in ((1000.0, "unsat"), (-1000.0, "sat")):
            prop.write_text(written(0.05, threshold))
            for method in METHODS:
                command = [*ASSAY, "verify", str(net), str(prop), "--json", "--method", method, "--timeout", "60"]
                done = subprocess.run(command, stdout=subprocess.PIPE, text=True, cwd=folder)
                verdict = json.loads(done.stdout)["verdict"]
                print(f"{method}: {verdict}")
                if (verdict, done.returncode) != (expected, {"unsat": 0, "sat": 10}[expected]):
                    sys.exit(f"{method}: expected {expected}, got {verdict} with exit code {done.returncode}")


def written(radius: float, threshold: float) -> str:
    """Whether output 0 can reach the threshold in a box around the middle of the domain."""
    lines = [f"(declare-const X_{i} Real)" for i in range(INPUTS)]
    lines += [f"(declare-const Y_{i} Real)" for i in range(OUTPUTS)]
    for i in range(INPUTS):
        lines += [f"(assert (>= X_{i} {0.5 - radius}))", f"(assert (<= X_{i} {0.5 + radius}))"]
    return "\n".join([*lines, f"(assert (>= Y_0 {threshold}))"]) + "\n"


if __name__ == "__main__":
    main()
