"""Networks as programs of torch.export, which run without Keras.

A program has no Python in it, so each operation must have a fixed order of steps. Loops and sizes that depend
on the data need the operations below.
"""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence

import keras
import torch
from torch.nn import functional

from mrcnn.typing import Tensor

Variables = tuple[Tensor, ...]


# --- Operations that a program can hold ---


def while_loop(
    condition: Callable[..., Tensor], body: Callable[..., Variables], variables: Variables
) -> Variables:
    """See `mrcnn.backend.plain.while_loop`."""
    if not _is_exporting():
        return keras.ops.while_loop(condition, body, variables)

    def repeat(*values: Tensor) -> Variables:
        return tuple(x.clone() for x in body(*values))  # a result must not share memory with a variable

    return torch.while_loop(condition, repeat, tuple(x.clone() for x in variables))


def _is_exporting() -> bool:
    """Return whether torch.export is tracing. PyTorch before 2.7 cannot tell, and `save` refuses it."""
    return hasattr(torch.compiler, "is_exporting") and torch.compiler.is_exporting()


def rows_from(x: Tensor, start: Tensor, count: int) -> Tensor:
    """See `mrcnn.backend.plain.rows_from`."""
    return torch.index_select(x, 1, start + torch.arange(count, device=x.device))


def first_rows(x: Tensor, count: Tensor) -> Tensor:
    """See `mrcnn.backend.plain.first_rows`."""
    number = count.item()
    torch._check(number > 0)  # operators ask whether a tensor is empty, and a tracer has to know
    return x.narrow(1, 0, number)


def float_vector(numbers: Sequence[float | Tensor]) -> Tensor:
    """See `mrcnn.backend.plain.float_vector`. Keras would fix sizes that are open in a program."""
    return torch.stack([torch.scalar_tensor(number, dtype=torch.float32) for number in numbers])


def pad_images(images: Tensor, rows: tuple[Tensor, Tensor], columns: tuple[Tensor, Tensor]) -> Tensor:
    """See `mrcnn.backend.plain.pad_images`. Keras' own padding asks whether there is any."""
    return functional.pad(images, (0, 0, *columns, *rows))


# --- Programs ---


class _Module(torch.nn.Module):
    """A PyTorch module that runs a Keras model with one input and returns its outputs as a tuple.

    Args:
        network: The model.
        names: The names of its outputs, in the order of the tuple.
    """

    network: keras.Model

    def __init__(self, network: keras.Model, names: Sequence[str]) -> None:
        super().__init__()
        # Not as a submodule: the program holds the values of Keras' variables as constants, and would hold
        # those of the parameters of submodules besides, although nothing reads them.
        object.__setattr__(self, "network", network)
        self.names = tuple(names)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        outputs = self.network(images, training=False)
        return tuple(outputs[name] for name in self.names)


def write_torch_program(
    network: keras.Model,
    names: Sequence[str],
    path: str | os.PathLike[str],
    files: Mapping[str, str],
    example: Sequence[int],
) -> None:
    """Write a model with one input as a program of torch.export.

    Args:
        network: The model. Axes of its input whose size is None may have any size.
        names: The names of its outputs, in the order in which the program returns them.
        path: The file, which ends in .pt2.
        files: Texts to store in the file, by name.
        example: Shape of an example of the input.

    Raises:
        ImportError: If PyTorch is older than 2.7.
    """
    if not hasattr(torch.compiler, "is_exporting"):
        raise ImportError(
            f'The format "torch" needs PyTorch 2.7 or newer. Installed: {torch.__version__}. Upgrade '
            'PyTorch, or export with format="onnx".'
        )
    (images,) = network.inputs
    open_axes = {axis: torch.export.Dim.DYNAMIC for axis, size in enumerate(images.shape) if size is None}
    example_images = torch.zeros(tuple(example), dtype=getattr(torch, images.dtype))
    with torch.no_grad(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Dynamo detected a call", UserWarning)  # of Keras' own functions
        program = torch.export.export(
            _Module(network, names).eval(),
            (example_images,),
            dynamic_shapes=(open_axes or None,),
            strict=False,
        )
    _simplify(program.graph_module)
    torch.export.save(program, path, extra_files=dict(files))


# What Keras and the tracer leave in a program without an effect on its results.
CHECK = "aten._assert_tensor_metadata.default"
DETACH, LIFT = "aten.detach.default", "aten.lift_fresh_copy.default"
# Where each operation comes from: most of the file, and nothing that runs it.
ORIGINS = ("from_node", "nn_module_stack", "source_fn_stack", "stack_trace", "torch_fn")


def _simplify(program: torch.fx.GraphModule) -> None:
    """Make a program and its loops smaller, so that it loads faster.

    Constants of one number become calls that make them, because loops in a file hold no constants.
    """
    for module in program.modules():
        if not isinstance(module, torch.fx.GraphModule):
            continue
        for node in list(module.graph.nodes):
            kind = str(node.target)
            value = getattr(module, kind, None) if node.op == "get_attr" else None
            if isinstance(value, torch.Tensor) and value.ndim == 0:
                _replace_by_call(module.graph, node, value)
            elif kind == DETACH or (kind == LIFT and node.args[0].op == "call_function"):
                node.replace_all_uses_with(node.args[0])
            elif kind == CHECK:
                module.graph.erase_node(node)
            for name in ORIGINS:
                node.meta.pop(name, None)
        module.graph.eliminate_dead_code()
        module.recompile()


def _replace_by_call(graph: torch.fx.Graph, constant: torch.fx.Node, value: Tensor) -> None:
    """Replace a constant of one number by a call that makes it."""
    with graph.inserting_before(constant):
        number = graph.call_function(
            torch.ops.aten.scalar_tensor.default, (value.item(),), {"dtype": value.dtype}
        )
    for user in constant.users:
        if str(user.target) == LIFT:
            number.meta.update(user.meta)  # with an example of its value, which a constant lacks
    number.meta.update(constant.meta)
    constant.replace_all_uses_with(number)
    graph.erase_node(constant)
