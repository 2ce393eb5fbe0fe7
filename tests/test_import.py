"""The table of contents of the package: every name resolves, and importing loads no framework."""

import ast
import subprocess
import sys
from pathlib import Path

import keras
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


OPTIONAL = {"matplotlib", "sklearn"}
on_torch = pytest.mark.skipif(keras.backend.backend() != "torch", reason="needs PyTorch as backend")

DETECTION = """
import sys
import numpy as np
from mrcnn import LightConfig, MaskRCNN

class Tiny(LightConfig):
    NAME = "tiny"
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
    IMAGES_PER_GPU = 1

MaskRCNN("inference", Tiny(), "logs").detect([np.zeros((64, 64, 3), np.uint8)])
"""


def test_a_model_loads_no_optional_packages():
    """What Keras imports and detection does not use. A search of all modules must not load it, either."""
    code = """
import gc
from mrcnn.model import MaskRCNN
assert gc.isenabled()
import inspect
try:
    inspect.getmodule(inspect.currentframe())
except Exception:
    pass
"""
    assert not OPTIONAL & imported_by(code)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="it is the backend")
def test_detection_on_another_backend_does_not_import_tensorflow():
    """Where it is installed, Keras imports it to describe a layer."""
    assert "tensorflow" not in imported_by(DETECTION)


def test_postponed_parts_of_keras():
    """They are what they are without the package, whichever way a program reaches them."""
    pytest.importorskip("sklearn")
    code = """
import mrcnn, importlib, threading
import keras
assert "__getattr__" in vars(keras.wrappers) and "SKLearnClassifier" not in vars(keras.wrappers)
found, classes = [], ("SKLearnClassifier", "SKLearnRegressor", "SKLearnTransformer") * 4
threads = [threading.Thread(target=lambda: found.append(getattr(keras.wrappers, name))) for name in classes]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == len(classes)
assert "__getattr__" not in vars(keras.wrappers) and keras.wrappers.__path__
from keras.wrappers import SKLearnRegressor
assert importlib.reload(keras.wrappers).SKLearnRegressor is SKLearnRegressor
import keras.src.visualization.plot_image_gallery
assert keras.visualization.plot_image_gallery.__module__ == "keras.src.visualization.plot_image_gallery"
assert "plot_bounding_box_gallery" in dir(keras.src.visualization)
try:
    keras.wrappers.Unknown
except AttributeError as error:
    print(error)
"""
    assert run(code).stdout.strip() == "module 'keras.wrappers' has no attribute 'Unknown'"


def test_a_submodule_of_a_postponed_module():
    """Its import runs the code of the postponed module first, as without the package."""
    module = "keras.src.visualization.plot_image_gallery"
    assert run(f"import mrcnn, keras\nimport {module} as x\nprint(x.__name__)").stdout.strip() == module


@on_torch
def test_detection_does_not_import_the_compiler_of_pytorch():
    assert "torch._dynamo" not in imported_by(DETECTION)


@on_torch
def test_the_compiler_of_pytorch_is_there_for_those_who_need_it():
    code = """
import mrcnn, keras, sys, torch
assert "torch._dynamo" not in sys.modules and "_dynamo" not in vars(torch)
import torch._dynamo as dynamo
assert dynamo is torch._dynamo is sys.modules["torch._dynamo"] and dynamo.__file__
keras.utils.clear_session()  # calls dynamo.reset
print(torch.compile(lambda x: x * 2, backend="eager")(torch.ones(2)).tolist())
"""
    assert run(code).stdout.strip() == "[2.0, 2.0]"


@on_torch
@pytest.mark.parametrize("first", ["import torch._dynamo", "import keras"])
def test_a_compiler_that_is_loaded_before(first):
    code = f"""
{first}
import sys
before = sys.modules["torch._dynamo"]
import mrcnn, keras
from keras.src.backend.torch import random
assert random.dynamo is before is sys.modules["torch._dynamo"]
"""
    run(code)


@on_torch
@pytest.mark.parametrize(
    "line",
    [
        "import torch._dynamo as dynamo; dynamo.reset()",
        "import torch._dynamo.config as config; config.verbose",
        "import torch._dynamo as dynamo; dynamo.disable(reason='a test')",
    ],
)
def test_a_module_of_keras_that_needs_more_of_the_compiler(line):
    """It gets the real one."""
    code = f"""
import sys, torch, types
from mrcnn import _startup
module = types.ModuleType("module")
_startup._execute_without_compiler(lambda module: exec({line!r}, vars(module)), module)
print(sys.modules["torch._dynamo"].__file__)
"""
    assert run(code).stdout.strip().endswith("__init__.py")


@on_torch
def test_errors_of_a_module_of_keras_pass():
    code = """
import sys, torch, types
from mrcnn import _startup
try:
    _startup._execute_without_compiler(lambda module: 1 / 0, types.ModuleType("module"))
except ZeroDivisionError:
    print("torch._dynamo" in sys.modules)
"""
    assert run(code).stdout.strip() == "False"


def test_a_loader_of_several_modules():
    """In a zip file or a frozen program, all modules may have the same one."""
    code = """
import gc, importlib.machinery, sys

class Loader:
    def find_spec(self, name, path=None, target=None):
        known = ("keras", "keras.wrappers", "other")
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name in known else None
    def create_module(self, spec):
        return None
    def exec_module(self, module):
        module.collects = gc.isenabled()

sys.meta_path.insert(0, Loader())
import mrcnn, keras, keras.wrappers, other
assert "collects" not in vars(keras.wrappers)
assert {type(module.__spec__.loader) for module in (keras, keras.wrappers, other)} == {Loader}
print(keras.collects, keras.wrappers.collects, other.collects)
"""
    assert run(code).stdout.split() == ["False", "True", "True"]


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


def test_the_import_leaves_no_file_open():
    code = """
import os
from mrcnn import _startup
for level in ("0", "2"):
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = level
    before = os.dup(2)
    os.close(before)
    with _startup._filtered_stderr():
        pass
    after = os.dup(2)  # the lowest number that is free
    print(after - before)
    os.close(after)
"""
    assert run(code).stdout.split() == ["0", "0"]


def test_an_import_without_a_folder_for_temporary_files():
    code = """
import os, tempfile
from mrcnn import _startup
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
tempfile.tempdir = "/missing"
with _startup._filtered_stderr():
    print("imported")
"""
    assert run(code).stdout.strip() == "imported"


def test_a_finder_of_another_program_without_exec_module():
    """Programs that block TensorFlow, or search for it, get what they would get without the package."""
    code = """
import importlib.machinery, importlib.util, sys

class Blocked:
    def find_spec(self, name, path=None, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "tensorflow" else None
    def create_module(self, spec):
        raise ImportError("blocked")

sys.meta_path.insert(0, Blocked())
import mrcnn
print(type(importlib.util.find_spec("tensorflow").loader).__name__)
"""
    assert run(code).stdout.strip() == "Blocked"
