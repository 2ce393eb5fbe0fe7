"""Modules that `from mrcnn.model import *` provides in the Keras 2 library.

`tf` is imported when a program uses it, so other programs do not need TensorFlow.
"""

import datetime
import importlib
import math
import multiprocessing
import random
import re
import sys
import types
from collections import OrderedDict
from typing import Any

from keras import backend as K  # noqa: N812
from keras import layers as KE  # noqa: N812  # keras.engine is gone; programs take Layer from it
from keras import layers as KL  # noqa: N812
from keras import models as KM  # noqa: N812

__all__ = [
    "KE",
    "KL",
    "KM",
    "K",
    "OrderedDict",
    "datetime",
    "math",
    "multiprocessing",
    "random",
    "re",
    "sys",
    "tf",
]


class LazyModule(types.ModuleType):
    """A module that is imported when one of its names is used."""

    def __getattr__(self, name: str) -> Any:
        return getattr(importlib.import_module(self.__name__), name)

    def __dir__(self) -> list[str]:
        return dir(importlib.import_module(self.__name__))


tf = LazyModule("tensorflow")
