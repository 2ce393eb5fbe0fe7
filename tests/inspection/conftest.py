import keras
import numpy as np
import pytest
from tiny_model import TinyConfig
from toy_data import rectangles

from mrcnn.checkpoints import weights
from mrcnn.model import MaskRCNN


def randomize(network):
    """Kernels that are the same on every backend, which Keras' initializers are not."""
    rng = np.random.default_rng(4)
    for named in weights.model_weights(network).values():
        for name, variable in named.items():
            if "kernel" in name:
                fan_in = np.prod(variable.shape[:-1])
                variable.assign(rng.normal(0, 1 / np.sqrt(fan_in), variable.shape))


def spread(model, image, layer, tensor, deviation):
    """Scale a linear layer so that a tensor computed from it has mean 0 and this deviation for the image."""
    values = model.run_graph([image], [("values", tensor)])["values"]
    kernel, bias = layer.get_weights()
    factor = deviation / values.std()
    shift = np.resize(values.reshape(-1, len(bias)).mean(axis=0), len(bias))
    layer.set_weights([kernel * factor, (bias - shift) * factor])


@pytest.fixture(scope="package")
def image():
    return rectangles(3)[0]


@pytest.fixture(scope="package")
def detector(tmp_path_factory, image):
    """An untrained network whose heads have varied outputs."""
    config = TinyConfig()
    config.DETECTION_MIN_CONFIDENCE = 0.3
    config.DETECTION_NMS_THRESHOLD = 0.1
    config.DETECTION_MAX_INSTANCES = 20
    model = MaskRCNN("inference", config, tmp_path_factory.mktemp("logs"))
    randomize(model.keras_model)
    network = model.keras_model
    rpn, logits = network.get_layer("rpn_model"), network.get_layer("mrcnn_class_logits")
    spread(model, image, rpn.get_layer("rpn_bbox_pred"), network.get_layer("rpn_bbox").output, 1.0)
    pyramid = [network.get_layer(f"fpn_p{level}").output for level in range(2, 7)]
    rpn_logits = keras.ops.concatenate([rpn(level)[0] for level in pyramid], axis=1)
    spread(model, image, rpn.get_layer("rpn_class_raw"), rpn_logits, 2.0)
    spread(model, image, logits, logits.output, 1.0)
    spread(model, image, network.get_layer("mrcnn_bbox_fc"), network.get_layer("mrcnn_bbox").output, 1.0)
    return model


@pytest.fixture
def close_figures():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")
