"""Write a model as one file for other programs: ONNX, OpenVINO, LiteRT, SavedModel, PyTorch.

    model.export("leaves.onnx")
    mrcnn.runtime.load("leaves.onnx").detect(image)   # without Keras

The exported network takes images that are resized, but neither padded nor mean-subtracted, and returns boxes,
class ids, scores and masks. After writing a file, `export` loads it and compares it with `MaskRCNN.detect`.
"""

from mrcnn.export.exporting import FORMATS as FORMATS
from mrcnn.export.exporting import export as export
