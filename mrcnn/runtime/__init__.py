"""Run exported files without Keras: `load(path).detect(images)` returns the same as `MaskRCNN.detect`.

`detect` only needs NumPy and the runtime of the format; `detect_large` also needs tqdm, tifffile and shapely:

    format          file                      package
    onnx            model.onnx                onnxruntime
    openvino        model.xml, model.bin      openvino
    litert          model.tflite              ai-edge-litert
    torch           model.pt2                 torch
    saved_model     folder                    tensorflow
"""

from mrcnn.runtime.runner import Runner as Runner
from mrcnn.runtime.runner import load as load
