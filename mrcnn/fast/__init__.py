"""Faster replacements for parts of the plain network, with the same numbers.

A reader of the paper may skip this folder: the package works without it, only slower. `Config.FAST_PATHS`
turns it off. The two lists below are the only places that apply fast paths to a network.
"""

from collections.abc import Callable

import keras

from mrcnn.backend import layer_graph
from mrcnn.fast import (
    fold_batch_norm,
    inplace_relu,
    matmul_conv_gradient,
    native_roi_align,
    sparse_rpn_gradient,
    trim_empty_rois,
)


def for_inference(model: keras.Model) -> tuple[keras.Model, Callable[[], None]]:
    """A functional model with the outputs of `model` at training=False, computed faster.

    It shares every layer that no fast path replaces. Folded convolutions have kernels of their own.

    Returns:
        The model, and a function that brings over changed weights: call it before each use.
    """
    folded = fold_batch_norm.FoldedCopies(model)
    replacements = {
        **folded.copies,
        **native_roi_align.replacements(model),
        **inplace_relu.replacements(model),
    }
    norms = [norm for _, norm in folded.pairs.values()]
    faster = layer_graph.replace_layers(model, replacements, removed=norms)
    fold_batch_norm.use_convolution_layout(faster)
    return faster, folded.refresh


def for_training(model: keras.Model, *, sampled_locations: int, xla: bool | None = None) -> keras.Model:
    """A functional model with the outputs and gradients of `model` in training, computed faster.

    All variables stay those of `model`.

    Args:
        model: A functional model of `training_graph`.
        sampled_locations: Locations per image at which the RPN usually has a gradient.
        xla: The user's choice; see `backend.compiles_with_xla`.
    """
    folded, norms = fold_batch_norm.training_stand_ins(model)
    replacements = {
        **folded,
        **matmul_conv_gradient.training_stand_ins(model, folded),
        **sparse_rpn_gradient.replacements(model, sampled_locations),
        **trim_empty_rois.replacements(model, xla),
    }
    return layer_graph.replace_layers(model, replacements, removed=norms)
