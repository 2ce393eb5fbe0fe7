"""Damaged data sets of every annotation format are read, or refused clearly; nothing else may happen.

The cases run in processes of their own, because a decoder that crashes takes its process along. Some run by
default; `pytest -m slow tests/fuzz/test_annotations.py` runs all and prints a table.
"""

import json
import math
import subprocess
import sys
from pathlib import Path

import annotation_files as files
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mrcnn import formats
from mrcnn.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path(__file__).with_name("annotation_cases.py")
KINDS = (
    "coco",
    "via",
    "labelme",
    "yolo",
    "label images",
    "zip",
    "mask files",
    "geojson",
    "imagej",
    "predictions",
)
# Cases of each format.
FEW, ALL = 60, 900
TIMEOUT = 550


def run_cases(kind, first, last):
    """Run cases in another process. Return the counts and a description of what went wrong."""
    command = [sys.executable, str(SCRIPT), kind, str(first), str(last)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=TIMEOUT)
    lines = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("{")]
    failures = [f"{line['case']}: {line['outcome']}" for line in lines if "outcome" in line]
    counts = lines[-1].get("counts") if lines else None
    if counts is None:
        number = lines[-1].get("begins") if lines else first
        failures.append(f"{kind} {number} ended the process ({run.returncode}): {run.stderr[-2000:]}")
    return counts, failures


@pytest.mark.parametrize("kind", KINDS)
def test_a_few_cases(kind):
    counts, failures = run_cases(kind, 0, FEW)
    assert failures == []
    assert counts["ok"] > 0 and counts["clear"] > 0 and sum(counts.values()) == FEW


@pytest.mark.slow
def test_all_cases(capsys):
    table, failures = [], []
    for kind in KINDS:
        counts, failed = run_cases(kind, FEW, ALL)
        table.append([kind, ALL - FEW, *(counts or {"ok": 0, "clear": 0, "else": ALL - FEW}).values()])
        failures += failed
    table.append(["sum", *(sum(row[column] for row in table) for column in range(1, 5))])
    with capsys.disabled():
        print(f"\n{'format':14}" + "".join(f"{name:>8}" for name in ("cases", "ok", "clear", "else")))
        for name, *numbers in table:
            print(f"{name:14}" + "".join(f"{number:8d}" for number in numbers))
    assert failures == []
    assert table[-1][-1] == 0


# --- Structures by hypothesis ---

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["a.png", "polygon", "leaf", 42, 60, 90, math.nan]),
    lambda children: (
        st.lists(children, max_size=6)
        | st.dictionaries(
            st.sampled_from(["size", "counts", "name", "id", "x"]) | st.text(max_size=3), children
        )
    ),
    max_leaves=12,
)
COORDINATES = st.lists(st.floats(-50, 150) | st.floats(), max_size=10)


def mostly(value):
    """The right value most of the time, and anything."""
    return st.one_of(st.just(value), st.just(value), st.just(value), ANYTHING)


