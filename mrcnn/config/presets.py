"""Presets: the settings of light networks, and those that fit published weights.

For the weights of other libraries, `mrcnn.load` chooses the preset. To choose it yourself:

    model = mrcnn.MaskRCNN("inference", mrcnn.TorchvisionV2Config(), "logs")
    model.load_weights("maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth")
"""

from typing import Literal

import numpy as np

from mrcnn.config import Config


class LightConfig(Config):
    """Preset for training and detection on a CPU.

    MobileNetV2 and narrow layers take a fraction of the arithmetic of the default network. Published weights
    of whole networks do not fit these widths, so the network is trained from scratch, and batch norm has to
    learn its statistics (TRAIN_BN = None). With batch norm in the pyramid (FPN_NORM), it learns faster. There
    are fewer proposals, because NMS and the heads take much of the time on a CPU. A low
    DETECTION_MIN_CONFIDENCE, as average precision needs, also finds objects with scores below 0.5
    (DETECTIONS_PER_CLASS).
    """

    BACKBONE = "mobilenetv2"
    TOP_DOWN_PYRAMID_SIZE = 64
    FPN_NORM = True
    RPN_CHANNELS = 64
    FPN_CLASSIF_FC_LAYERS_SIZE = 256
    MASK_HEAD_CHANNELS = 64
    MASK_POSITIVES_ONLY = True
    ROI_INCLUDE_GT = True
    TRAIN_BN: bool | Literal["heads"] | None = None
    PRE_NMS_LIMIT = 2000
    POST_NMS_ROIS_TRAINING = 500
    POST_NMS_ROIS_INFERENCE = 300
    DETECTIONS_PER_CLASS = True


class PretrainedLightConfig(LightConfig):
    """Settings to train a light network from the ImageNet weights of EfficientNet-Lite0, on a CPU.

    Only the backbone is pretrained. It keeps its batch-norm statistics, while the other layers, which start
    from random weights, learn theirs from batches of at least two images. First train the layers "heads" for
    a tenth of the steps at twice LEARNING_RATE, then "3+".
    """

    BACKBONE = "efficientnetlite0"
    MEAN_PIXEL = np.array([127.0, 127.0, 127.0])
    TRAIN_BN = "heads"
    RPN_POSITIVE_IOU = 0.5
    IMAGES_PER_GPU = 4
    OPTIMIZER = "adam"
    LEARNING_RATE = 0.0005


class TorchvisionConfig(Config):
    """Settings of torchvision's `maskrcnn_resnet50_fpn` and its COCO weights.

    The published weights need BATCH_NORM_EPSILON = 0. Weights of a network that was created without
    `weights="DEFAULT"` need 1e-5, the default of PyTorch.
    """

    NAME = "torchvision"
    NUM_CLASSES = 91  # COCO's numbers from 0 to 90, with gaps
    CONVENTIONS = "torchvision"
    BACKBONE = "resnet50"
    RESNET_STYLE = "pytorch"
    BATCH_NORM_EPSILON = 0.0
    FROZEN_BN = True
    HEAD_NORM = "none"
    RPN_CHANNELS = 256
    RPN_BBOX_STD_DEV = np.ones(4)
    PRE_NMS_LIMIT = 1000
    PRE_NMS_LIMIT_TRAINING = 2000
    IMAGE_RESIZE_MODE = "shortest"
    IMAGE_MIN_DIM = 800
    IMAGE_MAX_DIM = 1333
    # ImageNet's mean of values from 0 to 1. Its standard deviation is part of the converted weights.
    MEAN_PIXEL = 255 * np.array([0.485, 0.456, 0.406])
    TRAIN_ROIS_PER_IMAGE = 512
    ROI_POSITIVE_RATIO = 0.25
    ROI_INCLUDE_GT = True
    USE_MINI_MASK = False
    IMAGES_PER_GPU = 1
    DETECTION_MIN_CONFIDENCE = 0.05
    DETECTION_NMS_THRESHOLD = 0.5


class TorchvisionV2Config(TorchvisionConfig):
    """Settings of torchvision's `maskrcnn_resnet50_fpn_v2` and its COCO weights."""

    NAME = "torchvision-v2"
    BATCH_NORM_EPSILON = 1e-5
    FROZEN_BN = False
    FPN_NORM = True
    HEAD_NORM = "convolutions"
    RPN_CONVOLUTIONS = 2
    BOX_HEAD_CONVOLUTIONS = 4


class Detectron2Config(TorchvisionConfig):
    """Settings of Detectron2's Mask R-CNN with a ResNet and FPN, and its COCO weights.

    The settings are those of ResNet-50. Set BACKBONE = "resnet101" for weights of that network, and
    BACKBONE = "resnext101_32x8d" with RESNET_STYLE = "pytorch" for X101. Scores differ slightly from those of
    Detectron2 for two reasons. Detectron2 takes more samples per bin of features in large RoIs; this network
    always takes 2 x 2. Detectron2 resizes images with Pillow, which blurs an image that it shrinks; this
    library interpolates between pixels.
    """

    NAME = "detectron2"
    NUM_CLASSES = 81
    CONVENTIONS = "detectron2"
    RESNET_STYLE = "caffe"
    BATCH_NORM_EPSILON = 1e-5
    MEAN_PIXEL = np.array([123.675, 116.28, 103.53])
    POST_NMS_ROIS_TRAINING = 1000
