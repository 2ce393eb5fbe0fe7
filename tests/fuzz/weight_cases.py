"""Damage weight files, as a stranger could, and read them.

    python tests/fuzz/weight_cases.py KIND FIRST LAST

KIND is h5, pth, pkl or safetensors. The rest is as in `image_cases`.
"""

import io
import json
import pickle
import pickletools
import struct
import zipfile

import h5py
import image_cases
import numpy as np
from image_cases import check_error, damage_bytes, damage_zip

from mrcnn.checkpoints import foreign
from mrcnn.checkpoints.foreign.pth import MAGIC_NUMBER
from mrcnn.checkpoints.model_info import ModelInfo, model_info, write_attributes
from mrcnn.checkpoints.weight_files import read_weight_file
from mrcnn.errors import DataError

LARGEST_TOTAL = 64 << 20  # bytes of the arrays of a small file
KERNEL = np.arange(24, dtype=np.float32).reshape(4, 6)
SETTINGS = {"NAME": "toy", "NUM_CLASSES": 3, "MEAN_PIXEL": [1.0, 2.0, 3.0], "CALLABLES": {"BACKBONE": "own"}}

# --- Whole files ---


def h5_files():
    for layers in (("conv1", "bn"), ("rpn_model",)):
        file = io.BytesIO()
        with h5py.File(file, "w") as weights:
            write_layers(weights, layers)
            write_attributes(weights, ModelInfo(SETTINGS, ("BG", "a", "b"), {"epoch": 3.0}, "1").attributes())
        yield file.getvalue()
    file = io.BytesIO()
    with h5py.File(file, "w") as weights:
        write_layers(weights.create_group("model_weights"), ("conv1",))
    yield file.getvalue()


def write_layers(group, layers):
    group.attrs["layer_names"] = np.array([name.encode() for name in layers])
    for name in layers:
        layer = group.create_group(name)
        layer.attrs["weight_names"] = np.array([f"{name}/kernel:0".encode(), f"{name}/bias:0".encode()])
        layer.create_dataset(f"{name}/kernel:0", data=np.ones((3, 3, 2, 4), np.float32), compression="gzip")
        layer.create_dataset(f"{name}/bias:0", data=np.ones(4, np.float32))


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value


def tensor(dtype=b"FloatStorage", shape=b"K\x04K\x06\x86", strides=b"K\x06K\x01\x86"):
    """The instructions of a pickle that describe a tensor of 24 values in the storage "0"."""
    storage = b"(" + text(b"storage") + b"ctorch\n" + dtype + b"\n" + text(b"0") + text(b"cpu") + b"K\x18tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00" + shape + strides + b"\x89NtR"


def state_pickle():
    entries = text(b"a") + tensor() + text(b"b") + tensor(shape=b"K\x18\x85", strides=b"K\x01\x85")
    return b"\x80\x02ccollections\nOrderedDict\n)R(" + entries + b"u."


def pth_zip(content):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("w/data.pkl", content)
        archive.writestr("w/byteorder", "little")
        archive.writestr("w/data/0", KERNEL.tobytes())
    return file.getvalue()


def pth_old(content):
    parts = (MAGIC_NUMBER, 1001, {"little_endian": True})
    start = b"".join(pickle.dumps(part, 2) for part in parts)
    return start + content + pickle.dumps(["0"], 2) + struct.pack("<q", KERNEL.size) + KERNEL.tobytes()


def pth_files():
    yield pth_zip(state_pickle())
    yield pth_old(state_pickle())


def pkl_files():
    for protocol in (2, 3, 4, 5):
        yield pickle.dumps({"model": {"a": KERNEL, "b": KERNEL[0].astype(np.float64)}}, protocol)


def safetensors_file(header):
    content = json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + KERNEL.tobytes()


def safetensors_header():
    return {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [3, 4], "data_offsets": [0, 48]},
        "b": {"dtype": "F16", "shape": [24], "data_offsets": [48, 96]},
    }


