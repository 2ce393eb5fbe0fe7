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
def build_detector(tmp_path_factory, image):
    """A function that builds an untrained network whose heads have varied outputs for the image."""

    def build(config, rpn_deltas=1.0, rpn_logits=2.0, logits=1.0, deltas=1.0):
        """Build the network of a config, with these deviations of the outputs of its heads."""
        model = MaskRCNN("inference", config, tmp_path_factory.mktemp("logs"))
        randomize(model.keras_model)
        network = model.keras_model
        rpn, classifier = network.get_layer("rpn_model"), network.get_layer("mrcnn_class_logits")
        spread(model, image, rpn.get_layer("rpn_bbox_pred"), network.get_layer("rpn_bbox").output, rpn_deltas)
        pyramid = [network.get_layer(f"fpn_p{level}").output for level in range(2, 7)]
        values = keras.ops.concatenate([rpn(level)[0] for level in pyramid], axis=1)
        spread(model, image, rpn.get_layer("rpn_class_raw"), values, rpn_logits)
        spread(model, image, classifier, classifier.output, logits)
        box_layer, box_output = (network.get_layer(f"mrcnn_bbox{suffix}") for suffix in ("_fc", ""))
        spread(model, image, box_layer, box_output.output, deltas)
        return model

    return build


@pytest.fixture(scope="package")
def detector(build_detector):
    """A network with the conventions of the Keras 2 library."""
    config = TinyConfig()
    config.DETECTION_MIN_CONFIDENCE = 0.3
    config.DETECTION_NMS_THRESHOLD = 0.1
    config.DETECTION_MAX_INSTANCES = 20
    return build_detector(config)


@pytest.fixture
def close_figures():
    import matplotlib.pyplot as plt

    yield
    plt.close("all")
