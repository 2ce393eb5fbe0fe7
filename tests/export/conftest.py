"""One model and its files, shared by the tests of a process."""

import pytest
from exported_models import TinyConfig, build

from mrcnn import export


@pytest.fixture(scope="session")
def model():
    return build(TinyConfig())


@pytest.fixture(scope="session")
def exported(model, tmp_path_factory):
    """A function that returns the path of a file of `model`, exported once, without a check."""
    written = {}
    names = [f"class {number}" for number in range(1, model.config.NUM_CLASSES)]

    def path_of(name):
        if name not in written:
            path = tmp_path_factory.mktemp("export") / name
            written[name] = export.export(model, path, class_names=names, check=False)
        return written[name]

    return path_of


@pytest.fixture(scope="session")
def onnx_file(exported):
    return exported("tiny.onnx")
