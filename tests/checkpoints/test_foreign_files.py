"""Readers of .pth, .safetensors and .pkl: the numbers of their writers, nothing executed, sizes bounded."""

import argparse
import collections
import io
import json
import os
import pickle
import zipfile

import numpy as np
import pytest

from mrcnn.checkpoints import foreign
from mrcnn.checkpoints.foreign import pickles
from mrcnn.checkpoints.foreign.detectron2 import read_numpy_pickle
from mrcnn.checkpoints.foreign.pth import read_pth
from mrcnn.checkpoints.foreign.safetensors import read_safetensors
from mrcnn.errors import InvalidDataError, MissingFileError, UnreadableFileError

FORMS = {"zip": {}, "old": {"_use_new_zipfile_serialization": False}, "protocol 4": {"pickle_protocol": 4}}


def assert_equal(got, want):
    assert list(got) == list(want)
    for key, values in want.items():
        assert got[key].dtype == np.float32, key
        assert got[key].flags.c_contiguous, key
        np.testing.assert_array_equal(got[key], values, err_msg=key)


# ---------------------------------------------------------------- PyTorch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def tensors(torch):
    """Tensors of all kinds that checkpoints have."""
    torch.manual_seed(0)
    values = torch.randn(4, 3, 5, 5)
    shared = torch.randn(10)
    return collections.OrderedDict(
        kernel=values,
        half=values.half(),
        brain=values.bfloat16(),
        double=values.double(),
        channels_last=values.to(memory_format=torch.channels_last),
        transposed=values[0, 0].T,
        part=shared[2:7],
        whole=shared,
        count=torch.tensor(3),
        flags=torch.tensor([True, False]),
        parameter=torch.nn.Parameter(values[0].clone()),
        empty=torch.zeros(0, 3),
    )


def as_arrays(state):
    return {key: value.detach().float().numpy() for key, value in state.items()}


@pytest.mark.parametrize("form", FORMS)
def test_pth_has_the_numbers_of_torch(torch, tmp_path, form):
    state = tensors(torch)
    torch.save(state, tmp_path / "w.pth", **FORMS[form])
    assert_equal(read_pth(tmp_path / "w.pth"), as_arrays(state))
    assert_equal(foreign.read_state(tmp_path / "w.pth"), as_arrays(state))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("key", ["model", "state_dict"])
def test_state_dict_inside_a_checkpoint(torch, tmp_path, form, key):
    """What else is in the checkpoint is ignored: it may be of classes that do not exist here."""
    state = tensors(torch)
    checkpoint = {
        "loss": torch.tensor(2.0),
        key: state,
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"lr": 0.1}]},
        "args": argparse.Namespace(epochs=3),
    }
    torch.save(checkpoint, tmp_path / "w.pth", **FORMS[form])
    assert_equal(read_pth(tmp_path / "w.pth"), as_arrays(state))


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod."])
def test_prefixes_of_wrappers_are_removed(torch, tmp_path, prefix):
    state = tensors(torch)
    torch.save({prefix + key: value for key, value in state.items()}, tmp_path / "w.pth")
    assert_equal(read_pth(tmp_path / "w.pth"), as_arrays(state))


def test_a_whole_model_is_refused_with_the_way_out(torch, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "w.pth")
    with pytest.raises(
        InvalidDataError, match=r"w\.pth: the file must hold a state dict.*Linear.*torch\.save\(model\.st"
    ):
        read_pth(tmp_path / "w.pth")


