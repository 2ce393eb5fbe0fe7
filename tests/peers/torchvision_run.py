"""Run torchvision's Mask R-CNN and write its intermediate results. Needs PyTorch, torchvision and NumPy.

    python torchvision_run.py detect job.json out.npz
    python torchvision_run.py record [FOLDER]

`record` writes the recordings, by default to the folder of this file.
"""

import json
import sys
from pathlib import Path

import numpy as np
import recipe
import torch
import torchvision
from torchvision.models import detection

BUILDERS = {
    "torchvision": detection.maskrcnn_resnet50_fpn,
    "torchvision-v2": detection.maskrcnn_resnet50_fpn_v2,
}


def build(kind: str, state: dict, epsilon: float | None, **settings) -> torch.nn.Module:
    """The network with the weights of a state dict.

    Args:
        kind: A key of BUILDERS.
        state: {key: array or tensor}.
        epsilon: Of frozen batch norms in its backbone; None leaves trainable ones, with PyTorch's default.
        settings: Of torchvision's MaskRCNN.
    """
    classes = len(state["roi_heads.box_predictor.cls_score.bias"])
    model = BUILDERS[kind](weights=None, weights_backbone=None, num_classes=classes, **settings)
    model.load_state_dict({key: torch.as_tensor(values) for key, values in state.items()}, strict=False)
    if epsilon is not None:
        freeze(model.backbone.body, epsilon)
    return model.eval()


def freeze(module: torch.nn.Module, epsilon: float) -> None:
    """Replace batch norms by frozen ones."""
    for name, child in module.named_children():
        if not isinstance(child, torch.nn.BatchNorm2d):
            freeze(child, epsilon)
            continue
        frozen = torchvision.ops.FrozenBatchNorm2d(child.num_features, epsilon)
        frozen.load_state_dict(child.state_dict())
        setattr(module, name, frozen)


class Recorder:
    """The intermediate results of a network's last call, as arrays."""

    def __init__(self, model: torch.nn.Module):
        self.values: dict[str, np.ndarray] = {}
        model.backbone.register_forward_hook(self._pyramid)
        model.rpn.head.register_forward_hook(self._rpn)
        model.rpn.register_forward_hook(self._proposals)
        model.roi_heads.box_predictor.register_forward_hook(self._boxes)
        model.roi_heads.register_forward_hook(self._result)
        model.transform.register_forward_hook(self._image)

    def _image(self, module, inputs, outputs):
        self.values["image"] = outputs[0].tensors.permute(0, 2, 3, 1)

    def _pyramid(self, module, inputs, outputs):
        for level, features in enumerate(outputs.values(), start=2):
            self.values[f"P{level}"] = features.permute(0, 2, 3, 1)

    def _rpn(self, module, inputs, outputs):
        for name, parts in zip(("rpn_logits", "rpn_deltas"), outputs, strict=True):
            flat = [part.permute(0, 2, 3, 1).flatten(1) for part in parts]
            self.values[name] = torch.cat(flat, dim=1)

    def _proposals(self, module, inputs, outputs):
        self.values["proposals"] = outputs[0][0]

    def _boxes(self, module, inputs, outputs):
        self.values["class_logits"], self.values["box_deltas"] = outputs

    def _result(self, module, inputs, outputs):
        for name, tensor in outputs[0][0].items():
            self.values[f"molded_{name}"] = tensor

    def arrays(self) -> dict[str, np.ndarray]:
        return {name: np.asarray(tensor.detach()) for name, tensor in self.values.items()}


def detect(model: torch.nn.Module, recorder: Recorder, image: np.ndarray) -> dict[str, np.ndarray]:
    """All results of one image, uint8 [height, width, 3]."""
    with torch.inference_mode():
        pixels = torch.from_numpy(image).permute(2, 0, 1).float() / 255
        (result,) = model([pixels])
    arrays = recorder.arrays()
    arrays |= {name: np.asarray(tensor) for name, tensor in result.items() if name != "masks"}
    arrays["masks"] = np.asarray(result["masks"][:, 0] >= 0.5)
    return arrays


def run_job(job: dict, out: str) -> None:
    """Run one job: {kind, state, epsilon, settings, images}, all files .npz or .pth and .npy."""
    torch.set_num_threads(job.get("threads", 1))
    state = recipe.state(job["kind"]) if job["state"] == "recipe" else torch.load(job["state"])
    model = build(job["kind"], state, job["epsilon"], **job["settings"])
    recorder = Recorder(model)
    results = {}
    for index, path in enumerate(job["images"]):
        for name, array in detect(model, recorder, np.load(path)).items():
            results[f"{index}/{name}"] = array
    np.savez(out, **results)


# --- Recordings ---

SIZES = {"min_size": 160, "max_size": 224}
DETECTION_PICTURE, TRAINING_PICTURE = (120, 170), (160, 224)
PROPOSALS = 100
TRAINING = {"rpn_post_nms_top_n_train": 60, "box_batch_size_per_image": 32, "rpn_batch_size_per_image": 64}
STEPS, LEARNING_RATE, MOMENTUM = 10, 1e-4, 0.9
RECORDED_GRADIENTS = (
    "backbone.body.layer1.0.conv1.weight",
    "backbone.body.layer4.2.conv3.weight",
    "backbone.fpn.inner_blocks.0.0.weight",
    "backbone.fpn.layer_blocks.3.0.weight",
    "rpn.head.conv.0.0.weight",
    "rpn.head.cls_logits.weight",
    "rpn.head.bbox_pred.weight",
    "roi_heads.box_predictor.cls_score.weight",
    "roi_heads.box_predictor.bbox_pred.weight",
    "roi_heads.mask_head.3.0.weight",
    "roi_heads.mask_predictor.conv5_mask.weight",
    "roi_heads.mask_predictor.mask_fcn_logits.weight",
)