def safetensors_files():
    yield safetensors_file(safetensors_header())


# --- Damage ---


def damage_h5(content, rng):
    """Change a weight file as a stranger could: links, storage elsewhere, kinds, shapes, names, numbers."""
    file = io.BytesIO(content)
    try:
        with h5py.File(file, "r+") as weights:
            damage_weights(weights, rng)
    except (OSError, RuntimeError, KeyError, ValueError, TypeError):
        return damage_bytes(content, rng)
    return file.getvalue()


def damage_weights(weights, rng):
    root = weights.get("model_weights", weights)
    name = rng.choice(list(root))
    layer = root[name]
    inner = f"{name}/{rng.choice(('kernel:0', 'bias:0'))}"
    elsewhere = rng.choice(("/etc/passwd", "/dev/zero", "other.h5"))
    choice = rng.randrange(11)
    if choice < 6:
        del layer[inner]
    if choice == 0:
        layer[inner] = rng.choice(
            (h5py.ExternalLink(elsewhere, "x"), h5py.SoftLink("/y"), h5py.SoftLink("."))
        )
    elif choice == 1:
        layer.create_dataset(inner, (100,), np.float32, external=[(elsewhere, 0, 400)])
    elif choice == 2:
        layout = h5py.VirtualLayout((100,), np.float32)
        layout[:] = h5py.VirtualSource(elsewhere, "x", (100,))
        layer.create_virtual_dataset(inner, layout)
    elif choice == 3:
        layer.create_dataset(inner, rng.choice(((26_000, 26_000), (2**40,), (0,), (2**31, 2**20), ())), "f4")
    elif choice == 4:
        kinds = (
            h5py.string_dtype(),
            h5py.ref_dtype,
            "complex64",
            [("a", "f4")],
            "S5",
            h5py.vlen_dtype("f4"),
            bool,
        )
        layer.create_dataset(inner, (3,), rng.choice(kinds))
    elif choice == 5:
        rng.choice((layer.create_group, lambda path: layer.create_dataset(path, data=h5py.Empty("f4"))))(
            inner
        )
    elif choice == 6:
        key = rng.choice(("layer_names", "weight_names"))
        owner = root if key == "layer_names" else layer
        values = (
            np.array([b"\xff\xfe", b"x"]),
            7,
            0.5,
            np.zeros((2, 2)),
            h5py.Empty("f4"),
            "..",
            "/",
            [b"a/b"] * 3,
        )
        owner.attrs[key] = rng.choice(values)
    elif choice == 7:
        layer[inner][...] = rng.choice((np.nan, np.inf, -1e38))
    elif choice < 10:
        damage_settings(weights, rng)
    else:
        del rng.choice((root, layer)).attrs[
            rng.choice(list(root.attrs) if rng.random() < 0.5 else ["weight_names"])
        ]


def damage_settings(weights, rng):
    """Change the texts about the model."""
    name = rng.choice([name for name in weights.attrs if name.startswith("mrcnn_")] or ["mrcnn_settings"])
    values = (
        damage_bytes(bytes(weights.attrs.get(name, b"{}")), rng).replace(b"\0", b" ") or b" ",
        b"[" * 5000,
        b'{"NUM_CLASSES": 1e999, "validate": 1}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"null",
        7,
        np.zeros((2, 2)),
        h5py.Empty("f4"),
    )
    value = rng.choice(values)
    weights.attrs[name] = np.bytes_(value[:60_000]) if isinstance(value, bytes) else value