RUN_LENGTHS = st.fixed_dictionaries(
    {
        "size": mostly([files.HEIGHT, files.WIDTH]),
        "counts": st.lists(st.integers(-5, 6000), max_size=6)
        | st.text("0123456789PQRSTUabc`", max_size=12)
        | ANYTHING,
    }
)
SEGMENTATIONS = st.lists(COORDINATES | ANYTHING, max_size=3) | COORDINATES | RUN_LENGTHS | ANYTHING
ANNOTATIONS = st.fixed_dictionaries(
    {"image_id": mostly(42), "category_id": mostly(3), "segmentation": SEGMENTATIONS, "iscrowd": mostly(0)},
    optional={"id": ANYTHING, "bbox": ANYTHING, "area": ANYTHING},
)
IMAGES = st.fixed_dictionaries(
    {
        "id": mostly(42),
        "file_name": mostly("a.png"),
        "height": mostly(files.HEIGHT),
        "width": mostly(files.WIDTH),
    }
)
CATEGORIES = st.fixed_dictionaries({"id": mostly(3) | mostly(17), "name": mostly("leaf") | mostly("nut")})
COCO = st.fixed_dictionaries(
    {
        "images": st.lists(IMAGES | ANYTHING, min_size=1, max_size=3),
        "annotations": st.lists(ANNOTATIONS | ANYTHING, max_size=4),
        "categories": st.lists(CATEGORIES | ANYTHING, min_size=1, max_size=3),
    }
)
SHAPES_OF_VIA = st.fixed_dictionaries(
    {"name": st.sampled_from(["polygon", "rect", "circle", "ellipse", "polyline", "point"]) | ANYTHING},
    optional={
        name: st.floats() | ANYTHING
        for name in ("x", "y", "width", "height", "cx", "cy", "r", "rx", "ry", "theta")
    }
    | dict.fromkeys(("all_points_x", "all_points_y"), COORDINATES | ANYTHING),
)
REGIONS = st.fixed_dictionaries(
    {"shape_attributes": SHAPES_OF_VIA | ANYTHING, "region_attributes": mostly({"kind": "leaf"})}
)
VIA = st.dictionaries(
    st.text(max_size=4),
    st.fixed_dictionaries({"filename": mostly("a.png"), "regions": st.lists(REGIONS | ANYTHING, max_size=4)})
    | ANYTHING,
    min_size=1,
    max_size=3,
)
POINTS = st.lists(st.lists(st.floats(-50, 150) | st.floats(), min_size=2, max_size=2) | ANYTHING, max_size=6)
MASK = "iVBORw0KGgoAAAANSUhEUgAAAAIAAAACCAAAAABX3VL4AAAADklEQVR4nGP4/5/hPwMACP8D/VG8ZbQAAAAASUVORK5CYII="
SHAPES = st.fixed_dictionaries(
    {
        "label": mostly("leaf"),
        "points": POINTS | st.just([[3, 3], [5, 5]]),
        "shape_type": st.sampled_from(["polygon", "rectangle", "circle", "mask", "linestrip", "point"])
        | ANYTHING,
    },
    optional={"group_id": ANYTHING, "mask": mostly(MASK)},
)
LABELME = st.fixed_dictionaries(
    {
        "imagePath": mostly("a.png"),
        "imageHeight": mostly(files.HEIGHT),
        "imageWidth": mostly(files.WIDTH),
        "shapes": st.lists(SHAPES | ANYTHING, max_size=4),
    },
    optional={"imageData": mostly(MASK)},
)


def load(reader, folder, content, **arguments):
    path = folder / "x.json"
    path.write_text(json.dumps(content))
    dataset = reader()
    dataset.load(folder if reader is formats.LabelMeDataset else path, **arguments)
    return dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("structures")
    files.write_picture(folder / "a.png")
    return folder


def read(reader, folder, content, **arguments):
    """Read a structure, and use every image of it."""
    try:
        dataset = load(reader, folder, content, **arguments)
    except DataError as error:
        assert error.file is not None
        return
    dataset.prepare()
    for image_id in range(len(dataset.image_info)):
        try:
            masks, class_ids = dataset.load_mask(image_id)
        except DataError as error:
            assert error.file is not None
            continue
        assert masks.shape == (*dataset.image_size(image_id), len(class_ids))
        assert masks.any(axis=(0, 1)).all()


structures = settings(
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@structures
@given(content=COCO | ANYTHING)
def test_structures_of_coco(folder, content):
    read(formats.CocoDataset, folder, content)


@structures
@given(content=VIA | ANYTHING)
def test_structures_of_via(folder, content):
    read(formats.ViaDataset, folder, content, class_attribute="kind", keep_empty=True)


@structures
@given(content=LABELME | ANYTHING)
def test_structures_of_labelme(folder, content):
    read(formats.LabelMeDataset, folder, content, keep_empty=True, classes=["leaf"])