def record(folder: Path) -> None:
    """Write detection and training of both networks to files of a folder."""
    for kind, epsilon in (("torchvision", 0.0), ("torchvision-v2", None)):
        np.savez_compressed(folder / f"{kind}.npz", **detection_recording(kind, epsilon))
        np.savez_compressed(folder / f"{kind}-training.npz", **training_recording(kind, epsilon))


def detection_recording(kind: str, epsilon: float | None) -> dict[str, np.ndarray]:
    model = build(kind, recipe.state(kind), epsilon, rpn_post_nms_top_n_test=PROPOSALS, **SIZES)
    arrays = detect(model, Recorder(model), recipe.picture(*DETECTION_PICTURE))
    return {name: np.asarray(recipe.excerpt(name, array)) for name, array in arrays.items()}


def training_recording(kind: str, epsilon: float | None) -> dict[str, np.ndarray]:
    """Losses of ten steps of SGD on one image, and gradients of the first: in float32 and in float64."""
    model = training_model(kind, epsilon)
    named = trained_parameters(model)
    optimizer = torch.optim.SGD(list(named.values()), lr=LEARNING_RATE, momentum=MOMENTUM)
    history, results = [], {}
    for step in range(STEPS):
        losses = training_losses(model)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        history.append([losses[name].item() for name in recipe.LOSSES])
        if step == 0:
            results["names"] = np.array(list(named))
            results["gradient_norms"] = np.array([value.grad.norm().item() for value in named.values()])
            results |= recorded_gradients(named, "gradient")
        optimizer.step()
    before = recipe.state(kind)
    changes = [np.linalg.norm(value.detach().numpy() - before[name]) for name, value in named.items()]
    exact = training_model(kind, epsilon, torch.float64)
    sum(training_losses(exact).values()).backward()
    results |= recorded_gradients(trained_parameters(exact), "float64")
    return results | {"history": np.array(history), "changes": np.array(changes)}


def training_model(kind: str, epsilon: float | None, dtype: torch.dtype = torch.float32) -> torch.nn.Module:
    """The network in training, with stored statistics in batch norms and fixed samples."""
    model = build(kind, recipe.state(kind), epsilon, **TRAINING, **SIZES).to(dtype)
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eval()  # the stored statistics
    for part in (model.backbone.body.conv1, model.backbone.body.bn1):
        part.requires_grad_(False)
    model.rpn.fg_bg_sampler = Sampler(64, 0.5, per_location=3)
    model.roi_heads.fg_bg_sampler = Sampler(32, 0.25, per_location=1)
    return model


def trained_parameters(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: value for name, value in model.named_parameters() if value.requires_grad}


def training_losses(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The losses of the training example, computed in the precision of the weights."""
    dtype = next(model.parameters()).dtype
    picture, boxes, labels, masks = recipe.training_example(*TRAINING_PICTURE)
    image = (torch.from_numpy(picture).permute(2, 0, 1).float() / 255).to(dtype)
    target = {
        "boxes": torch.from_numpy(boxes[:, [1, 0, 3, 2]]).to(dtype),
        "labels": torch.from_numpy(labels),
        "masks": torch.from_numpy(masks.transpose(2, 0, 1)).to(torch.uint8),
    }
    return model([image], [target])


def recorded_gradients(named: dict[str, torch.nn.Parameter], prefix: str) -> dict[str, np.ndarray]:
    gradients = {key: recipe.thinned(named[key].grad.numpy()) for key in RECORDED_GRADIENTS}
    return {f"{prefix}/{key}": values.astype(np.float32) for key, values in gradients.items()}


class Sampler:
    """torchvision's sampler with fixed priorities instead of chance."""

    def __init__(self, size: int, positive_fraction: float, per_location: int):
        self.size, self.positive_fraction, self.per_location = size, positive_fraction, per_location

    def __call__(self, labels):
        chosen = [self._choose(row) for row in labels]
        return [positive for positive, _ in chosen], [negative for _, negative in chosen]

    def _choose(self, labels):
        priority = torch.from_numpy(recipe.priorities(len(labels), self.per_location))
        positive = self._best(labels >= 1, priority, int(self.size * self.positive_fraction))
        return positive, self._best(labels == 0, priority, self.size - int(positive.sum()))

    def _best(self, eligible, priority, limit):
        index = torch.where(eligible)[0]
        index = index[torch.argsort(-priority[index])[:limit]]
        mask = torch.zeros(len(eligible), dtype=torch.uint8)
        mask[index] = 1
        return mask


if __name__ == "__main__":
    torch.set_num_threads(1)
    if sys.argv[1] == "record":
        record(Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent)
    else:
        run_job(json.loads(Path(sys.argv[2]).read_text()), sys.argv[3])
