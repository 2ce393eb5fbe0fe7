"""Write a model as one file for other programs: ONNX, OpenVINO, SavedModel, LiteRT.

    model.export("leaves.onnx")
    mrcnn.runtime.load("leaves.onnx").detect(image)   # without Keras

The file takes images, resized but neither padded nor mean-subtracted, and returns boxes, class ids, scores
and masks. After writing, the file is loaded and compared with `MaskRCNN.detect`.
"""

from mrcnn.export.exporting import FORMATS as FORMATS
from mrcnn.export.exporting import export as export
