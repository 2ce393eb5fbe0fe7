"""Layers of the network with the constructors of the Keras 2 library, which take a Config.

The layers of `mrcnn.network` take plain numbers. A saved model that contains one of the layers of this module
stores those numbers, not the Config.
"""

from typing import TYPE_CHECKING, Any

import keras

from mrcnn.network import detection_targets, detections, proposals

if TYPE_CHECKING:
    from mrcnn.config import Config

# Their saved names differ from those of the layers in `mrcnn.network`.
PACKAGE = "mrcnn.legacy"


@keras.saving.register_keras_serializable(PACKAGE)
class ProposalLayer(proposals.ProposalLayer):
    """`mrcnn.network.proposals.ProposalLayer`, with the rest of its arguments from a Config.

    Args:
        proposal_count: Proposals per image.
        nms_threshold: IoU above which the box with the lower score is suppressed.
        config: Read for PRE_NMS_LIMIT and RPN_BBOX_STD_DEV. Keyword arguments take precedence.
    """

    def __init__(
        self, proposal_count: int, nms_threshold: float, config: "Config | None" = None, **kwargs: Any
    ) -> None:
        if config is not None:
            kwargs = {
                "pre_nms_limit": config.PRE_NMS_LIMIT,
                "bbox_std_dev": config.RPN_BBOX_STD_DEV,
                **kwargs,
            }
        super().__init__(proposal_count, nms_threshold, **kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class DetectionLayer(detections.DetectionLayer):
    """`mrcnn.network.detections.DetectionLayer`, with its arguments from a Config.

    Args:
        config: Read for BBOX_STD_DEV, SOFT_NMS_SIGMA, DETECTIONS_PER_CLASS and the DETECTION_* settings.
            Keyword arguments take precedence.
    """

    def __init__(self, config: "Config | None" = None, **kwargs: Any) -> None:
        if config is not None:
            kwargs = {
                "bbox_std_dev": config.BBOX_STD_DEV,
                "min_confidence": config.DETECTION_MIN_CONFIDENCE,
                "nms_threshold": config.DETECTION_NMS_THRESHOLD,
                "max_instances": config.DETECTION_MAX_INSTANCES,
                "soft_nms_sigma": config.SOFT_NMS_SIGMA,
                "per_class": config.DETECTIONS_PER_CLASS,
                **kwargs,
            }
        super().__init__(**kwargs)


@keras.saving.register_keras_serializable(PACKAGE)
class DetectionTargetLayer(detection_targets.DetectionTargetLayer):
    """`mrcnn.network.detection_targets.DetectionTargetLayer`, with its arguments from a Config.

    Args:
        config: Read for the settings of RoI sampling, boxes and masks. Keyword arguments take precedence.
    """

    def __init__(self, config: "Config | None" = None, **kwargs: Any) -> None:
        if config is not None:
            kwargs = {
                "rois_per_image": config.TRAIN_ROIS_PER_IMAGE,
                "positive_ratio": config.ROI_POSITIVE_RATIO,
                "bbox_std_dev": config.BBOX_STD_DEV,
                "mask_shape": config.MASK_SHAPE,
                "use_mini_mask": config.USE_MINI_MASK,
                "positive_iou": config.ROI_POSITIVE_IOU,
                "crowd_iou": config.CROWD_IOU,
                "include_gt": config.ROI_INCLUDE_GT,
                **kwargs,
            }
        super().__init__(**kwargs)
