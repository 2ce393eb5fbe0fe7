"""The calls of layers that a functional model consists of, in an order in which they can run."""

import gc
from collections import Counter
from collections.abc import Mapping
from inspect import signature
from typing import Any

import keras

Tensor = Any
Call = Any


def calls(model: keras.Model) -> list[Call]:
    """Keras' nodes from a model's inputs to its outputs, each once and after those it needs."""
    ordered, done = [], set()
    waiting = [_made_by(tensor) for tensor in keras.tree.flatten(model.outputs)]
    while waiting:
        call = waiting[-1]
        needed = [before for before in call.parent_nodes if id(before) not in done]
        if needed and id(call) not in done:
            waiting += reversed(needed)
            continue
        waiting.pop()
        if id(call) not in done:
            done.add(id(call))
            ordered.append(call)
    return ordered


def uses(model: keras.Model, ordered: list[Call]) -> Counter:
    """How often each tensor of a model, by its id, is read, as an output besides."""
    counted = Counter(id(tensor) for call in ordered for tensor in call.input_tensors)
    counted.update(id(tensor) for tensor in keras.tree.flatten(model.outputs))
    return counted


class EagerRun:
    """A functional model, called layer by layer, that lets go of each tensor after its last use.

    Keras itself holds every tensor until the last layer has run: under eager execution all features of all
    layers, needed or not. Gradients are as ever: whoever computes them keeps what he needs.
    """

    def __init__(self, model: keras.Model):
        self.model = model
        ordered = [call for call in calls(model) if not call.is_input]
        self._last_read = {id(x): call for call in ordered for x in (*call.outputs, *call.input_tensors)}
        for tensor in keras.tree.flatten(model.outputs):
            self._last_read.pop(id(tensor), None)
        self._calls = [(call, "training" in signature(call.operation.call).parameters) for call in ordered]

    def __call__(self, inputs: Mapping[str, Tensor], training: bool) -> Any:
        """The model's outputs in their structure. inputs: by name; training: for layers that ask."""
        values = {
            id(x): keras.ops.cast(inputs[x.name], x.dtype) for x in keras.tree.flatten(self.model.inputs)
        }
        for call, asks in self._calls:
            args, options = call.arguments.fill_in(values)
            if asks:
                options = {**options, "training": training}
            results = keras.tree.flatten(call.operation(*args, **options))
            values.update((id(tensor), value) for tensor, value in zip(call.outputs, results, strict=True))
            del args, options, results
            for tensor in (*call.input_tensors, *call.outputs):
                if self._last_read.get(id(tensor)) is call:
                    values.pop(id(tensor), None)
            if len(call.input_tensors) > 1:
                gc.collect(1)  # Keras on PyTorch forgets lists of inputs in a circle of references
        return keras.tree.map_structure(lambda tensor: values[id(tensor)], self.model.output)


def _made_by(tensor: Tensor) -> Call:
    operation, index, _ = tensor._keras_history
    return operation._inbound_nodes[index]