def rewritten(path, change):
    """Replace members of a zip archive: `change` maps a name and its content to (content, compression)."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            content, compression = change(name.partition("/")[2], content)
            if content is not None:
                archive.writestr(name, content, compression)


def test_compressed_members_are_refused(torch, tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "w.pth")
    rewritten(tmp_path / "w.pth", lambda name, content: (content, zipfile.ZIP_DEFLATED))
    with pytest.raises(InvalidDataError, match="compressed"):
        read_pth(tmp_path / "w.pth")


def test_storages_that_are_too_short_or_missing(torch, tmp_path):
    torch.save({"a": torch.zeros(1000)}, tmp_path / "w.pth")
    content = (tmp_path / "w.pth").read_bytes()

    def short(name, content):
        return content[:400] if name == "data/0" else content, zipfile.ZIP_STORED

    def missing(name, content):
        return None if name == "data/0" else content, zipfile.ZIP_STORED

    for change in (short, missing):
        (tmp_path / "w.pth").write_bytes(content)
        rewritten(tmp_path / "w.pth", change)
        with pytest.raises(InvalidDataError, match=r"w\.pth: the file is not a usable PyTorch file"):
            read_pth(tmp_path / "w.pth")


@pytest.mark.parametrize(
    ("shape", "stride"),
    [((10**6, 10**6), (0, 0)), ((2, 3), (100, 1)), ((7,), (1,)), ((-1,), (1,)), ((2,), ())],
)
def test_tensors_beyond_their_storage(tmp_path, shape, stride):
    write_pth(tmp_path / "w.pth", tensor(b"0", shape, stride, count=6), {"0": np.zeros(6, "f4").tobytes()})
    with pytest.raises(InvalidDataError, match=r"w\.pth: the file is not a usable PyTorch file"):
        read_pth(tmp_path / "w.pth")


def test_many_views_of_one_storage_are_bounded(tmp_path):
    count = 10**6
    view = tensor(b"0", (count,), (1,), count=count)
    body = b"(" + b"".join(text(f"k{index}".encode()) + view for index in range(100)) + b"u"
    write_pth(tmp_path / "w.pth", None, {"0": bytes(4 * count)}, body=b"}" + body)
    with pytest.raises(InvalidDataError, match="more than a file of this size can hold"):
        read_pth(tmp_path / "w.pth")


@pytest.mark.parametrize("place", ["storage", "size", "import", "top"])
def test_values_that_hold_each_other_have_a_short_text(tmp_path, place):
    """Each of 60 tuples holds the one before twice: the text of the last one would never end."""
    nested = (
        number(1)
        + b"\x85q\x00"
        + b"".join(b"h" + bytes([level]) + b"\x86q" + bytes([level + 1]) for level in range(60))
    )
    get = b"h\x3c"
    storage_type = get if place == "storage" else b"ctorch\nFloatStorage\n"
    storage = b"(" + text(b"storage") + storage_type + text(b"0") + text(b"cpu") + number(1) + b"tQ"
    shape = get if place == "size" else numbers([1])
    value = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(0) + shape + numbers([1]) + b"tR"
    value = get * 2 + b"\x93" if place == "import" else value
    body = nested + b"0" + (get if place == "top" else b"}" + text(b"a") + value + b"s")
    write_pth(tmp_path / "w.pth", None, {"0": bytes(4)}, body=body)
    with pytest.raises(InvalidDataError, match=r"w\.pth: the file") as raised:
        read_pth(tmp_path / "w.pth")
    assert len(str(raised.value)) < 1000


def test_sizes_of_numpy_arrays_are_whole_numbers(tmp_path):
    """A number times a tuple repeats the tuple, and bytes of a number are so many zeros."""
    for shape, data in (((2**40, (1,)), b"1234"), ((2,), 2**40)):
        state = (1, shape, NumpyType(), False, data)
        (tmp_path / "w.pkl").write_bytes(pickle.dumps({"a": NumpyArray(state)}, 2))
        with pytest.raises(InvalidDataError, match=r"w\.pkl: the file is not a usable pickle"):
            read_numpy_pickle(tmp_path / "w.pkl")


class NumpyArray:
    """Pickled as NumPy pickles an array, with a state of one's own."""

    def __init__(self, state):
        self.state = state

    def __reduce__(self):
        return np.zeros(1).__reduce__()[0], (np.ndarray, (0,), b"b"), self.state


class NumpyType:
    def __reduce__(self):
        return np.dtype, ("f4", False, True), (3, "<", None, None, None, -1, -1, 0)


