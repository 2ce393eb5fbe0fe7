"""Weights of torchvision's networks that follow a recipe instead of training, and a picture to detect in.

Every tensor is drawn with a seed from its key, so that all machines and libraries get the same numbers. Needs
NumPy only.
"""

import json
import re
import zlib
from pathlib import Path

import numpy as np

SHAPES = json.loads((Path(__file__).parent.parent / "checkpoints" / "torchvision_keys.json").read_text())

# Pattern of a key and what its values are; the first match counts. A kernel is normal, with a deviation
# of gain / sqrt(inputs), without its mean over some axes, so that it reacts to structure. Other values are
# center + spread * normal.
RULES = [
    (r"num_batches_tracked", "plain", 0.0, 0.0),
    (r"body\.bn1\.running_var", "plain", 2.0, 0.1),
    (r"running_var", "plain", 1.0, 0.1),
    (r"running_mean", "plain", 0.0, 0.1),
    (r"body\.layer.*bn3\.weight", "plain", 0.25, 0.03),
    (r"(bn\d|downsample\.1|blocks\.\d\.1|head\.\d\.1)\.weight", "plain", 1.0, 0.1),
    (r"body\..*(conv\d|downsample\.0)\.weight", "kernel", 1.4, ()),
    (r"inner_blocks.*\.weight", "kernel", 1.0, ()),
    (r"layer_blocks.*\.weight", "kernel", 0.7, ()),
    (r"rpn\.head\.conv.*\.weight", "kernel", 1.4, (2, 3)),
    (r"cls_logits\.weight", "kernel", 2.0, ()),
    (r"rpn.*bbox_pred\.weight", "kernel", 0.3, ()),
    (r"box_head\.(fc6|5)\.weight", "kernel", 5.0, ()),
    (r"box_head\.fc7\.weight", "kernel", 1.6, ()),
    (r"cls_score\.weight", "kernel", 0.35, (1,)),
    (r"cls_score\.bias", "background", 3.0, 0.05),
    (r"mask_fcn_logits\.weight", "kernel", 0.8, ()),
    (r"mask_fcn_logits\.bias", "plain", 0.5, 0.05),
    (r"bbox_pred\.weight", "kernel", 0.12, ()),
    (r"weight", "kernel", 1.4, ()),
    (r"bias", "plain", 0.0, 0.05),
]

# Added to the biases of classes whose logits are high for every RoI of the second version. Without this, all
# detections would belong to the first of them.
CLASS_SHIFTS = {"torchvision": {}, "torchvision-v2": {48: -4.5, 62: -2.5, 39: -2.0}}


def tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """The values of one key, float32."""
    rng = np.random.RandomState(zlib.crc32(key.encode()) & 0xFFFFFFFF)
    values = rng.standard_normal(int(np.prod(shape))).reshape(shape)
    _, kind, center, spread = next(rule for rule in RULES if re.search(rule[0], key))
    if kind == "kernel":
        values = values - (values.mean(axis=spread, keepdims=True) if spread else 0.0)
        inputs = shape[0] if "conv5_mask" in key else int(np.prod(shape[1:]))
        return (values * (center / np.sqrt(inputs))).astype(np.float32)
    values = spread * values if kind == "background" else center + spread * values
    if kind == "background":
        values[0] += center
    return values.astype(np.float32)


def state(kind: str) -> dict[str, np.ndarray]:
    """The state dict of `maskrcnn_resnet50_fpn`, or of its second version for "torchvision-v2"."""
    values = {key: tensor(key, tuple(shape)) for key, shape in SHAPES[kind].items()}
    for class_id, shift in CLASS_SHIFTS[kind].items():
        values["roi_heads.box_predictor.cls_score.bias"][class_id] += shift
    return values


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Bright ellipses on a smooth background, uint8 [height, width, 3]."""
    rng = np.random.RandomState(seed)
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    image = np.stack([80 + 60 * np.sin(rows / 37 + k) * np.cos(columns / 53 - k) for k in range(3)], axis=-1)
    for _ in range(12):
        y, x = rng.uniform(0, height), rng.uniform(0, width)
        ry, rx = rng.uniform(8, 40, 2)
        inside = ((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2 <= 1
        image[inside] = rng.uniform(0, 255, 3) + 25 * np.sin(rows[inside] / 3)[:, None]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


# torchvision's names of the losses, in the order of ours.
LOSSES = ("loss_objectness", "loss_rpn_box_reg", "loss_classifier", "loss_box_reg", "loss_mask")


def training_example(height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """A picture with three objects: boxes int [3, (y1, x1, y2, x2)], class ids and masks [height, width, 3].

    The objects are 30 to 55 pixels large: torchvision then takes 2 x 2 samples for each cell of their masks.
    """
    boxes = np.array([[20, 30, 66, 70], [80, 120, 120, 171], [96, 10, 140, 62]])
    rows, columns = np.mgrid[:height, :width] + 0.5
    masks = []
    for y1, x1, y2, x2 in boxes:
        y, x = (rows - (y1 + y2) / 2) / (y2 - y1), (columns - (x1 + x2) / 2) / (x2 - x1)
        masks.append(y**2 + x**2 <= 0.25)
    return picture(height, width, seed=1), boxes, np.array([1, 17, 44]), np.stack(masks, axis=-1)


def priorities(count: int, per_location: int = 1) -> np.ndarray:
    """Different numbers from 0 to 1 for candidates, float32 [count].

    Args:
        count: Number of candidates.
        per_location: Anchors per location. torchvision lists them in the reverse of our order, so that the
            numbers belong to the same anchors if this is 3 for torchvision and 1 for ours.
    """
    numbers = ((np.arange(count) + 1) * 0.6180339887498949 % 1).astype(np.float32)
    return np.ascontiguousarray(numbers.reshape(-1, per_location)[:, ::-1]).ravel()


def thinned(values: np.ndarray, most: int = 2000) -> np.ndarray:
    """At most so many values, evenly spaced in the flat array."""
    flat = values.ravel()
    return flat[:: -(-flat.size // most)]


def excerpt(name: str, values: np.ndarray) -> np.ndarray:
    """The part of a result that a recording holds."""
    if name == "image":
        return values[:, ::4, ::4]
    if name in ("P2", "P3", "P4", "P5", "P6"):
        return values[..., ::32]
    if name == "rpn_deltas":
        return values[:, ::7]
    if name in ("class_logits", "box_deltas"):
        return values[::16]
    if name == "molded_masks":
        return values[:16]
    return values


def write_safetensors(weights: dict[str, np.ndarray], path: str | Path) -> Path:
    """Write a state dict as a .safetensors file and return its path."""
    header, start = {}, 0
    for key, values in weights.items():
        end = start + values.nbytes
        header[key] = {"dtype": "F32", "shape": values.shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    path = Path(path)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for values in weights.values():
            file.write(np.ascontiguousarray(values, "<f4").tobytes())
    return path
