"""A small part of ``make fuzz``, so that what it once found stays mended."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/fuzz.py"


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind", ["result", "frames", "stack", "data", "volume-data", "checkpoint", "sweep", "table", "archive"]
)
def test_damaged_inputs_give_no_stack_trace(kind: str) -> None:
    words = [sys.executable, str(SCRIPT), "--kind", kind, "--seed", "7", "--share", "0.04"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert " 0 inputs" not in done.stdout
