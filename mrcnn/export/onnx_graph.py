"""An ONNX graph under construction: nodes, constants, inputs and outputs.

Tensors of the graph are represented by their names.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

# The operators below exist since this version; newer runtimes read it, too.
OPSET = 17
IR_VERSION = 8

# Name of a tensor of the graph.
Name: TypeAlias = str
# A tensor of the graph, or a number or array that becomes a constant.
Operand: TypeAlias = Name | int | float | Sequence[int] | np.ndarray | np.generic
# The size of a dimension, or the name of one that may vary.
Dimension: TypeAlias = int | str


class GraphBuilder:
    """Collects the nodes of a graph in the order in which they are added."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], Name] = {}
        self._initializers: list[Any] = []
        self._count = 0
        self._scope = ""

    def constant(self, value: Operand) -> Name:
        """Return the name of a constant. Python integers become int64, all floats become float32.

        Equal constants are stored once.
        """
        import onnx.numpy_helper

        array = np.asarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        elif array.dtype.kind in "iu":
            array = array.astype(np.int64)
        array = np.ascontiguousarray(array).reshape(array.shape)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self._constants[key] = f"constant_{len(self._constants)}"
            self._initializers.append(onnx.numpy_helper.from_array(array, name))
        return self._constants[key]

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Start the names of the operators that are added inside with `name/`."""
        outer, self._scope = self._scope, f"{name}/"
        yield
        self._scope = outer

    def op(self, kind: str, *operands: Operand | None, **attributes: Any) -> Name:
        """Add an operator with one output, and return its name. None leaves out an optional operand."""
        return self.multi(kind, 1, *operands, **attributes)[0]

    def multi(self, kind: str, outputs: int, *operands: Operand | None, **attributes: Any) -> list[Name]:
        """Add an operator with several outputs, and return their names."""
        import onnx.helper

        names = ["" if x is None else x if isinstance(x, str) else self.constant(x) for x in operands]
        self._count += 1
        results = [f"{self._scope}{kind}_{self._count}" + (f"_{i}" if i else "") for i in range(outputs)]
        self._nodes.append(onnx.helper.make_node(kind, names, results, name=results[0], **attributes))
        return results

    def size(self, tensor: Name, axis: int) -> Name:
        """Return the size of one axis, int64 [1]."""
        return self.op("Shape", tensor, start=axis, end=axis + 1)

    def shape(self, *sizes: Operand) -> Name:
        """Return a shape from sizes: names of int64 [1], or numbers."""
        return self.op("Concat", *[np.array([x]) if isinstance(x, int) else x for x in sizes], axis=0)

    def scalar(self, tensor: Name) -> Name:
        """Return a tensor with one value, as a scalar."""
        return self.op("Reshape", tensor, np.zeros(0, np.int64))

    def count_up(self, size: Name) -> Name:
        """Return 0, 1, 2 ... as int64 [size], for a size int64 [1]."""
        return self.op("Range", np.int64(0), self.scalar(size), np.int64(1))

    def cast(self, tensor: Name, dtype: str) -> Name:
        """Return a tensor in another dtype, by its NumPy name."""
        return self.op("Cast", tensor, to=_onnx_dtype(dtype))

    def part(self, tensor: Name, index: int, axis: int = -1) -> Name:
        """Return one entry of an axis, which is dropped."""
        return self.op("Gather", tensor, np.int64(index), axis=axis)

    def stack(self, tensors: Sequence[Name], axis: int = -1) -> Name:
        """Join tensors along a new axis."""
        return self.op("Concat", *[self.op("Unsqueeze", tensor, [axis]) for tensor in tensors], axis=axis)

    def total(self, *operands: Operand) -> Name:
        """Return the sum of two or more operands, from left to right."""
        result = operands[0] if isinstance(operands[0], str) else self.constant(operands[0])
        for operand in operands[1:]:
            result = self.op("Add", result, operand)
        return result

    def model(
        self,
        inputs: Mapping[str, tuple[str, Sequence[Dimension]]],
        outputs: Mapping[str, tuple[Name, str, Sequence[Dimension]]],
        metadata: Mapping[str, str],
        producer_version: str,
    ) -> Any:
        """Return the finished `onnx.ModelProto`.

        Args:
            inputs: {name: (dtype, shape)}.
            outputs: {name: (tensor, dtype, shape)}.
            metadata: Entries of `metadata_props`.
            producer_version: Version of this package.
        """
        import onnx.helper

        nodes = list(self._nodes)
        nodes += [
            onnx.helper.make_node("Identity", [tensor], [name], name=name)
            for name, (tensor, _, _) in outputs.items()
        ]
        graph = onnx.helper.make_graph(
            nodes,
            "mask_rcnn",
            [_value_info(name, dtype, shape) for name, (dtype, shape) in inputs.items()],
            [_value_info(name, dtype, shape) for name, (_, dtype, shape) in outputs.items()],
            self._initializers,
        )
        model = onnx.helper.make_model(
            graph,
            opset_imports=[onnx.helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="mrcnn",
            producer_version=producer_version,
        )
        onnx.helper.set_model_props(model, dict(metadata))
        return model


def _onnx_dtype(dtype: str) -> int:
    import onnx.helper

    return int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def _value_info(name: str, dtype: str, shape: Sequence[Dimension]) -> Any:
    import onnx.helper

    return onnx.helper.make_tensor_value_info(name, _onnx_dtype(dtype), list(shape))
