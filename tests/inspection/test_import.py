"""What importing `mrcnn.inspection` loads, and that its two tables of contents agree."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from mrcnn import inspection

FRAMEWORKS = {"keras", "tensorflow", "jax", "torch", "tensorboard"}


def loaded_after(code):
    """The frameworks that a fresh interpreter has imported after this code."""
    report = f"{code}; import sys; print(*sorted({FRAMEWORKS} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return set(run.stdout.split())


@pytest.mark.parametrize(
    "code",
    [
        "from mrcnn import inspection",
        "from mrcnn.inspection import label_anchors, draw_anchor_labels",
        "from mrcnn import inspection; inspection.weight_statistics",
    ],
)
def test_anchors_and_weights_need_no_framework(code):
    assert loaded_after(code) == set()


def test_only_the_callbacks_load_tensorboard():
    loaded = loaded_after("from mrcnn.inspection import sort_anchors, pool_rois, mask_losses")
    assert "tensorboard" not in loaded and "keras" in loaded
    assert "tensorboard" in loaded_after("from mrcnn.inspection import tensorboard_callbacks")


def test_every_name_can_be_used():
    assert len(dir(inspection)) > 30
    for name in dir(inspection):
        assert getattr(inspection, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        inspection.nothing  # noqa: B018


def test_type_checkers_see_the_names_that_exist():
    tree = ast.parse(Path(inspection.__file__).read_text(encoding="utf-8"))
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    imports = {alias.name: node.module for node in block.body for alias in node.names}
    assert sorted(imports) == dir(inspection)
    for name, module in imports.items():
        assert getattr(inspection, name) is getattr(sys.modules[module], name)
