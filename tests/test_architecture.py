"""The rules of the house: imports point down, frameworks have few doors, files and functions stay short."""

import ast
import graphlib
from pathlib import Path

import pytest

import mrcnn

PACKAGE = Path(mrcnn.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))
NAMES = [str(path.relative_to(PACKAGE)) for path in MODULES]

# What each folder and each module beside them may import from the package.
ALLOWED = {
    # numbers and settings
    "__init__": set(),
    "geometry": set(),
    "config_checks": set(),
    "config": {"config_checks"},
    "dataset": set(),
    "augmentation_policies": set(),
    "schedules": set(),
    "weight_statistics": set(),
    "stains": {"geometry"},
    "video": set(),
    # neighbours that do not know each other
    "network": {"geometry"},
    "data": {"geometry"},
    "evaluation": {"geometry"},
    "drawing": {"geometry", "weight_statistics"},
    # datasets that need no code
    "formats": {"dataset", "drawing", "geometry"},
    # weight files and devices
    "checkpoints": set(),
    "distribution": set(),
    "execution": {"network"},
    "optimizers": {"execution"},
    "precision": set(),
    # what a model does
    "graph_functions": {"network"},
    "inspection": {"network"},
    "inference": {"execution", "geometry", "network"},
    "training": {"checkpoints", "distribution", "execution", "network", "optimizers"},
    "detection_options": {"geometry"},
    "callbacks": {"checkpoints", "distribution"},
    "prediction_files": {"drawing", "evaluation", "formats", "geometry"},
    # what users touch
    "model": {
        "checkpoints",
        "data",
        "detection_options",
        "distribution",
        "evaluation",
        "execution",
        "geometry",
        "graph_functions",
        "inference",
        "inspection",
        "network",
        "precision",
        "training",
    },
    "visualize": {"drawing", "evaluation", "geometry"},
    "utils": {"checkpoints", "dataset", "evaluation", "geometry", "network"},
    "parallel_model": {"distribution"},
    # what looks inside a model
    "steps": {
        "checkpoints",
        "data",
        "drawing",
        "evaluation",
        "execution",
        "geometry",
        "visualize",
        "weight_statistics",
    },
}
# Names for users; nothing below is built on them.
FOR_USERS = {"model", "visualize", "utils", "parallel_model"}
ABOVE_A_MODEL = {"steps"}

FRAMEWORKS = {"tensorflow", "jax", "torch"}
IMPORT_A_FRAMEWORK = {
    "execution.py",
    "distribution.py",
    "network/crop_and_resize.py",
    "network/hardware.py",
    "network/torch_kernels.py",
}
# The running backend's name, and in weight_files.py an attribute of the file format.
NAME_A_FRAMEWORK = IMPORT_A_FRAMEWORK | {
    "network/conv_gradient.py",
    "network/convolution.py",
    "checkpoints/weight_files.py",
    "network/box_ops.py",
    "training.py",
}
# Everything else works without Keras.
NEED_KERAS = {
    "callbacks.py",
    "checkpoints/weights.py",
    "data/generator.py",
    "distribution.py",
    "execution.py",
    "graph_functions.py",
    "inference.py",
    "inspection.py",
    "model.py",
    "network",
    "optimizers.py",
    "parallel_model.py",
    "precision.py",
    "schedules.py",
    "steps/tensorboard.py",
    "steps/network_graph.py",
    "training.py",
    "utils.py",
}

LONGEST_FILE = 480
LONGEST_FUNCTION = 60
# Methods that Keras calls; their class says what they do.
CALLED_BY_KERAS = {
    "build",
    "call",
    "compute_loss",
    "compute_output_shape",
    "compute_output_spec",
    "get_config",
}

each_module = pytest.mark.parametrize("path", MODULES, ids=NAMES)


def floor(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def imported(path):
    """Dotted names of everything that a file imports, at its top or inside a function."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}:{node.lineno} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def functions(path):
    for node in ast.walk(tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node


def public_functions(scope):
    """Functions of a module and methods of its public classes that users may call."""
    for node in scope.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith(("_", "on_")):
            derived_setting = node.name.isupper()  # described where Config lists them
            if not derived_setting and node.name not in CALLED_BY_KERAS:
                yield node


def docstrings(path):
    """The nodes that are docstrings."""
    for node in ast.walk(tree(path)):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and isinstance(body[0], ast.Expr):
            value = body[0].value
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                yield value


def is_among(path, places):
    name = path.relative_to(PACKAGE).as_posix()
    return name in places or name.split("/")[0] in places


@each_module
def test_imports_point_down(path):
    own = floor(path)
    assert own in ALLOWED, f"say in ALLOWED what {own} may import"
    wanted = {name.split(".")[1] for name in imported(path) if name.startswith("mrcnn.")}
    wrong = wanted - {own} - ALLOWED[own]
    assert not wrong, f"{own} must not import {sorted(wrong)}"


def test_the_table_itself_points_down():
    """No circle, nothing on top of the names for users, and geometry at the bottom."""
    assert list(graphlib.TopologicalSorter(ALLOWED).static_order())
    below = [ALLOWED[name] for name in ALLOWED if name not in ABOVE_A_MODEL]
    assert not FOR_USERS & set().union(*below)
    assert ALLOWED["geometry"] == set()
    for neighbour in ("network", "data", "evaluation"):
        assert ALLOWED[neighbour] == {"geometry"}
    assert ALLOWED.keys() == {floor(path) for path in MODULES}, "a module of the table does not exist"


@each_module
def test_frameworks_have_few_doors(path):
    found = FRAMEWORKS & {name.split(".")[0] for name in imported(path)}
    assert not found or is_among(path, IMPORT_A_FRAMEWORK), f"{path.name} imports {sorted(found)}"
    texts = {id(node) for node in docstrings(path)}
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, (str, bytes)) and id(node) not in texts:
            word = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            named = word in FRAMEWORKS
            assert not named or is_among(path, NAME_A_FRAMEWORK), f"{path.name}:{node.lineno} names {word}"


@each_module
def test_keras_stays_above_geometry(path):
    uses_keras = any(name.split(".")[0] == "keras" for name in imported(path))
    assert not uses_keras or is_among(path, NEED_KERAS), f"{path.name} imports keras"


@each_module
def test_files_stay_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@each_module
def test_functions_stay_short(path):
    for node in functions(path):
        first = node.body[0]
        documented = ast.get_docstring(node) is not None
        length = node.end_lineno - node.lineno + 1
        if documented:
            length -= first.end_lineno - first.lineno + 1
        assert length <= LONGEST_FUNCTION, f"{node.name} has {length} lines"


@each_module
def test_public_functions_are_documented(path):
    for node in public_functions(tree(path)):
        assert ast.get_docstring(node), f"{node.name} has no docstring"


def test_every_module_is_documented():
    assert [
        name for name, path in zip(NAMES, MODULES, strict=True) if not ast.get_docstring(tree(path))
    ] == []
