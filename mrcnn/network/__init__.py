"""The network, part by part in the order an image meets them: tensors and keras.ops only.

backbone, fpn, rpn, anchors, proposals, roi_align, heads, detections; for training rpn_targets,
detection_targets (sampling for both) and losses; build wires them.
"""
