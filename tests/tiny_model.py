"""The configuration of a network that is built and trained within seconds."""

from keras import layers
from toy_data import ToyConfig


def tiny_backbone(image, stage5=True, train_bn=None):
    """One strided convolution per stage."""
    stages, x = [], image
    for stage, stride in enumerate((4, 1, 2, 2, 2), start=1):
        x = layers.Conv2D(8, 3, stride, padding="same", activation="relu", name=f"res{stage}_tiny")(x)
        stages.append(x)
    return stages


class TinyConfig(ToyConfig):
    BACKBONE = staticmethod(tiny_backbone)
    COMPUTE_BACKBONE_SHAPE = staticmethod(
        lambda shape: [[-(-shape[0] // s), -(-shape[1] // s)] for s in (4, 8, 16, 32, 64)]
    )
    TOP_DOWN_PYRAMID_SIZE = 8
    RPN_CHANNELS = 8
    FPN_CLASSIF_FC_LAYERS_SIZE = 16
    MASK_HEAD_CHANNELS = 8
    IMAGE_MIN_DIM = IMAGE_MAX_DIM = 64
    RPN_ANCHOR_SCALES = (4, 8, 16, 32, 64)
    POST_NMS_ROIS_TRAINING = 40
    POST_NMS_ROIS_INFERENCE = 40
    TRAIN_ROIS_PER_IMAGE = 12
    DETECTION_MIN_CONFIDENCE = 0
    DETECTION_MAX_INSTANCES = 10
    STEPS_PER_EPOCH = 2
    ROI_INCLUDE_GT = True
    SEED = 3


def vary_masks(model):
    """Scale the random weights of the last mask layer, so that masks are neither full nor empty."""
    layer = model.keras_model.get_layer("mrcnn_mask")
    kernel, bias = layer.get_weights()
    layer.set_weights([100.0 * kernel, bias])
    return model
