"""Mask R-CNN for Keras 3: detect, outline and name every object in an image.

Names are imported when they are first used, so `import mrcnn` loads no framework, and neither do classes
derived from `mrcnn.Config` and `mrcnn.Dataset`:

    import mrcnn

    class LeavesConfig(mrcnn.LightConfig):
        NAME = "leaves"
        NUM_CLASSES = 1 + 1  # background and leaf

    model = mrcnn.MaskRCNN("training", LeavesConfig(), "logs")  # imports Keras

You can also import submodules by their paths, as in `from mrcnn.model import MaskRCNN`.
"""

import importlib
from typing import TYPE_CHECKING, Any

from mrcnn._startup import prepare_imports

if TYPE_CHECKING:  # what type checkers and the API reference see
    from mrcnn import config as config
    from mrcnn import dataset as dataset
    from mrcnn import evaluation as evaluation
    from mrcnn import export as export
    from mrcnn import formats as formats
    from mrcnn import inspection as inspection
    from mrcnn import model as model
    from mrcnn import results as results
    from mrcnn import runtime as runtime
    from mrcnn import utils as utils
    from mrcnn import visualize as visualize
    from mrcnn.config import Config as Config
    from mrcnn.config import Detectron2Config as Detectron2Config
    from mrcnn.config import LightConfig as LightConfig
    from mrcnn.config import PretrainedLightConfig as PretrainedLightConfig
    from mrcnn.config import TorchvisionConfig as TorchvisionConfig
    from mrcnn.config import TorchvisionV2Config as TorchvisionV2Config
    from mrcnn.data.augmentation_policies import camera_policy as camera_policy
    from mrcnn.data.augmentation_policies import scale_jitter as scale_jitter
    from mrcnn.data.copy_paste import CopyPaste as CopyPaste
    from mrcnn.data.dim_exposure import dim_exposure as dim_exposure
    from mrcnn.data.stains import stain_jitter as stain_jitter
    from mrcnn.dataset import Dataset as Dataset
    from mrcnn.evaluation.evaluate import evaluate as evaluate
    from mrcnn.inference.video import detect_video as detect_video
    from mrcnn.loading import load as load
    from mrcnn.model import MaskRCNN as MaskRCNN
    from mrcnn.training import callbacks as callbacks
    from mrcnn.training import schedules as schedules

__version__ = "3.0.0"

# Name -> the module that holds it; a module itself stands under its own path.
_CLASSES_AND_FUNCTIONS = {
    "MaskRCNN": "mrcnn.model",
    "Config": "mrcnn.config",
    "LightConfig": "mrcnn.config",
    "PretrainedLightConfig": "mrcnn.config",
    "TorchvisionConfig": "mrcnn.config",
    "TorchvisionV2Config": "mrcnn.config",
    "Detectron2Config": "mrcnn.config",
    "Dataset": "mrcnn.dataset",
    "evaluate": "mrcnn.evaluation.evaluate",
    "CopyPaste": "mrcnn.data.copy_paste",
    "camera_policy": "mrcnn.data.augmentation_policies",
    "scale_jitter": "mrcnn.data.augmentation_policies",
    "dim_exposure": "mrcnn.data.dim_exposure",
    "stain_jitter": "mrcnn.data.stains",
    "detect_video": "mrcnn.inference.video",
    "load": "mrcnn.loading",
}
_MODULES = {
    "callbacks": "mrcnn.training.callbacks",
    "config": "mrcnn.config",
    "dataset": "mrcnn.dataset",
    "evaluation": "mrcnn.evaluation",
    "export": "mrcnn.export",
    "formats": "mrcnn.formats",
    "inspection": "mrcnn.inspection",
    "model": "mrcnn.model",
    "results": "mrcnn.results",
    "runtime": "mrcnn.runtime",
    "schedules": "mrcnn.training.schedules",
    "utils": "mrcnn.utils",
    "visualize": "mrcnn.visualize",
}

__all__ = [
    "Config",
    "CopyPaste",
    "Dataset",
    "Detectron2Config",
    "LightConfig",
    "MaskRCNN",
    "PretrainedLightConfig",
    "TorchvisionConfig",
    "TorchvisionV2Config",
    "callbacks",
    "camera_policy",
    "config",
    "dataset",
    "detect_video",
    "dim_exposure",
    "evaluate",
    "evaluation",
    "export",
    "formats",
    "inspection",
    "load",
    "model",
    "results",
    "runtime",
    "scale_jitter",
    "schedules",
    "stain_jitter",
    "utils",
    "visualize",
]

prepare_imports()


def __getattr__(name: str) -> Any:
    if name in _CLASSES_AND_FUNCTIONS:
        value = getattr(importlib.import_module(_CLASSES_AND_FUNCTIONS[name]), name)
    elif name in _MODULES:
        value = importlib.import_module(_MODULES[name])
    else:
        raise AttributeError(f"module 'mrcnn' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
