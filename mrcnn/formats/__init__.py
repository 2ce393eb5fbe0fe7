"""Datasets in common annotation formats, ready to train on: one class for each format.

    train = CocoDataset()
    train.load("annotations/instances_train.json", "images")
    train.prepare()

`load` reads and checks the annotations and the headers of the images. Broken entries are left out, counted
and named in `problems`; the rest is loaded. Pixels and masks are read when they are needed. `describe`
summarizes a dataset, `split` divides it, `write_coco` writes it, and `write_predictions` in
`mrcnn.formats.predictions` writes detections.
"""

from mrcnn.formats.coco import CocoDataset as CocoDataset
from mrcnn.formats.coco_export import write_coco as write_coco
from mrcnn.formats.description import describe as describe
from mrcnn.formats.geojson import GeoJsonDataset as GeoJsonDataset
from mrcnn.formats.imagej import ImageJDataset as ImageJDataset
from mrcnn.formats.label_images import LabelImageDataset as LabelImageDataset
from mrcnn.formats.labelme import LabelMeDataset as LabelMeDataset
from mrcnn.formats.mask_files import MaskFileDataset as MaskFileDataset
from mrcnn.formats.subsets import repeat_rare as repeat_rare
from mrcnn.formats.subsets import split as split
from mrcnn.formats.subsets import subset as subset
from mrcnn.formats.via import ViaDataset as ViaDataset
from mrcnn.formats.writing import write_dataset as write_dataset
from mrcnn.formats.yolo import YoloDataset as YoloDataset
