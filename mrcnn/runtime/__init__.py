"""Run exported files without Keras: `load(path).detect(images)` returns what `MaskRCNN.detect` returns.

It needs NumPy and the runtime of the format alone:

    format          file                      package
    onnx            model.onnx                onnxruntime
    openvino        model.xml, model.bin      openvino
    litert          model.tflite              ai-edge-litert
    saved_model     folder                    tensorflow
"""

from mrcnn.runtime.runner import Runner as Runner
from mrcnn.runtime.runner import load as load
