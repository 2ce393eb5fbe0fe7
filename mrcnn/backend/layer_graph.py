"""A functional model as the calls of its layers: list them, replace some, run them one by one."""

import gc
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from inspect import signature
from typing import Any

import keras

from mrcnn.backend.keras_internals import Call, fill_arguments, producing_call
from mrcnn.typing import Tensor


def calls(model: keras.Model) -> list[Call]:
    """Return Keras' nodes from a model's inputs to its outputs, each once and after those it depends on."""
    return calls_between(keras.tree.flatten(model.outputs))


def calls_between(outputs: Sequence[Tensor], known: Collection[int] = ()) -> list[Call]:
    """Return Keras' nodes that compute symbolic tensors, each once and after those it depends on.

    Args:
        outputs: The tensors to compute.
        known: The ids of tensors that need not be computed. What only they depend on is left out.
    """
    ordered: list[Call] = []
    done: set[int] = set()
    waiting = [producing_call(tensor) for tensor in outputs if id(tensor) not in known]
    while waiting:
        call = waiting[-1]
        parents = [producing_call(tensor) for tensor in call.input_tensors if id(tensor) not in known]
        missing = [parent for parent in parents if id(parent) not in done]
        if missing and id(call) not in done:
            waiting += reversed(missing)
            continue
        waiting.pop()
        if id(call) not in done:
            done.add(id(call))
            ordered.append(call)
    return ordered


def count_uses(model: keras.Model, ordered: list[Call]) -> Counter[int]:
    """Return how often each tensor of a model is read, by its id. An output of the model counts as a read."""
    uses = Counter(id(tensor) for call in ordered for tensor in call.input_tensors)
    uses.update(id(tensor) for tensor in keras.tree.flatten(model.outputs))
    return uses


def replace_layers(
    model: keras.Model, replacements: Mapping[str, keras.Layer], removed: Collection[keras.Layer] = ()
) -> keras.Model:
    """Return a model with some layers replaced, by name, and some removed. All other layers are shared.

    Args:
        model: A functional model.
        replacements: The new layer for the name of an old one, with the same inputs and outputs.
        removed: Layers of one input whose output is then that input.

    Returns:
        A functional model with the inputs and outputs of `model`.
    """
    skipped = {id(layer) for layer in removed}

    def call(layer: keras.Layer, *inputs: Any, **options: Any) -> Any:
        if id(layer) in skipped:
            return inputs[0]
        if layer.name in replacements:  # Keras records mask=None, which the new layer may not take
            options = {name: value for name, value in options.items() if value is not None}
        return layer(*inputs, **options)

    return keras.models.clone_model(
        model, clone_function=lambda layer: replacements.get(layer.name, layer), call_function=call
    )


class EagerRun:
    """Call a functional model layer by layer and release each tensor after its last use.

    Keras holds every tensor until the last layer has run. Under eager execution these are the features of all
    layers, needed or not. Autograd is unaffected.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        ordered = [call for call in calls(model) if not call.is_input]
        self._last_read = {id(x): call for call in ordered for x in (*call.outputs, *call.input_tensors)}
        for tensor in keras.tree.flatten(model.outputs):
            self._last_read.pop(id(tensor), None)
        self._calls = [(call, "training" in signature(call.operation.call).parameters) for call in ordered]

    def __call__(self, inputs: Mapping[str, Tensor], training: bool) -> Any:
        """Return the model's outputs in their structure.

        Args:
            inputs: Tensors by the names of the model's inputs.
            training: Passed to the layers that take it.
        """
        values = {
            id(x): keras.ops.cast(inputs[x.name], x.dtype) for x in keras.tree.flatten(self.model.inputs)
        }
        for call, takes_training in self._calls:
            args, options = fill_arguments(call, values)
            if takes_training:
                options = {**options, "training": training}
            results = keras.tree.flatten(call.operation(*args, **options))
            values.update((id(tensor), value) for tensor, value in zip(call.outputs, results, strict=True))
            del args, options, results
            for tensor in (*call.input_tensors, *call.outputs):
                if self._last_read.get(id(tensor)) is call:
                    values.pop(id(tensor), None)
            if len(call.input_tensors) > 1:
                # Keras on PyTorch leaves lists of inputs in a reference cycle, which holds their memory.
                gc.collect(1)
        return keras.tree.map_structure(lambda tensor: values[id(tensor)], self.model.output)
