"""Rules of the package: which folder may import which, and who may know frameworks, Keras and the Config."""

import ast
import graphlib
from functools import cache
from pathlib import Path

import keras

import mrcnn

PACKAGE = Path(mrcnn.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py"))

# What every folder and file may import.
BASE = {"errors", "files", "packages", "threads", "typing"}

# What each name of the first level may import at run time, besides BASE.
ALLOWED = {
    "_startup": set(),
    # Arrays and settings, without Keras.
    "geometry": set(),
    "config": {"geometry"},
    "dataset": set(),
    "evaluation": {"geometry"},
    "drawing": {"geometry"},
    "results": {"drawing", "geometry"},
    "formats": {"dataset", "drawing", "geometry", "results"},
    "visualize": {"drawing", "evaluation", "geometry"},
    # Batches, weight files and frameworks, which do not know each other.
    "data": {"geometry"},
    "checkpoints": set(),
    "backend": set(),
    # The paper, and the same numbers faster.
    "network": {"backend", "config", "geometry"},
    "fast": {"backend", "geometry", "network"},
    "legacy": {"backend", "geometry", "network"},
    # What a model does.
    "training": {"backend", "checkpoints", "config", "fast", "geometry", "network"},
    "tiles": {"geometry", "results"},
    "inference": {"backend", "fast", "geometry", "network", "results", "tiles"},
    # Files for other programs, and what runs them without Keras.
    "runtime": {"config", "geometry", "inference", "results", "tiles"},
    "export": {"backend", "geometry", "inference", "network", "results", "runtime"},
    "model": {
        "backend",
        "checkpoints",
        "data",
        "evaluation",
        "export",
        "geometry",
        "inference",
        "legacy",
        "network",
        "results",
        "training",
        "utils",
    },
    "loading": {"checkpoints", "config", "inference", "model"},
    # Many images, a service over HTTP, and the command line.
    "scale": {"checkpoints", "geometry", "loading", "results"},
    "serving": {"drawing", "geometry", "results", "visualize"},
    "cli": {
        "checkpoints",
        "config",
        "data",
        "evaluation",
        "export",
        "formats",
        "geometry",
        "inference",
        "inspection",
        "loading",
        "model",
        "results",
        "runtime",
        "scale",
        "serving",
        "tiles",
        "training",
        "visualize",
    },
    # What looks inside a model.
    "inspection": {
        "backend",
        "checkpoints",
        "data",
        "drawing",
        "evaluation",
        "geometry",
        "network",
        "visualize",
    },
    # Names that scripts import.
    "utils": {"checkpoints", "dataset", "evaluation", "geometry", "network"},
    "parallel_model": {"backend"},
    "__init__": {"_startup"},
}
# What an import for type checkers alone may name, too.
FOR_TYPES = {"config", "data", "dataset", "model"}
# The package works without this folder. These files alone use it, if it is there.
FAST_USERS = {"inference/detector.py", "training/network.py"}

# Everything else works without Keras.
NEED_KERAS = {
    "backend",
    "checkpoints/keras_applications.py",
    "checkpoints/weights.py",
    "data/generator.py",
    "export",
    "fast",
    "inference",
    "inspection",
    "legacy",
    "loading.py",
    "model.py",
    "network",
    "parallel_model.py",
    "training",
    "utils.py",
}

FRAMEWORKS = {"tensorflow", "jax", "torch"}
# Files outside backend/ that name a framework in a string, with the reason.
NAME_A_FRAMEWORK = {
    "_startup.py": "hides messages of TensorFlow, postpones the compiler of PyTorch",
    "checkpoints/weight_files.py": "an attribute of the file format",
    "export/exporting.py": "the name of a format",
    "runtime/engines.py": "the package that runs a SavedModel",
    "legacy/star_imports.py": "a module that star imports gave",
    "training/callbacks.py": "Keras' TensorBoard callback needs TensorFlow on every backend",
}
# Private members of other libraries outside backend/keras_internals.py, with the reason.
PRIVATE_MEMBERS = {
    ("data/processes.py", "_exit"): "os._exit ends a process without clean-up",
    ("drawing/display.py", "_ipython_display_"): "the protocol of IPython for displaying an object",
    ("_startup.py", "_disable_dynamo"): "PyTorch's public form of it imports the compiler",
    ("backend/torch_programs.py", "_check"): "PyTorch documents it, and has no other form of it",
}

# The files of network/ that turn a Config into plain numbers.
READ_A_CONFIG = {"network/graphs.py", "network/parts.py"}

LONGEST_FILE = 700
LONGEST_FUNCTION = 60
# Methods that Keras calls; the docstring of their class describes them.
CALLED_BY_KERAS = {
    "build",
    "call",
    "compute_loss",
    "compute_output_shape",
    "compute_output_spec",
    "get_config",
}


def name_of(path):
    return path.relative_to(PACKAGE).as_posix()


def first_level(path):
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@cache
def tree(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def nodes(kind):
    """(path, node) of every node of a kind in the package."""
    for path in MODULES:
        yield from ((path, node) for node in ast.walk(tree(path)) if isinstance(node, kind))


def position(path, node):
    return f"{name_of(path)}:{node.lineno}"


@cache
def type_checking_nodes(path):
    """The nodes that only type checkers execute."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            found.update(inner for statement in node.body for inner in ast.walk(statement))
    return found


def imported_names(node):
    """Dotted names of what an import statement imports; none for other statements."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def imports(path, for_types=False):
    """Dotted names of what a file imports at run time, at its top or in a function; or for type checkers."""
    for node in ast.walk(tree(path)):
        if (node in type_checking_nodes(path)) == for_types:
            yield from imported_names(node)


def package_imports(path, for_types=False):
    """What a file imports from elsewhere in the package: names of the first level, and dotted names."""
    for name in imports(path, for_types):
        parts = name.split(".")
        if parts[0] == "mrcnn" and len(parts) > 1 and parts[1] != first_level(path):
            yield parts[1], name


# --- Imports ---


def test_first_level():
    """Every name of the first level stands in a table, and every name of the tables exists."""
    assert {first_level(path) for path in MODULES} == ALLOWED.keys() | BASE


def test_the_table_has_no_cycle():
    order = list(graphlib.TopologicalSorter(ALLOWED).static_order())
    assert order.index("geometry") < order.index("network") < order.index("model")


def test_imports_follow_the_table():
    used, wrong = set(), []
    for path in MODULES:
        own = first_level(path)
        for target, name in package_imports(path):
            if target in BASE | ALLOWED.get(own, set()):
                used.add((own, target))
            else:
                wrong.append(f"{name_of(path)} must not import {name}")
    assert wrong == []
    unused = {(own, target) for own in ALLOWED for target in ALLOWED[own]} - used
    assert unused == set(), "no file needs these rows of the table"


def test_imports_for_type_checkers():
    wrong = [
        f"{name_of(path)} must not import {name} for types"
        for path in MODULES
        if first_level(path) != "__init__"  # the table of contents
        for target, name in package_imports(path, for_types=True)
        if target not in FOR_TYPES | BASE | ALLOWED.get(first_level(path), set())
    ]
    assert wrong == []


def test_imports_are_absolute():
    assert [position(path, node) for path, node in nodes(ast.ImportFrom) if node.level] == []


def test_folders_do_not_import_each_other_in_a_cycle():
    found = {}
    for path in MODULES:
        targets = {target for target, _ in package_imports(path)}
        found.setdefault(first_level(path), set()).update(targets)
    assert len(list(graphlib.TopologicalSorter(found).static_order())) == len(found)


def test_files_do_not_import_each_other_in_a_cycle():
    """While they are loaded: imports inside functions do not count."""
    modules = {}
    for path in MODULES:
        dotted = ".".join(("mrcnn", *path.relative_to(PACKAGE).with_suffix("").parts))
        modules[dotted.removesuffix(".__init__")] = path
    found = {}
    for module, path in modules.items():
        names = [name for node in tree(path).body for name in imported_names(node)]
        targets = {name if name in modules else name.rpartition(".")[0] for name in names} & modules.keys()
        # A package is loaded before its modules, and its own file may import them.
        found[module] = {x for x in targets if x != module and not module.startswith(f"{x}.")}
    assert len(list(graphlib.TopologicalSorter(found).static_order())) == len(modules)


def test_who_uses_the_fast_paths():
    users = {name_of(path) for path in MODULES for target, _ in package_imports(path) if target == "fast"}
    assert users == FAST_USERS


# --- Frameworks and Keras ---


def test_only_the_backend_imports_a_framework():
    files = {
        name_of(path)
        for path in MODULES
        for for_types in (False, True)
        for name in imports(path, for_types)
        if name.split(".")[0] in FRAMEWORKS
    }
    assert {"backend/tensorflow.py", "backend/jax.py", "backend/torch.py"} <= files
    assert [name for name in files if not name.startswith("backend/")] == []


def test_one_place_asks_for_the_backend():
    calls = [
        name_of(path)
        for path, node in nodes(ast.Call)
        if ast.unparse(node.func) in ("keras.backend.backend", "keras.config.backend", "backend.backend")
    ]
    assert calls == ["backend/__init__.py"]


def test_who_names_a_framework():
    files = set()
    for path, node in nodes(ast.Constant):
        value = node.value.decode("latin-1") if isinstance(node.value, bytes) else node.value
        if isinstance(value, str) and value in {*FRAMEWORKS, "KERAS_BACKEND"}:
            files.add(name_of(path))
    assert {name for name in files if not name.startswith("backend/")} == NAME_A_FRAMEWORK.keys()


def test_who_imports_keras():
    files = {
        name_of(path) for path in MODULES if any(name.split(".")[0] == "keras" for name in imports(path))
    }
    assert [name for name in files if not {name, name.split("/")[0]} & NEED_KERAS] == []


@cache
def private_members_of_keras():
    """Names with one leading underscore of layers, models, tensors, variables, optimizers and others."""
    image = keras.Input((2,))
    dense = keras.layers.Dense(2)
    model = keras.Model(image, dense(image))
    optimizer = keras.optimizers.SGD()
    optimizer.build(model.trainable_variables)
    samples = (image, dense, model, dense.kernel, optimizer, keras.callbacks.Callback(), keras.metrics.Mean())
    return {name for sample in samples for name in dir(sample) if is_private(name)}


def is_private(name):
    return name.startswith("_") and not name.startswith("__")


def private_attributes(path):
    """Attributes of `path` that are private members of another object.

    Attributes of `self` count in classes that derive from others, in files that import Keras, if Keras has a
    private member of that name; those of `super()` if Keras has one.
    """
    imports_keras = any(name.split(".")[0] == "keras" for name in imports(path))
    derived = {
        node
        for scope in ast.walk(tree(path))
        if isinstance(scope, ast.ClassDef) and scope.bases and imports_keras
        for node in ast.walk(scope)
    }
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            owner = ast.unparse(node.value)
            of_keras = node.attr in private_members_of_keras()
            own = owner in ("self", "cls") and not (node in derived and of_keras)
            if not own and not (owner == "super()" and not of_keras):
                yield node


def test_the_private_members_of_keras_are_found():
    known = {"_keras_history", "_inbound_nodes", "_trainable_variables", "_clip_gradients"}
    assert known <= private_members_of_keras()
    internals = PACKAGE / "backend" / "keras_internals.py"
    assert known <= {node.attr for node in private_attributes(internals)}


def test_private_members_stand_in_one_file():
    found = [
        (name_of(path), node.attr, node.lineno)
        for path in MODULES
        if name_of(path) != "backend/keras_internals.py"
        for node in private_attributes(path)
    ]
    assert {(file, name) for file, name, _ in found} == PRIVATE_MEMBERS.keys(), found


# --- The network takes plain numbers ---


def test_who_reads_a_config():
    readers = {
        name_of(path)
        for path in MODULES
        if first_level(path) in ("network", "fast")
        for for_types in (False, True)
        for target, _ in package_imports(path, for_types)
        if target == "config"
    }
    assert readers == READ_A_CONFIG


def test_no_layer_and_no_loss_takes_a_config():
    wrong = [
        position(path, node)
        for path, node in nodes(ast.arg)
        if first_level(path) in ("network", "fast") and name_of(path) not in READ_A_CONFIG
        if node.arg == "config"
    ]
    assert wrong == []


# --- Sizes and docstrings ---


def test_files_are_short():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FILE} == {}


def test_functions_are_short():
    """Without their docstrings."""
    wrong = {}
    for path, node in nodes((ast.FunctionDef, ast.AsyncFunctionDef)):
        length = node.end_lineno - node.lineno + 1
        if ast.get_docstring(node) is not None:
            length -= node.body[0].end_lineno - node.body[0].lineno + 1
        if length > LONGEST_FUNCTION:
            wrong[f"{position(path, node)} {node.name}"] = length
    assert wrong == {}


def public_functions(scope):
    """Functions of a module and methods of its public classes that users may call."""
    for node in scope.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from public_functions(node)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith(("_", "on_")):
            derived_setting = node.name.isupper()  # the Config describes it where it lists the setting
            if not derived_setting and node.name not in CALLED_BY_KERAS:
                yield node


def test_public_names_have_docstrings():
    """A method without one inherits that of the class `Devices`."""
    devices = next(node for _, node in nodes(ast.ClassDef) if node.name == "Devices")
    inherited = {node.name for node in public_functions(devices) if ast.get_docstring(node)}
    missing = []
    for path in MODULES:
        exempt = inherited if name_of(path).endswith("_devices.py") else set()
        for node in (tree(path), *public_functions(tree(path))):
            if not ast.get_docstring(node) and getattr(node, "name", "") not in exempt:
                missing.append(f"{name_of(path)} {getattr(node, 'name', '')}")
    assert missing == []
