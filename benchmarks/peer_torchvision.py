"""The peer: torchvision's maskrcnn_resnet50_fpn, with settings that make its work comparable.

It runs in an environment of its own, which needs torch, torchvision and NumPy. README.md lists the
differences from ours. Both sides take the numbers of the Case.
"""

from typing import Any

import numpy as np
import torch
import torchvision
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from benchmarks.workers import Case

DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}
# As in ours.py: a repeat must not depend on those before it.
LEARNING_RATE, MOMENTUM, WEIGHT_DECAY = 1e-6, 0.9, 1e-4
LAST_NORM, CLASS_LOGIT = 0.2, 10.0
# Ours: TRAIN_ROIS_PER_IMAGE and ROI_POSITIVE_RATIO, POST_NMS_ROIS_TRAINING, DETECTION_NMS_THRESHOLD.
TRAIN_ROIS, POSITIVE_RATIO, TRAIN_PROPOSALS, DETECTION_NMS = 200, 0.33, 2000, 0.3
FILLING_IOU = 0.005  # as in ours.py: fills the slots of the mask head

PARTS = {
    "backbone": ["backbone.body"],
    "FPN": ["backbone.fpn"],
    "RPN": ["rpn"],
    "box head": ["roi_heads.box_head", "roi_heads.box_predictor"],
    "mask head": ["roi_heads.mask_head", "roi_heads.mask_predictor"],
}


def eager(case: Case) -> "Detection | TrainingStep":
    """The unchanged model."""
    return _task(case, _model(case))


def compiled(case: Case) -> "Detection | TrainingStep":
    """The model with a compiled backbone and pyramid; the shapes of the rest depend on the data."""
    model = _model(case)
    model.backbone = torch.compile(model.backbone)
    return _task(case, model)


def channels_last(case: Case) -> "Detection | TrainingStep":
    """The model with the memory layout in which convolutions are fastest on most GPUs."""
    return _task(case, _model(case).to(memory_format=torch.channels_last))


def _task(case: Case, model: MaskRCNN) -> "Detection | TrainingStep":
    return Detection(case, model) if case.task == "detect" else TrainingStep(case, model)


def _model(case: Case) -> MaskRCNN:
    """The detector with random weights.

    In training its batch norms are frozen, as in torchvision's fine-tuning and in ours, and all layers train.
    """
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True  # all images have one size, so the search for kernels pays off
    training = case.task == "train"
    norm = torchvision.ops.FrozenBatchNorm2d if training else torch.nn.BatchNorm2d
    network = {"light": "resnet50", "tiny": "resnet18"}.get(case.network, case.network)
    backbone = resnet_fpn_backbone(backbone_name=network, weights=None, norm_layer=norm, trainable_layers=5)
    model = MaskRCNN(
        backbone,
        num_classes=case.classes,
        min_size=min(case.height, case.width),
        max_size=max(case.height, case.width),
        rpn_pre_nms_top_n_train=TRAIN_PROPOSALS,
        rpn_post_nms_top_n_train=TRAIN_PROPOSALS,
        rpn_post_nms_top_n_test=case.proposals,
        box_detections_per_img=case.detections,
        box_nms_thresh=DETECTION_NMS,
        box_batch_size_per_image=TRAIN_ROIS,
        box_positive_fraction=POSITIVE_RATIO,
        box_fg_iou_thresh=FILLING_IOU,
        box_bg_iou_thresh=FILLING_IOU,
    )
    settle(model)
    return model.to(DEVICE).train(training)


def settle(model: MaskRCNN) -> None:
    """As in ours.py: damped residual blocks, boxes equal to their anchors, every RoI of class 1."""
    with torch.no_grad():
        for name, module in model.backbone.named_modules():
            if name.endswith("bn3"):
                module.weight.fill_(LAST_NORM)
        predictor = model.roi_heads.box_predictor
        for layer in (model.rpn.head.bbox_pred, predictor.bbox_pred, predictor.cls_score):
            layer.weight.zero_()
        torch.nn.init.normal_(model.rpn.head.cls_logits.weight, std=0.05)
        predictor.cls_score.bias.zero_()
        predictor.cls_score.bias[1] = CLASS_LOGIT


