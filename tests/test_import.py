"""The table of contents of the package: every name resolves, and importing loads no framework."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import mrcnn

pytestmark = pytest.mark.smoke

ROOT = Path(__file__).resolve().parents[1]
FRAMEWORKS = {"keras", "tensorflow", "jax", "torch"}
# What reading images, drawing and augmentation load when they are used for the first time.
LATE = {"matplotlib", "imgaug", "skimage.io", "scipy.ndimage"}


def run(code):
    """Run a program in a process of its own."""
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)


def imported_by(code):
    """Names of the modules that a program imports."""
    return set(run(f"{code}\nimport sys\nprint(*sys.modules)").stdout.split())


@pytest.mark.parametrize("name", mrcnn.__all__)
def test_every_name_is_found(name):
    value = getattr(mrcnn, name)
    assert value.__name__.rpartition(".")[2] == name
    assert getattr(mrcnn, name) is value
    assert name in dir(mrcnn)


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(mrcnn.__file__).read_text())
    (block,) = (node for node in tree.body if isinstance(node, ast.If))
    seen = [alias.asname for node in block.body for alias in node.names]
    assert sorted(seen) == sorted(mrcnn.__all__)


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="module 'mrcnn' has no attribute 'MaskRNN'"):
        _ = mrcnn.MaskRNN


def test_import_loads_neither_framework_nor_numpy():
    assert not (FRAMEWORKS | LATE | {"numpy", "cv2"}) & imported_by("import mrcnn")


def test_configs_and_datasets_load_no_framework():
    code = """
from mrcnn import formats
import mrcnn
class Own(mrcnn.LightConfig):
    NAME = "own"
class Images(mrcnn.Dataset):
    pass
class Annotated(formats.CocoDataset):
    pass
Own().to_dict()
Images().prepare()
"""
    assert not (FRAMEWORKS | LATE) & imported_by(code)


@pytest.mark.parametrize("level, is_quiet", [(None, True), ("0", False)])
def test_tensorflow_starts_quietly_unless_asked(level, is_quiet):
    pytest.importorskip("tensorflow")
    setting = f"os.environ['TF_CPP_MIN_LOG_LEVEL'] = '{level}'" if level else ""
    code = f"""
import os, sys
os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
{setting}
import mrcnn, tensorflow
print("hello", file=sys.stderr)
"""
    lines = run(code).stderr.splitlines()
    assert lines[-1] == "hello"
    assert (len(lines) == 1) is is_quiet


OPTIONAL = {"IPython", "matplotlib", "pandas", "sklearn", "torch._dynamo"}


def test_a_model_loads_no_optional_packages():
    """What Keras imports if it is installed. A search of all modules must not load them, either."""
    code = """
from mrcnn.model import MaskRCNN
import inspect
try:
    inspect.getmodule(inspect.currentframe())
except Exception:
    pass
"""
    assert not OPTIONAL & imported_by(code)


def test_optional_packages_work_later():
    """Each of them is the real package when it is used, also through Keras."""
    pytest.importorskip("pandas")
    code = """
from mrcnn.model import MaskRCNN
import keras
from keras.src.trainers.data_adapters import array_slicing
assert not isinstance([1], array_slicing.ARRAY_TYPES)
import pandas
assert isinstance(pandas.Series([1]), array_slicing.ARRAY_TYPES)
assert isinstance(pandas.DataFrame([1]), array_slicing.pandas.DataFrame)
assert not isinstance(pandas.Series([1]), array_slicing.pandas.DataFrame)
assert array_slicing.pandas.concat is pandas.concat
assert callable(keras.visualization.plot_image_gallery)
assert "SKLearnClassifier" in dir(keras.wrappers)
import matplotlib.pyplot
assert matplotlib.pyplot.figure.__module__ == "matplotlib.pyplot"
print("all real")
"""
    assert run(code).stdout.split("\n")[0] == "all real"


@pytest.mark.parametrize("name", ["jax", "torch._dynamo"])
def test_optional_frameworks_work_later(name):
    pytest.importorskip(name.partition(".")[0])
    code = f"""
from mrcnn.model import MaskRCNN
import keras, {name}
assert {name}.__file__.endswith("__init__.py")
keras.random.normal((2,))
print({name}.{"jit" if name == "jax" else "disable"}(len)([1, 2]))
"""
    assert run(code).stdout.split() == ["2"]


def test_keras_that_is_loaded_before():
    assert run("import keras, mrcnn.model\nprint(keras.wrappers.SKLearnClassifier.__name__)").stdout


def test_other_messages_of_the_import_pass():
    """Only log messages of the hidden levels are left out."""
    code = """
import os, sys
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
from mrcnn import _startup
with _startup._filtered_stderr():
    for line in (b"I0000 00:00:1.0  7 port.cc:1] one", b"W0000 00:00:1.0  7 a.cc:2] two",
                 b"E0000 00:00:1.0  7 b.cc:3] three", b"Illegal instruction"):
        os.write(2, line + b"\\n")
"""
    lines = run(code).stderr.splitlines()
    assert lines == ["E0000 00:00:1.0  7 b.cc:3] three", "Illegal instruction"]
