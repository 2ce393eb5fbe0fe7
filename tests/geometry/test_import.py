import subprocess
import sys
from pathlib import Path

import pytest

import mrcnn

HEAVY = ("keras", "tensorflow", "jax", "torch", "matplotlib")
MODULES = sorted(
    f"mrcnn.{folder}.{path.stem}"
    for folder in ("geometry", "evaluation")
    for path in (Path(mrcnn.__file__).parent / folder).glob("[!_]*.py")
)


@pytest.mark.parametrize("modules", [MODULES[:1], MODULES], ids=["one", "all"])
def test_no_framework_is_loaded(modules):
    program = f"import sys, {', '.join(modules)}\nprint([m for m in {HEAVY} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(mrcnn.__file__).parent.parent,
    )
    assert done.stdout.strip() == "[]"
