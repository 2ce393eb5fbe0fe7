"""Read and write the HDF5 layout of Keras 2 weight files: one group per layer, named like the layer.

The published Mask R-CNN weights have this layout. This module only handles arrays and names;
`mrcnn.checkpoints.weights` connects files with models.
"""

import contextlib
import errno
import itertools
import os
import re
import shutil
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np

from mrcnn.checkpoints.hdf5 import StoredArray, damage_named, find, find_array
from mrcnn.checkpoints.model_info import write_attributes
from mrcnn.checkpoints.opening import ZIP_MAGIC, check_file, read_start
from mrcnn.errors import InvalidDataError
from mrcnn.files import atomic_write

KernelDtype = Literal["float32", "float16"]

RPN_MODEL = "rpn_model"  # a model inside the model; a file stores it as one layer
RPN_LAYERS = ("rpn_conv_shared", "rpn_conv_shared2", "rpn_class_raw", "rpn_bbox_pred")
HEAD_PREFIXES = ("fpn_", "rpn_", "mrcnn_")  # of all layers behind the backbone
ATTRIBUTE_LIMIT = 64512  # bytes of one attribute; Keras splits longer lists of names

# What `read_weight_file`, which compares no shapes, reads at most: all that deflate can pack into a file,
# but small files may always declare this much.
DEFLATE_RATIO = 1032
SMALL_BYTES = 64 * 2**20
MAX_BYTES = 4 * 2**30
MAX_WEIGHTS = 100_000  # arrays in one file

# Order of the layers behind the backbone. The Keras 2 library reads by position by default, and its
# training and inference models list the two heads differently.
PYRAMID = ["fpn_c5p5", "fpn_c4p4", "fpn_c3p3", "fpn_c2p2", "fpn_p5", "fpn_p2", "fpn_p3", "fpn_p4"]
INFERENCE_HEADS = [
    "mrcnn_class_conv1",
    "mrcnn_class_bn1",
    "mrcnn_class_conv2",
    "mrcnn_class_bn2",
    "mrcnn_class_logits",
    "mrcnn_bbox_fc",
    "mrcnn_mask_conv1",
    "mrcnn_mask_bn1",
    "mrcnn_mask_conv2",
    "mrcnn_mask_bn2",
    "mrcnn_mask_conv3",
    "mrcnn_mask_bn3",
    "mrcnn_mask_conv4",
    "mrcnn_mask_bn4",
    "mrcnn_mask_deconv",
    "mrcnn_mask",
]
TRAINING_HEADS = [
    "mrcnn_mask_conv1",
    "mrcnn_mask_bn1",
    "mrcnn_mask_conv2",
    "mrcnn_mask_bn2",
    "mrcnn_class_conv1",
    "mrcnn_class_bn1",
    "mrcnn_mask_conv3",
    "mrcnn_mask_bn3",
    "mrcnn_class_conv2",
    "mrcnn_class_bn2",
    "mrcnn_mask_conv4",
    "mrcnn_mask_bn4",
    "mrcnn_bbox_fc",
    "mrcnn_mask_deconv",
    "mrcnn_class_logits",
    "mrcnn_mask",
]
RESNET_LAYER = re.compile(r"(res|bn)(\d)(.+)_branch(1|2a|2b|2c)")
RESNET_BLOCK = ("res2a", "bn2a", "res2b", "bn2b", "res2c", "res1", "bn2c", "bn1")


def read_weight_file(
    path: str | os.PathLike[str], known_layers: Collection[str] = ()
) -> dict[str, list[np.ndarray]]:
    """Read a Keras weight file (HDF5).

    Args:
        path: A file of Keras 1 or 2 with weights, or with a whole model saved as .h5. A file of a multi-GPU
            model holds all weights in one group; they are assigned to layers by name.
        known_layers: Names of layers of the model. A group with such a name is one layer. If Keras appended a
            number to a layer name in a multi-GPU file ("conv1_1"), the number is dropped if only the name
            without it is known.

    Returns:
        {layer name: its weights, float32}. A layer without weights has an empty list. The order in a layer
        is kernel, bias; or gamma, beta, moving mean, moving variance. `rpn_model` has the kernels and
        biases of rpn_conv_shared, rpn_class_raw and rpn_bbox_pred.

    Raises:
        MissingFileError, UnreadableFileError: If the file does not exist, or is a folder.
        InvalidDataError: If the file is damaged, has another layout, or refers to data in other files. The
            message names the file.
    """
    with open_weight_file(path, known_layers) as layers:
        check_stated_size(path, layers)
        return {name: [array.read() for array in arrays] for name, arrays in layers.items()}


def check_stated_size(path: str | os.PathLike[str], layers: Mapping[str, Iterable[StoredArray]]) -> None:
    """Raise InvalidDataError if a file declares more weights than it can hold or a model needs."""
    stated = sum(array.size for arrays in layers.values() for array in arrays)
    length = Path(path).stat().st_size
    if stated > min(MAX_BYTES, max(SMALL_BYTES, DEFLATE_RATIO * length)):
        raise InvalidDataError(
            f"the file ({length:,} bytes) declares {stated:,} bytes of weights, more than a file of this "
            "size can hold or a model needs. Use a file from a source that you trust.",
            file=path,
        )