# --- Pickles by hand ---


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value


def number(value):
    return b"J" + value.to_bytes(4, "little", signed=True)


def numbers(values):
    return b"(" + b"".join(map(number, values)) + b"t"


def tensor(key, shape, stride, count):
    """The instructions that describe a float tensor."""
    storage = b"(" + text(b"storage") + b"ctorch\nFloatStorage\n" + text(key) + text(b"cpu") + number(count)
    arguments = b"(" + storage + b"tQ" + number(0) + numbers(shape) + numbers(stride) + b"\x89Nt"
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def write_pth(path, value, storages, body=None):
    body = b"}" + text(b"a") + value + b"s" if body is None else body
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02" + body + b".")
        for key, content in storages.items():
            archive.writestr(f"w/data/{key}", content)


def test_pth_written_by_hand(tmp_path):
    """The format itself, where PyTorch is not installed."""
    values = np.arange(6, dtype="<f4")
    write_pth(tmp_path / "w.pth", tensor(b"0", (2, 3), (3, 1), count=6), {"0": values.tobytes()})
    assert_equal(read_pth(tmp_path / "w.pth"), {"a": values.reshape(2, 3)})


def test_big_endian(tmp_path):
    values = np.arange(6, dtype=">f4")
    path = tmp_path / "w.pth"
    write_pth(path, tensor(b"0", (2, 3), (3, 1), count=6), {"0": values.tobytes()})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("w/byteorder", "big")
    assert_equal(read_pth(path), {"a": values.reshape(2, 3)})


def code(path):
    """Instructions that would create a file: os.mknod(path)."""
    return b"cposix\nmknod\n(" + text(os.fsencode(path)) + b"tR"


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mknod, (str(self.path),)


def test_nothing_is_executed(tmp_path):
    """The first lines show that Python's own reader would execute it."""
    created = tmp_path / "created"
    pickle.loads(b"\x80\x02" + code(created) + b".")
    assert created.exists()
    created.unlink()

    values = np.arange(6, dtype="<f4")
    good = text(b"a") + tensor(b"0", (6,), (1,), count=6)
    write_pth(
        tmp_path / "w.pth",
        None,
        {"0": values.tobytes()},
        body=b"}(" + good + text(b"b") + code(created) + b"u",
    )
    assert_equal(read_pth(tmp_path / "w.pth"), {"a": values})

    for protocol in range(2, 6):
        path = tmp_path / "w.pkl"
        path.write_bytes(pickle.dumps({"model": {"a": values}, "b": Attack(created)}, protocol))
        assert_equal(read_numpy_pickle(path), {"a": values})
        path.write_bytes(pickle.dumps(Attack(created), protocol))
        with pytest.raises(InvalidDataError, match=r"must hold a state dict.*mknod"):
            read_numpy_pickle(path)
    assert not created.exists()


@pytest.mark.parametrize(
    "instructions",
    [
        b"}r\xff\xff\xff\x7fs.",  # a memo of 2 ** 31 entries
        b"\x8e" + (2**62).to_bytes(8, "little") + b"a.",  # bytes of that length
        b"\x8d" + (2**62).to_bytes(8, "little") + b"a.",  # a text of that length
        b"\x8b" + (2**31 - 1).to_bytes(4, "little") + b"a.",  # an integer of that length
        b"(" * 100_000 + b".",
        b"]" * 100_000 + b"a" * 100_000 + b".",
        b"\x82\x01.",  # an extension
        b"cos\nsystem\n.",
        b"R.",
        b"s.",
        b"",
    ],
)
def test_pickles_that_exhaust_or_surprise(instructions):
    with pytest.raises(pickles.PickleError):
        parsed = pickles.parse(io.BytesIO(b"\x80\x04" + instructions))
        assert parsed.value == pickles.Global("os.system")
        raise pickles.PickleError


def test_a_key_whose_hash_would_take_for_ever():
    doubled = b")" + b"q\x00h\x00\x86" * 60
    with pytest.raises(pickles.PickleError, match="keys of type tuple"):
        pickles.parse(io.BytesIO(b"\x80\x02}" + doubled + b"Ns."))


