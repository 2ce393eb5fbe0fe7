"""Skip slots of the mask head that no image of a batch fills."""

import keras
from keras import ops

from mrcnn import backend
from mrcnn.network.detection_targets import LeadingSlots
from mrcnn.network.normalization import BatchNorm
from mrcnn.typing import Tensor


class TrimEmptyRois(LeadingSlots):
    """LeadingSlots that keeps as many slots as the image with the most positives fills, but at least one."""

    def call(self, inputs: list[Tensor]) -> list[Tensor]:
        class_ids, *tensors = inputs
        positives = ops.sum(ops.cast(class_ids > 0, "int32"), axis=1)
        count = ops.minimum(ops.maximum(ops.max(positives), 1), self.count)
        return [tensor[:, :count] for tensor in tensors]

    def compute_output_spec(self, inputs: list[Tensor]) -> list[Tensor]:
        return [keras.KerasTensor((x.shape[0], None, *x.shape[2:]), x.dtype) for x in inputs[1:]]


def replacements(model: keras.Model, xla: bool | None = None) -> dict[str, keras.Layer]:
    """Return {name: TrimEmptyRois} for the mask slots of a training model.

    The result is empty if XLA compiles the model, because it has to know all sizes, or if a batch norm of the
    mask head uses the statistics of all slots.

    Args:
        model: A functional model of `training_graph`.
        xla: The user's choice; see `backend.compiles_with_xla`.
    """
    norms = [layer for layer in model.layers if layer.name.startswith("mrcnn_mask_bn")]
    uses_batch = any(isinstance(norm, BatchNorm) and norm.train_bn is not False for norm in norms)
    if uses_batch or not backend.sizes_may_vary(xla):
        return {}
    return {
        layer.name: TrimEmptyRois.from_config(layer.get_config())
        for layer in model.layers
        if isinstance(layer, LeadingSlots)
    }
