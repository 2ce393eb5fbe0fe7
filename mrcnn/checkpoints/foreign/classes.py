"""Class names for weights trained on COCO.

COCO numbers its 80 categories from 1 to 90 with gaps. torchvision's networks have an output for each number,
including the gaps; Detectron2's and ours have the 80 categories in the order of their numbers.
"""

GAP = "N/A"  # a number without a category

# fmt: off
TORCHVISION_CLASS_NAMES = (
    "BG", "person", "bicycle", "car", "motorcycle", "airplane", "bus", "train",
    "truck", "boat", "traffic light", "fire hydrant", GAP, "stop sign", "parking meter", "bench",
    "bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear",
    "zebra", "giraffe", GAP, "backpack", "umbrella", GAP, GAP, "handbag",
    "tie", "suitcase", "frisbee", "skis", "snowboard", "sports ball", "kite", "baseball bat",
    "baseball glove", "skateboard", "surfboard", "tennis racket", "bottle", GAP, "wine glass", "cup",
    "fork", "knife", "spoon", "bowl", "banana", "apple", "sandwich", "orange",
    "broccoli", "carrot", "hot dog", "pizza", "donut", "cake", "chair", "couch",
    "potted plant", "bed", GAP, "dining table", GAP, GAP, "toilet", GAP,
    "tv", "laptop", "mouse", "remote", "keyboard", "cell phone", "microwave", "oven",
    "toaster", "sink", "refrigerator", GAP, "book", "clock", "vase", "scissors",
    "teddy bear", "hair drier", "toothbrush",
)
# fmt: on

# The outputs that stand for the background or a category: index in 91 outputs of each of 81 classes.
COCO_IDS = tuple(index for index, name in enumerate(TORCHVISION_CLASS_NAMES) if name != GAP)
COCO_CLASS_NAMES = tuple(TORCHVISION_CLASS_NAMES[index] for index in COCO_IDS)


def coco_class_names(num_classes: int) -> tuple[str, ...] | None:
    """Return COCO's class names if the number of classes fits, else None.

    Args:
        num_classes: Number of outputs of the box head, including the background.
    """
    return {len(names): names for names in (TORCHVISION_CLASS_NAMES, COCO_CLASS_NAMES)}.get(num_classes)
