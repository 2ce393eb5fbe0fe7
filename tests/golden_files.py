"""Where the recordings of the original library are found.

The folder is taken from the environment variable MRCNN_GOLDEN, by default ../shared/golden beside the
repository. tests/golden holds the small recordings that travel with every clone; a file of the same
name in the first folder is preferred.
"""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
GOLDEN = Path(os.environ.get("MRCNN_GOLDEN", REPOSITORY.parent / "shared" / "golden"))
CARRIED = REPOSITORY / "tests" / "golden"


def golden_paths(pattern: str) -> list[Path]:
    """All recordings whose file name matches a glob pattern, sorted by name."""
    found = {path.name: path for folder in (CARRIED, GOLDEN) for path in folder.glob(pattern)}
    return [found[name] for name in sorted(found)]


def golden_params(pattern: str, slow: tuple[str, ...] = ()) -> list:
    """The recordings as pytest parameters; one skipped parameter where there is none.

    slow: words in the names of recordings that only `pytest -m slow` compares, because others of their kind
    are compared in every run.
    """
    paths = golden_paths(pattern)
    if not paths:
        reason = f"no recording {pattern} in {GOLDEN} (set MRCNN_GOLDEN)"
        return [pytest.param(None, marks=pytest.mark.skip(reason=reason), id="none")]
    return [
        pytest.param(
            path, id=path.stem, marks=[pytest.mark.slow] if any(word in path.stem for word in slow) else []
        )
        for path in paths
    ]


def load(path: Path) -> dict[str, np.ndarray]:
    """All arrays of one recording."""
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


def text(value: np.ndarray) -> object:
    """A recorded string; parsed where it is JSON."""
    raw = str(value)
    try:
        return json.loads(raw)
    except json.JSONDecodeError:
        return raw


def unpack_bits(recording: dict[str, np.ndarray], name: str) -> np.ndarray:
    """A boolean array that was stored with numpy.packbits beside its shape."""
    shape = recording[f"{name}_shape"]
    return np.unpackbits(recording[name])[: np.prod(shape)].reshape(shape).astype(bool)


def recipe():
    """The module make_weights.py of the recordings, which turns a structure into weights."""
    path = GOLDEN / "make_weights.py"
    if not path.exists():
        pytest.skip(f"no make_weights.py in {GOLDEN} (set MRCNN_GOLDEN)")
    spec = importlib.util.spec_from_file_location("golden_make_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recipe_weights(structure: str, salt: str, folder: Path) -> Path:
    """Write the recipe's weights of a structure into `folder` and give the file's path."""
    module = recipe()
    stem = Path(structure).stem
    target = folder / f"{stem}{'_' + salt if salt else ''}.h5"
    if not target.exists():
        layout = json.loads((GOLDEN / f"{stem}.json").read_text())
        module.write(layout, str(target), salt)
    return target