# ---------------------------------------------------------------- Detectron2


@pytest.mark.parametrize("protocol", range(2, 6))
def test_numpy_pickle(tmp_path, protocol):
    arrays = {
        "kernel": np.arange(6, dtype="f4").reshape(2, 3),
        "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "half": np.arange(3, dtype=">f2"),
        "empty": np.zeros((0, 4), "f4"),
    }
    ignored = {"scalar": np.float32(3), "objects": np.array([None]), "name": "R50"}
    content = {"model": arrays | ignored, "__author__": "Detectron2 Model Zoo"}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(content, protocol))
    assert_equal(foreign.read_state(tmp_path / "w.pkl"), arrays)


def test_array_that_states_more_than_it_has(tmp_path):
    content = pickle.dumps({"model": {"a": np.zeros((2, 3), "f4")}}, 2)
    assert content.count(b"K\x02K\x03") == 1
    (tmp_path / "w.pkl").write_bytes(content.replace(b"K\x02K\x03", b"K\x02K\xff"))
    with pytest.raises(InvalidDataError, match=r"w\.pkl: the file is not a usable pickle.*24 bytes"):
        read_numpy_pickle(tmp_path / "w.pkl")


# ---------------------------------------------------------------- safetensors


def write_safetensors(path, header, data=b"", length=None):
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    length = len(encoded) if length is None else length
    path.write_bytes(length.to_bytes(8, "little") + encoded + data)
    return path


def entry(dtype, shape, first, end):
    return {"dtype": dtype, "shape": shape, "data_offsets": [first, end]}


def test_safetensors(tmp_path):
    kernel, half = np.arange(6, dtype="<f4"), np.arange(3, dtype="<f2")
    brain = np.array([1.5, -2.0], "<f4")
    data = half.tobytes() + (brain.view("<u4") >> 16).astype("<u2").tobytes() + kernel.tobytes()
    header = {
        "__metadata__": {"format": "pt"},
        "module.kernel": entry("F32", [2, 3], 10, 34),
        "module.half": entry("F16", [3], 0, 6),
        "module.brain": entry("BF16", [2], 6, 10),
        "module.empty": entry("I64", [0, 2], 34, 34),
    }
    path = write_safetensors(tmp_path / "w.safetensors", header, data)
    want = {"kernel": kernel.reshape(2, 3), "half": half, "brain": brain, "empty": np.zeros((0, 2))}
    assert_equal(foreign.read_state(path), want)


def test_a_file_that_was_read_is_not_read_again(tmp_path):
    key, values = foreign.KINDS["torchvision"].marker, np.arange(6, dtype="<f4")
    path = write_safetensors(tmp_path / "w.safetensors", {key: entry("F32", [2, 3], 0, 24)}, values.tobytes())
    file = foreign.ReadFile(path, foreign.read_state(path))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InvalidDataError, match=r"w\.safetensors"):
        foreign.read_state(path)
    assert foreign.read_state(file) is file.state
    assert os.fspath(file) == str(file) == str(path)
    del file.state[key]
    with pytest.raises(
        InvalidDataError, match=r"w\.safetensors: The file holds the weights of no known network"
    ):
        foreign.read_foreign_weights(file)


