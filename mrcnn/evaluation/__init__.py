"""Metrics that compare detections with ground truth. They work on arrays and need no model.

    evaluate            one pass of a detector over a dataset, with all metrics below
    coco                average precision and recall as COCO measures them; precision-recall curves
    instances           AP(tau), panoptic quality, precision, recall and F1 at a score; confusion matrix
    confusion           the confusion matrix
    score_curves        precision, recall and F1 against the score threshold
    ratios              divisions of counts
    robustness          the same metrics under changes of camera and lighting
    average_precision   metrics of a single image, as in the Keras 2 library
    matching            matches of predictions and ground truth in a single image

`mrcnn.visualize` draws the confusion matrix and the curves.
"""
