"""Faster replacements for parts of the plain network that compute the same numbers.

To understand the network, you can skip this package: everything works without it, only slower.
`Config.FAST_PATHS = False` turns it off. The two functions below are the only places that apply fast paths to
a network.
"""

from collections.abc import Callable

import keras

from mrcnn.backend import keras_internals, layer_graph
from mrcnn.fast import (
    fold_batch_norm,
    inplace_relu,
    matmul_conv_gradient,
    native_roi_align,
    native_suppression,
    softmax_of_pairs,
    sparse_rpn_gradient,
    trim_empty_rois,
)


@keras_internals.without_importing_tensorflow()
def for_inference(model: keras.Model, *, xla: bool | None = None) -> tuple[keras.Model, Callable[[], None]]:
    """Return a model that computes the outputs of `model` at training=False faster.

    It shares every layer that no fast path replaces. Folded convolutions have their own kernels.

    Args:
        model: A functional model.
        xla: The user's choice; see `backend.compiles_with_xla`.

    Returns:
        The model, and a function that copies changed weights to it. Call the function before each use.
    """
    folded = fold_batch_norm.FoldedCopies(model)
    replacements = {
        **folded.copies,
        **native_roi_align.replacements(model, xla),
        **native_suppression.replacements(model, xla),
        **inplace_relu.replacements(model),
        **softmax_of_pairs.replacements(model),
    }
    norms = [norm for _, norm in folded.pairs.values()]
    faster = layer_graph.replace_layers(model, replacements, removed=norms)
    fold_batch_norm.use_convolution_layout(faster)
    return faster, folded.refresh


@keras_internals.without_importing_tensorflow()
def for_training(model: keras.Model, *, sampled_locations: int, xla: bool | None = None) -> keras.Model:
    """Return a model that computes the training outputs and gradients of `model` faster.

    It shares all variables with `model`.

    Args:
        model: A functional model from `training_graph`.
        sampled_locations: Usual number of locations per image at which the RPN has a gradient.
        xla: The user's choice; see `backend.compiles_with_xla`.
    """
    folded, norms = fold_batch_norm.training_stand_ins(model)
    replacements = {
        **folded,
        **matmul_conv_gradient.training_stand_ins(model, folded),
        **native_suppression.replacements(model, xla),
        **sparse_rpn_gradient.replacements(model, sampled_locations),
        **trim_empty_rois.replacements(model, xla),
    }
    return layer_graph.replace_layers(model, replacements, removed=norms)