class Contestant:
    """What both tasks share: mixed precision, and counters of the RoIs before the heads."""

    def __init__(self, case: Case, model: MaskRCNN):
        self.case, self.model = case, model
        self.rois: dict[str, int] = {}
        model.roi_heads.box_head.register_forward_pre_hook(self._counter("box_rois"))
        model.roi_heads.mask_head.register_forward_pre_hook(self._counter("mask_rois"))
        rng = np.random.default_rng(0)
        shape = (case.height, case.width, 3)
        self.arrays = [rng.integers(0, 256, shape).astype(np.uint8) for _ in range(case.batch)]

    def _counter(self, name: str):
        def count(module, inputs):
            self.rois[name] = len(inputs[0]) // self.case.batch

        return count

    def autocast(self) -> torch.autocast:
        """Mixed precision, if the case has it."""
        return torch.autocast(
            DEVICE.type,
            dtype=PRECISIONS.get(self.case.precision),
            enabled=self.case.precision in PRECISIONS,
        )

    def images(self) -> list[torch.Tensor]:
        """The images as the model takes them: float [3, height, width], 0 to 1."""
        return [torch.from_numpy(image).to(DEVICE).permute(2, 0, 1).float().div(255) for image in self.arrays]

    def gflop(self) -> dict[str, float]:
        """Arithmetic of one run by part, as PyTorch counts it.

        PyTorch cannot count compiled functions, so an unchanged model is counted.
        """
        from torch.utils.flop_counter import FlopCounterMode

        model = _model(self.case)
        with FlopCounterMode(display=False) as counter:
            _task(self.case, model).run()
        counts = {name: sum(parts.values()) / 1e9 for name, parts in counter.get_flop_counts().items()}
        name = type(model).__name__
        return {
            part: sum(counts.get(f"{name}.{module}", 0.0) for module in modules)
            for part, modules in PARTS.items()
        }

    def device_peak(self) -> int | None:
        """Peak of GPU memory in bytes; None on a CPU."""
        return torch.cuda.max_memory_allocated() if DEVICE.type == "cuda" else None


class Detection(Contestant):
    """From uint8 images to boxes, classes, scores and bool masks in host memory, as in ours.py."""

    def run(self) -> list[dict[str, np.ndarray]]:
        """Run one batch."""
        with torch.inference_mode(), self.autocast():
            results = self.model(self.images())
            for result in results:
                result["masks"] = result["masks"] > 0.5
            return [{name: _array(value) for name, value in result.items()} for result in results]

    def describe(self, result: list[dict[str, np.ndarray]]) -> dict[str, Any]:
        """As in ours.py, with the RoIs per image that the box head computed."""
        boxes = np.concatenate([detections["boxes"] for detections in result])
        return {
            "detections": min(len(detections["boxes"]) for detections in result),
            "box_side": float(np.median(np.sqrt(np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)))),
            "proposals": self.rois["box_rois"],
        }


def _array(value: torch.Tensor) -> np.ndarray:
    """A tensor in host memory. NumPy has no bfloat16."""
    return (value.float() if value.is_floating_point() else value).cpu().numpy()


class TrainingStep(Contestant):
    """Forward, backward and update of all layers on one batch, with full-size masks as torchvision takes."""

    def __init__(self, case: Case, model: MaskRCNN):
        super().__init__(case, model)
        self.targets = [self._targets(seed) for seed in range(case.batch)]
        self.optimizer = torch.optim.SGD(
            model.parameters(), lr=LEARNING_RATE, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY
        )
        self.scaler = torch.amp.GradScaler(DEVICE.type, enabled=case.precision == "float16")

    def _targets(self, seed: int) -> dict[str, torch.Tensor]:
        """Boxes, labels and masks of ellipses like those of synthetic.py."""
        rng = np.random.default_rng(seed)
        sides = np.array([self.case.height, self.case.width])
        radii = rng.uniform(1 / 16, 1 / 8, (self.case.instances, 2)) * sides
        centers = rng.uniform(radii, sides - radii)
        rows, columns = np.ogrid[: sides[0], : sides[1]]
        masks = [
            ((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2 <= 1
            for (y, x), (ry, rx) in zip(centers, radii, strict=True)
        ]
        boxes = np.concatenate([centers - radii, centers + radii], axis=1)[:, [1, 0, 3, 2]]
        labels = np.arange(self.case.instances) % (self.case.classes - 1) + 1
        return {
            "boxes": torch.from_numpy(boxes.astype(np.float32)),
            "labels": torch.from_numpy(labels),
            "masks": torch.from_numpy(np.stack(masks).astype(np.uint8)),
        }

    def run(self) -> float:
        """Make the steps of one run and return the last loss."""
        for _ in range(self.case.steps):
            targets = [{name: x.to(DEVICE) for name, x in target.items()} for target in self.targets]
            with self.autocast():
                loss = sum(self.model(self.images(), targets).values())
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
            self.scaler.step(self.optimizer)
            self.scaler.update()
        return loss.item()

    def describe(self, result: float) -> dict[str, Any]:
        """The loss, and the RoIs per image that the heads computed."""
        return {"loss": result, "steps": self.case.steps, **self.rois}
