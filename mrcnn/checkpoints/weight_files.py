"""The HDF5 layout of Keras 2 weight files: one group per layer, found by the layer's name.

This is the layout of the published Mask R-CNN weights. Nothing here knows a model or a framework;
`mrcnn.checkpoints.weights` connects the two.
"""

import contextlib
import errno
import itertools
import os
import re
import shutil
import uuid
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

import h5py
import numpy as np

RPN_MODEL = "rpn_model"  # a model inside the model, stored as one layer
RPN_LAYERS = ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")
HEAD_PREFIXES = ("fpn_", "rpn_", "mrcnn_")  # of every layer that is not the backbone's
ATTRIBUTE_LIMIT = 64512  # bytes that HDF5 keeps in one attribute; Keras splits longer lists
ZIP_MAGIC = b"PK\x03\x04"

# Order of the groups behind the backbone. The original reads by position unless told otherwise,
# and its training and inference models list the two heads differently.
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
    path: str | os.PathLike, known_layers: Collection[str] = ()
) -> dict[str, list[np.ndarray]]:
    """Read a Keras weight file (HDF5) into {layer name: its weights by position}.

    path: weights alone, or a whole model saved as .h5, of Keras 1 or 2. In the file of a multi-GPU
        model one group holds everything; its weights are handed back to the layers whose names
        they carry.
    known_layers: layer names of the model the weights are meant for. A group of such a name is
        left whole, and a number that Keras appended to a layer's name in a multi-GPU file
        ("conv1_1") is dropped where only the name without it is known.

    Returns float32 arrays; a layer without weights has an empty list. Order in a layer: kernel,
        bias; or gamma, beta, moving mean, moving variance; `rpn_model` has kernel and bias of
        rpn_conv_shared, rpn_class_raw, rpn_bbox_pred.
    Raises FileNotFoundError, or ValueError for a damaged file or one of another layout.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(
            f"There is no weight file {path}. Received: filepath={str(path)!r} in the working "
            f"folder {os.getcwd()}. Correct the path or download the file."
        )
    with path.open("rb") as stream:  # a folder or a locked file gets its usual error here
        is_zip = stream.read(len(ZIP_MAGIC)) == ZIP_MAGIC
    if is_zip:
        raise ValueError(
            f"{path} is a zip archive, such as a .keras file of Keras 3, and not a weight file by "
            "layer name. Load it with keras.models.load_model, then save the weights as .h5."
        )
    try:
        with h5py.File(path, "r") as file:
            return _read_layers(_group_of_layers(file, path), set(known_layers))
    except (OSError, RuntimeError, KeyError) as error:
        raise ValueError(
            f"{path} ({path.stat().st_size:,} bytes) is not a complete HDF5 file: {error}. An "
            "interrupted download leaves such a file: delete it and download it again."
        ) from error


def _group_of_layers(file: h5py.File, path: Path) -> h5py.Group:
    for group in (file, file.get("model_weights")):
        if group is not None and {"layer_names", "layer_names0"} & set(group.attrs):
            return group
    if "layers" in file or "vars" in file:
        raise ValueError(
            f"{path} has the .weights.h5 layout of Keras 3, which finds layers by class and "
            "position and not by name. Load it with keras.Model.load_weights into the model that "
            "wrote it, then save that with mrcnn.checkpoints.weights.save_weights (or as .keras)."
        )
    raise ValueError(
        f"{path} is an HDF5 file, but not of Keras weights: it has no attribute layer_names. "
        f"Received: top groups {sorted(file)[:10]}. Choose a file written by save_weights."
    )


def _read_layers(root: h5py.Group, known: set[str]) -> dict[str, list[np.ndarray]]:
    layers: dict[str, list[np.ndarray]] = {}
    for name in _name_list(root.attrs, "layer_names"):
        group = root[name]
        weights = [
            (weight, _as_float32(group[weight], weight)) for weight in _name_list(group.attrs, "weight_names")
        ]
        if _is_wrapped_model(name, [weight for weight, _ in weights], known):
            layers.update(_by_owner(weights, known))
        else:
            # A multi-GPU file repeats the names of outputs on layers without weights.
            layers[name] = [array for _, array in weights] or layers.get(name, [])
    return layers


def _name_list(attributes: Mapping, key: str) -> list[str]:
    """A list of names, stored as bytes or text, in one attribute or in numbered ones."""
    numbered = (f"{key}{index}" for index in itertools.count())
    keys = [key] if key in attributes else itertools.takewhile(attributes.__contains__, numbered)
    names = [name for chunk in keys for name in np.ravel(attributes[chunk])]
    return [name.decode("utf8") if isinstance(name, bytes) else str(name) for name in names]


def _as_float32(dataset: h5py.Dataset, name: str) -> np.ndarray:
    if not isinstance(dataset, h5py.Dataset) or dataset.dtype.kind not in "fiu":
        raise ValueError(f"Weight {name} in the file is no array of numbers. Received: {dataset}.")
    with np.errstate(over="ignore"):  # becomes inf, which the loader reports by layer
        return dataset[()].astype(np.float32)


def _is_wrapped_model(name: str, weight_names: list[str], known: set[str]) -> bool:
    # Names of Keras 1 have no slash ("conv1_W:0") and so no owner.
    owners = {weight.split("/")[0] for weight in weight_names if "/" in weight}
    return len(owners) > 1 and name != RPN_MODEL and name not in known


def _by_owner(weights: list[tuple[str, np.ndarray]], known: set[str]) -> dict[str, list[np.ndarray]]:
    known = known | set(RPN_LAYERS)
    layers: dict[str, list[np.ndarray]] = {}
    for weight, array in weights:
        owner = weight.split("/")[0]
        bare = re.sub(r"_\d+$", "", owner)
        layers.setdefault(bare if owner not in known and bare in known else owner, []).append(array)
    rpn = [array for layer in RPN_LAYERS for array in layers.pop(layer, [])]
    return layers | ({RPN_MODEL: rpn} if rpn else {})


def write_weight_file(path: str | os.PathLike, layers: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """Write {layer name: {weight name: array}} in the layout of Keras 2.2, in the order given.

    Weight names carry their layer's name ("conv1/kernel:0"). Arrays are stored as float32. The
    file appears under its name only when it is complete; until then, and after any failure, a
    file that was there before stays as it was.

    Raises OSError (its errno kept) with path, needed size and cure if the file cannot be written.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        # Through a Python file a full disk is an OSError with its errno; h5py's own driver reports
        # it only on closing, as a RuntimeError.
        with temporary.open("x+b") as stream:
            with h5py.File(stream, "w") as file:
                _write_layers(file, layers)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        raise _write_error(path, layers, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _write_layers(file: h5py.File, layers: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    _set_name_list(file.attrs, "layer_names", layers)
    file.attrs["backend"] = np.bytes_(b"tensorflow")  # tells readers the order of the kernel axes
    file.attrs["keras_version"] = np.bytes_(b"2.2.5")
    for layer, weights in layers.items():
        group = file.create_group(layer)
        _set_name_list(group.attrs, "weight_names", weights)
        for name, array in weights.items():
            group.create_dataset(name, data=np.asarray(array, np.float32))


def _set_name_list(attributes: h5py.AttributeManager, key: str, names: Iterable[str]) -> None:
    """Store names as fixed-length bytes, in numbered chunks if one attribute cannot hold them."""
    values = np.array([name.encode("utf8") for name in names])
    if values.nbytes <= ATTRIBUTE_LIMIT:
        attributes[key] = values
        return
    chunk_size = ATTRIBUTE_LIMIT // values.itemsize
    for index, start in enumerate(range(0, len(values), chunk_size)):
        attributes[f"{key}{index}"] = values[start : start + chunk_size]


def _write_error(path: Path, layers: Mapping[str, Mapping[str, np.ndarray]], error: Exception) -> OSError:
    needed = sum(4 * array.size for weights in layers.values() for array in weights.values())
    cause = getattr(error, "strerror", None) or error
    if path.parent.is_dir():
        free = f"{shutil.disk_usage(path.parent).free:,} are free"
        cure = "Free space or choose a folder you may write to"
    else:
        free, cure = "which is no folder", "Create it"
    return OSError(
        getattr(error, "errno", None) or errno.EIO,
        f"Could not write the weights: {cause}. About {needed:,} bytes are needed in "
        f"{path.parent}, {free}. {cure}; a file that was there before is unchanged",
        str(path),
    )


def reference_order(names: Iterable[str], training: bool) -> list[str]:
    """Sort layer names as the original lists them, so that it can read a file by position.

    ResNet in the order of execution, pyramid, `rpn_model`, then the heads: of a training model
    interleaved by depth, of an inference model class head before mask head. Another backbone keeps
    the order it is given in; layers the original does not have come last.
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
