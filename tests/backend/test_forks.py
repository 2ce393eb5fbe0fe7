"""A forked process whose parent has built a network gets an error. One whose parent has not works."""

import os
import re
import warnings

import numpy as np
import pytest
from tiny_model import TinyConfig

from mrcnn.backend import forks
from mrcnn.model import MaskRCNN

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def in_fork(action):
    """Run a function in a forked process; return the text of its error."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Python and JAX warn of forks
        process = os.fork()
    if process == 0:
        try:
            action()
            text = "no error"
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        os.write(writing, text.encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    os.waitpid(process, 0)
    return text


def test_networks_are_refused_after_a_fork(tmp_path):
    model = MaskRCNN("inference", TinyConfig(), tmp_path)
    image = np.zeros((64, 64, 3), np.uint8)
    model.detect([image])
    for action in (
        lambda: model.detect([image]),
        lambda: model.run_graph([image], []),
        lambda: MaskRCNN("training", TinyConfig(), tmp_path),
    ):
        text = in_fork(action)
        assert re.match(rf"RuntimeError: Process \d+ was forked from process {os.getpid()} after", text), text
        assert 'get_context("spawn")' in text
    model.detect([image])  # this process goes on


def test_a_process_without_a_network_may_fork(monkeypatch):
    monkeypatch.setattr(forks, "_first", None)
    assert in_fork(forks.require_unforked) == "no error"
