"""Errors about missing packages name what needs them, and how to install them."""

import json
import sys

import pytest

from mrcnn.export import litert_precision
from mrcnn.packages import require


def test_an_installed_package():
    assert require("json", "Tests need") is json


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Slides need the package slides0. Install it with: pip install slides0"),
        ({"package": "slides2"}, "Slides need the package slides2. Install it with: pip install slides2"),
        (
            {"package": "slides2", "extra": "slides"},
            'Slides need the package slides2. Install it with: pip install "keras-mrcnn[slides]"',
        ),
    ],
)
def test_a_missing_package(options, message):
    with pytest.raises(ImportError) as raised:
        require("slides0", "Slides need", **options)
    assert str(raised.value) == message


def test_an_export_does_not_speak_of_running_the_file(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_quantizer", None)
    with pytest.raises(ImportError, match=r"Exporting .*model\.tflite needs the package ai-edge-quantizer"):
        litert_precision.reduce(tmp_path / "model.tflite", "int8")
