"""Find the recordings of the Keras 2 library.

tests/golden holds the recordings that come with every clone. The environment variable MRCNN_GOLDEN names a
folder with more, by default ../shared/golden beside the repository; of two files of one name, the one in that
folder counts.
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


def golden_path(name: str) -> Path:
    """The file of this name, which may not exist."""
    path = GOLDEN / name
    return path if path.exists() else CARRIED / name


def golden_paths(pattern: str) -> list[Path]:
    """All recordings whose file names match a glob pattern, sorted by name."""
    paths = {path.name: path for folder in (CARRIED, GOLDEN) for path in folder.glob(pattern)}
    return [paths[name] for name in sorted(paths)]


def golden_params(pattern: str, slow: tuple[str, ...] = ()) -> list:
    """The recordings as pytest parameters; one skipped parameter if there are none.

    Args:
        pattern: Glob pattern of file names.
        slow: Parts of the names of recordings that only `pytest -m slow` compares. Others of their kind are
            compared in every run.
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
    path = golden_path("make_weights.py")
    spec = importlib.util.spec_from_file_location("golden_make_weights", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def recipe_weights(structure: str, salt: str, folder: Path) -> Path:
    """Write the recipe's weights of a structure into `folder` and return the path of the file."""
    module = recipe()
    stem = Path(structure).stem
    target = folder / f"{stem}{'_' + salt if salt else ''}.h5"
    if not target.exists():
        layout = json.loads(golden_path(f"{stem}.json").read_text())
        module.write(layout, str(target), salt)
    return target
