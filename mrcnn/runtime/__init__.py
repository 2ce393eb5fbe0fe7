"""Run exported files without Keras: `load(path).detect(images)` returns the same as `MaskRCNN.detect`.

It only needs NumPy and the runtime of the format:

    format          file                      package
    onnx            model.onnx                onnxruntime
    openvino        model.xml, model.bin      openvino
    litert          model.tflite              ai-edge-litert
    torch           model.pt2                 torch
    saved_model     folder                    tensorflow
"""

from mrcnn.runtime.runner import Runner as Runner
from mrcnn.runtime.runner import load as load
