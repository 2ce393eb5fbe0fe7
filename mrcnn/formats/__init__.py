"""Datasets in common annotation formats, ready to train on: one class for each format.

    train = CocoDataset()
    train.load("annotations/instances_train.json", "images")
    train.prepare()

All read annotations and headers of image files at once, pixels and masks when asked for, and count and name
what is broken (`problems`). `describe` tells what is in a dataset, `split` divides it.
"""

from mrcnn.formats.coco import CocoDataset as CocoDataset
from mrcnn.formats.description import describe as describe
from mrcnn.formats.label_images import LabelImageDataset as LabelImageDataset
from mrcnn.formats.labelme import LabelMeDataset as LabelMeDataset
from mrcnn.formats.mask_files import MaskFileDataset as MaskFileDataset
from mrcnn.formats.subsets import repeat_rare as repeat_rare
from mrcnn.formats.subsets import split as split
from mrcnn.formats.subsets import subset as subset
from mrcnn.formats.via import ViaDataset as ViaDataset
from mrcnn.formats.yolo import YoloDataset as YoloDataset