@pytest.mark.parametrize(
    ("header", "length", "data"),
    [
        (b"{}", 2**60, b""),
        (b"{", None, b""),
        (b"[]", None, b""),
        (b"\xff\xff", None, b""),
        (b'{"a":' * 10_000, None, b""),
        ({"a": 3}, None, b""),
        ({"a": {}}, None, b""),
        ({"a": entry("F32", [1], 0, 4)}, None, b""),
        ({"a": entry("F32", [2], 0, 4)}, None, b"1234"),
        ({"a": entry("F32", [1], 4, 8)}, None, b"12345678"),
        ({"a": entry("F32", [1], 0, 4)}, None, b"12345678"),
        ({"a": entry("F32", [1], 0, 4), "b": entry("F32", [1], 0, 4)}, None, b"1234"),
        ({"a": entry("F32", [-1, -1], 0, 4)}, None, b"1234"),
        ({"a": entry("F32", [1.0], 0, 4)}, None, b"1234"),
        ({"a": entry("F32", [10**30, 0], 0, 0)}, None, b""),
        ({"a": entry("F8_E4M3", [4], 0, 4)}, None, b"1234"),
        ({"a": entry("F32", "1", 0, 4)}, None, b"1234"),
        (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{}}', None, b"1"),
    ],
)
def test_damaged_safetensors(tmp_path, header, length, data):
    path = write_safetensors(tmp_path / "w.safetensors", header, data, length)
    with pytest.raises(InvalidDataError, match=r"w\.safetensors"):
        read_safetensors(path)


# ---------------------------------------------------------------- all formats


def example(folder, form):
    """A small file of each format and its reader."""
    values = np.arange(60, dtype="<f4")
    if form == "safetensors":
        path = write_safetensors(folder / "w", {"a": entry("F32", [60], 0, 240)}, values.tobytes())
        return path, read_safetensors
    if form == "pkl":
        (folder / "w").write_bytes(pickle.dumps({"model": {"a": values, "b": values[:3]}}, 2))
        return folder / "w", read_numpy_pickle
    if form == "old":
        torch = pytest.importorskip("torch")
        torch.save({"a": torch.tensor(values)}, folder / "w", _use_new_zipfile_serialization=False)
        return folder / "w", read_pth
    write_pth(folder / "w", tensor(b"0", (6, 10), (10, 1), count=60), {"0": values.tobytes()})
    return folder / "w", read_pth


@pytest.mark.filterwarnings("ignore:invalid escape sequence:DeprecationWarning")
@pytest.mark.parametrize("form", ["zip", "old", "pkl", "safetensors"])
def test_random_damage_is_an_error_of_ours_or_none(tmp_path, form):
    path, reader = example(tmp_path, form)
    reader(path)
    content = path.read_bytes()
    rng = np.random.default_rng(1)
    errors = 0
    for _ in range(500):
        changed = bytearray(content)
        for _ in range(rng.integers(1, 6)):
            position = int(rng.integers(len(changed)))
            match rng.integers(3):
                case 0:
                    changed[position] = rng.integers(256)
                case 1:
                    del changed[position : position + int(rng.integers(1, 40))]
                case 2:
                    changed[position:position] = changed[position : position + 20]
        path.write_bytes(changed)
        try:
            assert all(array.dtype == np.float32 for array in reader(path).values())
        except InvalidDataError as error:
            assert str(path) in str(error)
            errors += 1
    assert errors > 100


@pytest.mark.parametrize("content", [b"", b"text", b"\x89HDF\r\n\x1a\n", bytes(100)])
def test_files_of_another_format(tmp_path, content):
    (tmp_path / "w.pth").write_bytes(content)
    assert not foreign.is_foreign_file(tmp_path / "w.pth")
    with pytest.raises(
        InvalidDataError, match=r"w\.pth: the file must be a \.pth, \.safetensors or \.pkl file"
    ):
        foreign.read_state(tmp_path / "w.pth")


def test_zip_archive_of_something_else(tmp_path):
    with zipfile.ZipFile(tmp_path / "w.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    with pytest.raises(InvalidDataError, match=r"not a PyTorch file.*keras\.models\.load_model"):
        foreign.read_state(tmp_path / "w.keras")


def test_missing_file_folder_and_fifo(tmp_path):
    with pytest.raises(MissingFileError, match=r"w\.pth"):
        foreign.read_state(tmp_path / "w.pth")
    with pytest.raises(UnreadableFileError, match="folder"):
        foreign.read_state(tmp_path)
    os.mkfifo(tmp_path / "w.pth")
    with pytest.raises(UnreadableFileError, match="FIFO"):
        foreign.read_state(tmp_path / "w.pth")