@contextlib.contextmanager
def open_weight_file(
    path: str | os.PathLike[str], known_layers: Collection[str] = ()
) -> Iterator[dict[str, list[StoredArray]]]:
    """Open a weight file, to check its shapes before reading its data.

    The arguments and errors are those of `read_weight_file`. Yields {layer name: its arrays}, which can be
    read inside the block.
    """
    path = check_file(path)
    if read_start(path, len(ZIP_MAGIC)) == ZIP_MAGIC:
        raise InvalidDataError(
            "the file is a zip archive, such as a .keras file of Keras 3, and not an HDF5 weight file. "
            "Load it with keras.models.load_model, then save the weights as .h5.",
            file=path,
        )
    with contextlib.ExitStack() as stack:
        with damage_named(path):
            file = stack.enter_context(h5py.File(path, "r"))
            layers = _find_layers(path, _root(path, file), set(known_layers))
        yield layers


def _root(path: Path, file: h5py.File) -> h5py.Group:
    """Return the group that lists the layers: the file itself, or a group in a file of a whole model."""
    groups = [file]
    if file.id.links.exists(b"model_weights"):
        groups.append(find(path, file, "model_weights"))
    for group in groups:
        if {"layer_names", "layer_names0"} & set(group.attrs):
            return group
    if file.id.links.exists(b"layers") or file.id.links.exists(b"vars"):
        raise InvalidDataError(
            "the file has the .weights.h5 layout of Keras 3, which stores layers by class and position, "
            "not by name. Load it with keras.Model.load_weights into a model like the one that wrote it, "
            "then save that model with mrcnn.checkpoints.weights.save_weights (or as .keras).",
            file=path,
        )
    raise InvalidDataError(
        "this HDF5 file does not hold Keras weights: it has no attribute `layer_names`. Received: a file "
        f"with the top-level groups {sorted(file)[:10]}. Use a file written by save_weights.",
        file=path,
    )


def _find_layers(path: Path, root: h5py.Group, known: set[str]) -> dict[str, list[StoredArray]]:
    layers: dict[str, list[StoredArray]] = {}
    for name, group, weight_names in _listed_layers(path, root):
        weights = [find_array(path, group, weight) for weight in weight_names]
        if _is_wrapped_model(name, weight_names, known):
            layers.update(_by_owner(weights, known))
        else:
            # A multi-GPU file repeats the names of outputs on layers without weights.
            layers[name] = weights or layers.get(name, [])
    return layers


def _listed_layers(path: Path, root: h5py.Group) -> list[tuple[str, h5py.Group, list[str]]]:
    """Return the name, the group and the weight names of each layer, without looking up any array."""
    listed = []
    count = 0
    for name in _name_list(root.attrs, "layer_names"):
        group = find(path, root, name)
        weight_names = _name_list(group.attrs, "weight_names")
        count += 1 + len(weight_names)
        if count > MAX_WEIGHTS:
            raise InvalidDataError(
                f"the file lists more than {MAX_WEIGHTS:,} weights, more than any model has. Use a file "
                "from a source that you trust.",
                file=path,
            )
        listed.append((name, group, weight_names))
    return listed


def _name_list(attributes: Mapping[str, Any], key: str) -> list[str]:
    """Return a list of names, stored as bytes or text in one attribute or in numbered ones."""
    numbered = (f"{key}{index}" for index in itertools.count())
    keys = [key] if key in attributes else itertools.takewhile(attributes.__contains__, numbered)
    names = [name for chunk in keys for name in np.ravel(attributes[chunk])]
    return [name.decode("utf8") if isinstance(name, bytes) else str(name) for name in names]


def _is_wrapped_model(name: str, weight_names: list[str], known: set[str]) -> bool:
    # Keras 1 names weights without a slash ("conv1_W:0"), so they have no owner.
    owners = {weight.split("/")[0] for weight in weight_names if "/" in weight}
    return len(owners) > 1 and name != RPN_MODEL and name not in known


def _by_owner(weights: list[StoredArray], known: set[str]) -> dict[str, list[StoredArray]]:
    known = known | set(RPN_LAYERS)
    layers: dict[str, list[StoredArray]] = {}
    for array in weights:
        owner = array.name.split("/")[0]
        bare = re.sub(r"_\d+$", "", owner)
        layers.setdefault(bare if owner not in known and bare in known else owner, []).append(array)
    rpn = [array for layer in RPN_LAYERS for array in layers.pop(layer, [])]
    return layers | ({RPN_MODEL: rpn} if rpn else {})


