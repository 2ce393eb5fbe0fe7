"""Every notebook runs from top to bottom on a fresh kernel, in its own folder, and shows its pictures.

By default a quick one runs; `python -m pytest tests/test_notebooks.py -m slow` runs the others.
"""

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

ROOT = Path(__file__).resolve().parents[2]
SAMPLES = ROOT / "samples"
ALL = sorted(str(path.relative_to(SAMPLES)) for path in SAMPLES.rglob("*.ipynb"))
TIME_LIMIT = 900  # seconds a cell
LARGEST_TOTAL = 1_000_000  # bytes of all notebooks

# Parameters that make a notebook small, and what has to be true after its last cell.
DATA = ({"RATIO_IMAGES": 2, "RATIO_ROIS": 1000, "BATCH": 2}, ["len(ratios) == 2", "max(ratios) > 0"])
TRAINED = 'len(found["scores"]) > 0'
NOTEBOOKS = {
    "balloon/inspect_balloon_data.ipynb": DATA,
    "nucleus/inspect_nucleus_data.ipynb": DATA,
    "coco/inspect_data.ipynb": DATA,
    "coco/inspect_weights.ipynb": ({}, ["len(statistics) > 50", "kernels == []"]),
    "coco/inspect_model.ipynb": ({}, ["mean_ap > 0.5", "len(proposals.proposals) > 0"]),
    "balloon/inspect_balloon_model.ipynb": (
        {},
        ["len(result.rois) > 0", "splash.shape == image.shape"],
    ),
    "nucleus/inspect_nucleus_model.ipynb": ({}, ["AP > 0.3", "max(APs) > 0.3"]),
    "nucleus/large_image.ipynb": (
        {},
        ["0.8 < result.count / whole.count < 1.25", "at_seams > 5"],
    ),
    "nucleus/export_nucleus.ipynb": (
        {"REPEATS": 1},
        ["len(expected.rois) > 10", "same", "abs(len(reduced['rois']) - len(expected['rois'])) < 10"],
    ),
    "demo.ipynb": ({}, [TRAINED, "len(overlays) == len(images)"]),
    "shapes/train_shapes.ipynb": ({}, ["mean_ap > 0.5", "len(APs) == 50"]),
    "mask_rcnn_colab.ipynb": ({"TENSORBOARD": False}, ["AP > 0.5", "hits > 6"]),
}
QUICK = ("balloon/inspect_balloon_data.ipynb",)


def read(name):
    return nbformat.read(SAMPLES / name, as_version=4)


def run(notebook, folder):
    """Run a notebook on a fresh kernel in a folder; a cell that fails raises with its traceback."""
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    client = nbclient.NotebookClient(
        notebook, timeout=TIME_LIMIT, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute(
        env={**os.environ, "PYTHONPATH": paths, "MPLBACKEND": "module://matplotlib_inline.backend_inline"}
    )
    return notebook


def pictures(cell):
    return sum("image/png" in output.get("data", {}) for output in cell.get("outputs", []))


@pytest.fixture(scope="session")
def logs(tmp_path_factory):
    """One folder for all: the small network for shapes is trained once."""
    return tmp_path_factory.mktemp("logs")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in NOTEBOOKS]
)
def test_runs_from_top_to_bottom(name, logs):
    parameters, checks = NOTEBOOKS[name]
    notebook = read(name)
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    if "LOGS_DIR" in cell.source:
        parameters = {**parameters, "LOGS_DIR": str(logs)}
    assert all(
        f"{parameter} = " in cell.source or f"{parameter}, " in cell.source for parameter in parameters
    )
    cell.source += "".join(f"\n{parameter} = {value!r}" for parameter, value in parameters.items())
    last = nbformat.v4.new_code_cell("\n".join(f"assert {check}" for check in checks))
    notebook.cells.append(last)
    run(notebook, (SAMPLES / name).parent)
    drawn = [cell.id for cell in notebook.cells if pictures(cell)]
    assert len(drawn) >= 2, f"only the cells {drawn} show a picture"


def test_figures_show_once(tmp_path):
    """A function's figure is shown below its cell, once, be it the cell's value or not."""
    start = "import numpy as np\nfrom mrcnn import visualize\nimage = np.zeros((9, 9, 3), np.uint8)"
    draw = "visualize.draw_boxes(image, boxes=np.array([[1, 1, 7, 7]]))"
    sources = [start, draw, f"figure = {draw}\n1 + 1", "figure", "visualize.display_images([image])"]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    run(notebook, tmp_path)
    assert [pictures(cell) for cell in notebook.cells] == [0, 1, 1, 1, 1]


def test_all_are_run():
    assert sorted(NOTEBOOKS) == ALL


@pytest.mark.parametrize("name", ALL)
def test_is_committed_clean(name):
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count is None and not cell.outputs for cell in code), "commit without outputs"
    tagged = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1


def test_all_together_are_small():
    assert sum((SAMPLES / name).stat().st_size for name in ALL) < LARGEST_TOTAL
