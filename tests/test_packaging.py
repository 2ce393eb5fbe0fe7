"""The distribution: its name, its version, one OpenCV, and what comes with the package."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

import mrcnn
from mrcnn.checkpoints.downloads import SHIPPED

ROOT = Path(__file__).resolve().parents[1]
REQUIREMENTS = (ROOT / "requirements.txt").read_text().split()


@pytest.fixture(scope="module")
def egg_info(tmp_path_factory):
    """The folder with the metadata that setup.py writes."""
    pytest.importorskip("setuptools")
    folder = tmp_path_factory.mktemp("info")
    command = [sys.executable, "setup.py", "--quiet", "egg_info", "--egg-base", str(folder)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    (info,) = folder.glob("*.egg-info")
    return info


def test_name_and_version(egg_info):
    lines = (egg_info / "PKG-INFO").read_text().splitlines()
    assert "Name: keras-mrcnn" in lines
    assert f"Version: {mrcnn.__version__}" in lines


def test_requirements_are_those_of_the_file(egg_info):
    required, *extras = (egg_info / "requires.txt").read_text().split("\n\n")
    assert sorted(required.split()) == sorted(REQUIREMENTS)
    # Some requirements have a condition: [large:python_version >= "3.11"].
    names = {extra.strip().partition("]")[0].strip("[").partition(":")[0] for extra in extras}
    core = {
        "augment",
        "cli",
        "docs",
        "export",
        "gpu",
        "jax",
        "pretrained",
        "results",
        "serve",
        "test",
        "torch",
    }
    assert names >= core | {"geo", "large", "slides"}


def test_there_is_one_opencv():
    """imaug requires a second OpenCV, so it is an extra."""
    names = [re.split("[><=]", requirement)[0] for requirement in REQUIREMENTS]
    assert [name for name in names if "opencv" in name] == ["opencv-python-headless"]
    assert not {"imaug", "imgaug"} & set(names)


def test_types_are_part_of_the_package():
    assert (Path(mrcnn.__file__).parent / "py.typed").is_file()


def test_a_wheel_holds_the_weights_that_load_knows_by_name(tmp_path):
    pytest.importorskip("setuptools")
    command = [sys.executable, "setup.py", "--quiet", "build_py", "--build-lib", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    built = tmp_path / "mrcnn" / "checkpoints" / "shipped" / "nucleus-light.h5"
    assert built.read_bytes() == (ROOT / SHIPPED["nucleus-light"]).read_bytes()