def write_weight_file(
    path: str | os.PathLike[str],
    layers: Mapping[str, Mapping[str, np.ndarray]],
    attributes: Mapping[str, str] | None = None,
    kernel_dtype: KernelDtype = "float32",
) -> None:
    """Write weights in the layout of Keras 2.2, with layers in the given order.

    The file is written atomically: if writing fails, an existing file is unchanged.

    Args:
        path: The file to write. Its folder is created.
        layers: {layer name: {weight name: array}}. Weight names include the layer name ("conv1/kernel:0").
            Arrays of one axis, such as biases and the statistics of batch norm, are stored as float32.
        attributes: Further texts to store, by name; see `mrcnn.checkpoints.model_info`. Readers of weights
            ignore them.
        kernel_dtype: How arrays of more axes are stored. "float16" halves the file.

    Raises:
        OSError: If the file cannot be written. It has the errno of the cause. The message contains the size
            needed and says what to do.
        ValueError: If a kernel has values that `kernel_dtype` cannot store, or `kernel_dtype` is none of the
            two.
    """
    if kernel_dtype not in ("float32", "float16"):
        raise ValueError(
            f'`kernel_dtype` must be "float32" or "float16". Received: kernel_dtype={kernel_dtype!r}'
        )
    stored = {
        layer: {name: _stored(name, array, kernel_dtype) for name, array in weights.items()}
        for layer, weights in layers.items()
    }
    path = Path(os.path.realpath(path))  # write through a link instead of replacing it
    try:
        # h5py reports a full disk as a RuntimeError; written to a Python stream, it is an OSError.
        with atomic_write(path) as temporary, temporary.open("w+b") as stream:
            with h5py.File(stream, "w") as file:
                _write_layers(file, stored)
                write_attributes(file, attributes or {})
            stream.flush()
            os.fsync(stream.fileno())
    except (OSError, RuntimeError) as error:
        raise _write_error(path, stored, error) from error


def _stored(name: str, array: np.ndarray, kernel_dtype: KernelDtype) -> np.ndarray:
    """Return an array as the file stores it."""
    array = np.asarray(array, np.float32)
    if array.ndim < 2 or kernel_dtype == "float32":
        return array
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if (np.isfinite(array) & ~np.isfinite(half)).any():
        raise ValueError(
            f"{name} has values of up to {np.nanmax(np.abs(array)):.4g}, but float16 stores at most 65504. "
            'Save the weights with kernel_dtype="float32".'
        )
    return half


def _write_layers(file: h5py.File, layers: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    _set_name_list(file.attrs, "layer_names", layers)
    file.attrs["backend"] = np.bytes_(b"tensorflow")  # the order of the kernel axes
    file.attrs["keras_version"] = np.bytes_(b"2.2.5")
    for layer, weights in layers.items():
        group = file.create_group(layer)
        _set_name_list(group.attrs, "weight_names", weights)
        for name, array in weights.items():
            group.create_dataset(name, data=array)


def _set_name_list(attributes: h5py.AttributeManager, key: str, names: Iterable[str]) -> None:
    """Store names as fixed-length bytes, in numbered attributes if one cannot hold them."""
    values = np.array([name.encode("utf8") for name in names])
    if values.nbytes <= ATTRIBUTE_LIMIT:
        attributes[key] = values
        return
    chunk_size = ATTRIBUTE_LIMIT // values.itemsize
    for index, start in enumerate(range(0, len(values), chunk_size)):
        attributes[f"{key}{index}"] = values[start : start + chunk_size]


def _write_error(
    path: Path, layers: Mapping[str, Mapping[str, np.ndarray]], error: OSError | RuntimeError
) -> OSError:
    needed = sum(array.nbytes for weights in layers.values() for array in weights.values())
    cause = error.__cause__ or error  # `atomic_write` wraps what the block raises
    folder = next(parent for parent in path.parents if parent.exists())
    return OSError(
        getattr(cause, "errno", None) or errno.EIO,
        f"Cannot write the weights: {getattr(cause, 'strerror', None) or cause}. They need about "
        f"{needed:,} bytes; {folder} has {shutil.disk_usage(folder).free:,} bytes free. Free space or choose "
        "another folder. An existing file is unchanged",
        str(path),
    )


def reference_order(names: Iterable[str], training: bool) -> list[str]:
    """Sort layer names as the Keras 2 library lists them, so that it can read a file by position.

    The order is: ResNet in the order of execution, pyramid, `rpn_model`, heads. A training model interleaves
    the heads by depth; an inference model lists the box head before the mask head. Layers of other backbones
    keep their order. Layers that the Keras 2 library does not have come last.

    Args:
        names: Names of layers with weights.
        training: Whether to list the heads as a training model does.
    """
    names = list(names)
    tail = [*PYRAMID, RPN_MODEL, *(TRAINING_HEADS if training else INFERENCE_HEADS)]
    is_resnet = any(RESNET_LAYER.fullmatch(name) for name in names)

    def rank(name: str) -> tuple:
        if name in tail:
            return (1, tail.index(name))
        if name.startswith(HEAD_PREFIXES):
            return (2,)
        return _resnet_rank(name) if is_resnet else (0,)

    return sorted(names, key=rank)


def _resnet_rank(name: str) -> tuple:
    if name in ("conv1", "bn_conv1"):
        return (0, 1, 0, "", 0 if name == "conv1" else 1)
    match = RESNET_LAYER.fullmatch(name)
    if match is None:
        return (2,)
    kind, stage, block, branch = match.groups()
    return (0, int(stage), len(block), block, RESNET_BLOCK.index(kind + branch))