# Instructions of pickles: values, containers, imports, calls, the memo.
INSTRUCTIONS = (
    *(b"N", b"\x88", b"K\x07", b"J\xff\xff\xff\x7f", b"\x8a\x09" + b"\xff" * 8 + b"\x7f", b"G" + bytes(8)),
    *(
        text(b"model"),
        text(b"x"),
        b"C\x02ab",
        b"(",
        b")",
        b"}",
        b"]",
        b"t",
        b"\x85",
        b"\x86",
        b"\x87",
        b"l",
        b"d",
    ),
    *(
        b"a",
        b"e",
        b"s",
        b"u",
        b"0",
        b"1",
        b"2",
        b"R",
        b"b",
        b"Q",
        b"\x81",
        b"\x93",
        b"\x94",
        b"q\x00",
        b"h\x00",
    ),
    *(b"cos\nsystem\n", b"ctorch\nSize\n", b"ctorch\nHalfStorage\n", b"."),
)
# A value that holds another twice, level by level: its text would have no end.
LAUGHS = b"K\x01\x85q\x50" + b"".join(b"h" + bytes([i]) + b"\x86q" + bytes([i + 1]) for i in range(80, 140))


def damage_pickle(content, rng):
    """Insert, remove or exchange instructions."""
    try:
        starts = [position for _, _, position in pickletools.genops(content)]
    except ValueError:
        return damage_bytes(content, rng)
    first, second = sorted((rng.choice(starts), rng.choice(starts)))
    choice = rng.randrange(5)
    if choice == 0:
        return content[:first] + rng.choice(INSTRUCTIONS) + content[first:]
    if choice == 1:
        following = starts[starts.index(first) + 1 :] or [len(content)]
        return content[:first] + rng.choice((b"", rng.choice(INSTRUCTIONS))) + content[following[0] :]
    if choice == 2:
        return content[:first] + content[first:second] * 2 + content[second:]
    if choice == 3:
        start = content[:2] if content[:1] == b"\x80" else b""
        following = starts[starts.index(first) + 1 :] or [len(content)]
        return start + LAUGHS + b"0" + content[len(start) : first] + b"h\x8c" + content[following[0] :]
    return damage_bytes(content, rng)


def damage_pth(content, rng):
    choice = rng.randrange(5)
    if choice < 2:
        return pth_zip(damage_pickle(state_pickle(), rng))
    if choice < 4:
        return pth_old(damage_pickle(state_pickle(), rng))
    return damage_zip(content, rng) if content.startswith(b"PK") else damage_bytes(content, rng)


def damage_safetensors(content, rng):
    """Change a value of the header; its length stays right."""
    header = safetensors_header()
    values = (-1, 0, 7, 2**31, 2**70, 0.5, None, "F32", "F64", "x", [], [1, 2], [2**40, 2**40], {}, [[1]] * 3)
    target = rng.choice((header, header["a"], header["a"], header["b"], header["b"]))
    target[rng.choice(list(target))] = rng.choice(values)
    if rng.random() < 0.3:
        header[rng.choice(("a", "c"))] = rng.choice((*values, header["b"]))
    return safetensors_file(header)


# --- Reading ---


def check_weights(path):
    """Read a weight file, and what it says about its model. Returns whether both worked."""
    try:
        layers = read_weight_file(path)
        model_info(path)
    except DataError as error:
        check_error(error, path)
        return 0
    assert all(array.dtype == np.float32 for arrays in layers.values() for array in arrays)
    assert sum(array.nbytes for arrays in layers.values() for array in arrays) <= LARGEST_TOTAL
    return 1


def check_foreign(path):
    """Read a file of another library. Returns whether it was read."""
    try:
        state = foreign.read_state(path)
    except DataError as error:
        check_error(error, path)
        assert len(str(error)) < 2000, "a message without end"
        return 0
    assert all(array.dtype == np.float32 for array in state.values())
    assert sum(array.nbytes for array in state.values()) <= LARGEST_TOTAL
    return 1


DAMAGE = {"h5": damage_h5, "pth": damage_pth, "pkl": damage_pickle, "safetensors": damage_safetensors}
CHECKS = {"h5": check_weights, **dict.fromkeys(("pth", "pkl", "safetensors"), check_foreign)}

image_cases.FILES.update({kind: list(globals()[f"{kind}_files"]()) for kind in DAMAGE})
image_cases.AWARE.update(DAMAGE)
image_cases.CHECKS.update(CHECKS)

if __name__ == "__main__":
    image_cases.main()
