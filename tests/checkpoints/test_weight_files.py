import json
import os

import golden_files
import h5py
import numpy as np
import pytest

from mrcnn.checkpoints import weight_files
from mrcnn.errors import InvalidDataError, UnreadableFileError

STRUCTURES = golden_files.golden_paths("structure_*.json")


def write_h5(path, groups, root="/", layer_names=None, as_text=False):
    """A file by hand: {group: [(weight name, array)]}, attributes as bytes or as text."""

    def names(values):
        if as_text:
            return np.array(list(values), dtype=h5py.string_dtype())
        return np.array([value.encode() for value in values]) if values else np.zeros((0,))

    with h5py.File(path, "w") as file:
        top = file.require_group(root)
        for key, value in (layer_names or {"layer_names": list(groups)}).items():
            top.attrs[key] = names(value)
        for group, weights in groups.items():
            node = top.create_group(group)
            node.attrs["weight_names"] = names([name for name, _ in weights])
            for name, array in weights:
                node.create_dataset(name, data=array)
    return path


def kernel_and_bias(layer, seed=0, shape=(2, 3)):
    rng = np.random.default_rng(seed)
    kernel, bias = rng.normal(size=shape), rng.normal(size=shape[-1:])
    return [
        (f"{layer}/kernel:0", kernel.astype("f4")),
        (f"{layer}/bias:0", bias.astype("f4")),
    ]


def arrays(*groups):
    return [array for group in groups for _, array in group]


def assert_same(got, want):
    assert len(got) == len(want)
    for a, b in zip(got, want, strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)


# ---------------------------------------------------------------- recorded structures


def size_of(path):
    layers = json.loads(path.read_text())["layers"]
    return sum(np.prod(weight["shape"]) for layer in layers for weight in layer["weights"])


def checksums():
    """{structure: {weight name: (sum, sum of squares)}} as recorded."""
    found = golden_files.golden_paths("recipe_checksums.json")
    return json.loads(found[0].read_text()) if found else {}


def recipe_params():
    recorded = checksums()
    paths = [path for path in STRUCTURES if path.stem in recorded]
    if not paths:
        return golden_files.golden_params("recipe_checksums.json")
    smallest = min(paths, key=size_of)
    return [
        pytest.param(path, id=path.stem, marks=() if path == smallest else pytest.mark.slow) for path in paths
    ]


@pytest.mark.parametrize("structure", recipe_params())
def test_recipe_weights_are_read_in_order_with_their_checksums(structure, tmp_path):
    path = golden_files.recipe_weights(structure.name, "", tmp_path)
    layers = weight_files.read_weight_file(path)
    path.unlink()
    recorded = checksums()[structure.stem]
    layout = json.loads(structure.read_text())["layers"]
    assert list(layers) == [layer["layer"] for layer in layout]
    for layer in layout:
        for weight, array in zip(layer["weights"], layers[layer["layer"]], strict=True):
            assert array.dtype == np.float32
            assert list(array.shape) == weight["shape"]
            values = array.astype(np.float64)
            total, squares = recorded[weight["name"]]
            tolerance = 1e-6 * np.sqrt(values.size * squares)
            np.testing.assert_allclose(values.sum(), total, rtol=0, atol=tolerance)
            np.testing.assert_allclose((values**2).sum(), squares, rtol=1e-6)


@pytest.mark.parametrize("structure", golden_files.golden_params("structure_*.json"))
def test_order_of_groups_is_the_recorded_one(structure):
    content = json.loads(structure.read_text())
    names = [layer["layer"] for layer in content["layers"] if layer["weights"]]
    training = any(layer["layer"] == "input_gt_boxes" for layer in content["layers"])
    shuffled = list(np.random.default_rng(0).permutation(names))
    assert weight_files.reference_order(shuffled, training) == names


# ---------------------------------------------------------------- order


def test_another_backbone_keeps_its_order_before_the_pyramid():
    given = ["mrcnn_mask", "stem", "fpn_p2", "conv1", "block_b", "mrcnn_extra", "rpn_model", "a"]
    assert weight_files.reference_order(given, training=False) == (
        ["stem", "conv1", "block_b", "a", "fpn_p2", "rpn_model", "mrcnn_mask", "mrcnn_extra"]
    )


def test_blocks_past_z_and_foreign_layers_of_a_resnet():
    given = ["my_layer", "res4{_branch2a", "bn4z_branch2c", "res4b_branch2a", "bn_conv1", "conv1"]
    assert weight_files.reference_order(given, training=True) == (
        ["conv1", "bn_conv1", "res4b_branch2a", "bn4z_branch2c", "res4{_branch2a", "my_layer"]
    )


# ---------------------------------------------------------------- reading


@pytest.mark.parametrize("as_text", [False, True], ids=["bytes", "text"])
@pytest.mark.parametrize("root", ["/", "model_weights"])
def test_root_and_kind_of_names(tmp_path, root, as_text):
    conv, dense = kernel_and_bias("conv1"), kernel_and_bias("mrcnn_class_logits", 1)
    groups = {"input_image": [], "conv1": conv, "mrcnn_class_logits": dense}
    path = write_h5(tmp_path / "w.h5", groups, root, as_text=as_text)
    layers = weight_files.read_weight_file(path)
    assert list(layers) == ["input_image", "conv1", "mrcnn_class_logits"]
    assert layers["input_image"] == []
    assert_same(layers["conv1"], arrays(conv))
    assert_same(layers["mrcnn_class_logits"], arrays(dense))


def test_weights_go_by_position_and_not_by_name(tmp_path):
    array = np.arange(4, dtype="f4")
    weights = [
        ("mrcnn_bbox_fc_1/kernel:0", array.reshape(1, 4)),
        ("mrcnn_bbox_fc_1/bias:0", array),
    ]
    path = write_h5(tmp_path / "w.h5", {"mrcnn_bbox_fc": weights})
    layers = weight_files.read_weight_file(path, known_layers=["mrcnn_bbox_fc"])
    assert_same(layers["mrcnn_bbox_fc"], arrays(weights))


def test_keras_1_names_without_a_slash(tmp_path):
    names = ("gamma", "beta", "running_mean", "running_std")
    batch_norm = [(f"bn_conv1_{name}:0", np.full(2, i, "f4")) for i, name in enumerate(names)]
    conv = [("conv1_W:0", np.ones((1, 1, 3, 2), "f4")), ("conv1_b:0", np.zeros(2, "f4"))]
    path = write_h5(tmp_path / "w.h5", {"conv1": conv, "bn_conv1": batch_norm})
    layers = weight_files.read_weight_file(path)
    assert list(layers) == ["conv1", "bn_conv1"]
    assert_same(layers["conv1"], arrays(conv))
    assert_same(layers["bn_conv1"], arrays(batch_norm))


def test_lists_of_names_in_chunks(tmp_path):
    first, second = kernel_and_bias("conv1"), kernel_and_bias("res2a_branch2a", 1)
    path = tmp_path / "w.h5"
    chunks = {"layer_names0": ["conv1"], "layer_names1": ["res2a_branch2a"]}
    write_h5(path, {"conv1": first, "res2a_branch2a": second}, layer_names=chunks)
    with h5py.File(path, "r+") as file:
        attributes = file["conv1"].attrs
        names = attributes["weight_names"]
        del attributes["weight_names"]
        attributes["weight_names0"], attributes["weight_names1"] = names[:1], names[1:]
    layers = weight_files.read_weight_file(path)
    assert list(layers) == ["conv1", "res2a_branch2a"]
    assert_same(layers["conv1"], arrays(first))


RPN = ("rpn_conv_shared", "rpn_class_raw", "rpn_bbox_pred")


def multi_gpu_groups(suffix=""):
    """What a multi-GPU model stores: everything under its inner model, trainable weights first."""
    conv = kernel_and_bias(f"conv1{suffix}", 0)
    batch_norm = [
        (f"bn_conv1{suffix}/{name}:0", np.full(3, i, "f4"))
        for i, name in enumerate(("gamma", "beta", "moving_mean", "moving_variance"))
    ]
    rpn = {name: kernel_and_bias(f"{name}{suffix}", i) for i, name in enumerate(RPN, start=5)}
    logits = kernel_and_bias(f"mrcnn_class_logits{suffix}", 2)
    trainable = [*conv, *batch_norm[:2], *rpn["rpn_bbox_pred"], *rpn["rpn_conv_shared"]]
    inner = [*trainable, *rpn["rpn_class_raw"], *logits, *batch_norm[2:]]
    want = {
        "conv1": arrays(conv),
        "bn_conv1": arrays(batch_norm),
        "rpn_model": arrays(*(rpn[name] for name in RPN)),
        "mrcnn_class_logits": arrays(logits),
    }
    return inner, want


@pytest.mark.parametrize("inner_name", ["mask_rcnn", "model_1"])
@pytest.mark.parametrize("suffix", ["", "_1"])
def test_multi_gpu_file_gives_weights_back_to_their_layers(tmp_path, inner_name, suffix):
    inner, want = multi_gpu_groups(suffix)
    groups = {"input_image": [], "lambda_1": [], inner_name: inner, "mrcnn_class_logits": []}
    path = write_h5(tmp_path / "w.h5", groups)
    layers = weight_files.read_weight_file(path, known_layers=["input_image", *want])
    assert {name for name, values in layers.items() if values} == set(want)
    for name, values in want.items():
        assert_same(layers[name], values)


def test_suffix_in_a_multi_gpu_file_stays_if_the_full_name_is_known_too(tmp_path):
    first, second = kernel_and_bias("head", 1), kernel_and_bias("head_1", 2)
    path = write_h5(tmp_path / "w.h5", {"mask_rcnn": [*first, *second]})
    layers = weight_files.read_weight_file(path, known_layers=["head", "head_1"])
    assert_same(layers["head"], arrays(first))
    assert_same(layers["head_1"], arrays(second))
    assert set(weight_files.read_weight_file(path)) == {"head", "head_1"}


def test_a_known_model_inside_the_model_is_left_whole(tmp_path):
    weights = [*kernel_and_bias("a", 1), *kernel_and_bias("b", 2)]
    path = write_h5(tmp_path / "w.h5", {"encoder": weights})
    assert list(weight_files.read_weight_file(path, known_layers=["encoder"])) == ["encoder"]
    assert set(weight_files.read_weight_file(path)) == {"a", "b"}


@pytest.mark.parametrize("dtype", ["f2", "f8", "i4"])
def test_other_number_types_become_float32(tmp_path, dtype):
    path = write_h5(tmp_path / "w.h5", {"conv1": [("conv1/kernel:0", np.array([1, 2], dtype))]})
    assert_same(weight_files.read_weight_file(path)["conv1"], [np.array([1, 2], "f4")])


# ---------------------------------------------------------------- unreadable files


def test_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.h5"):
        weight_files.read_weight_file(tmp_path / "nothing.h5")


def test_folder_is_no_file(tmp_path):
    with pytest.raises(OSError, match=tmp_path.name):
        weight_files.read_weight_file(tmp_path)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_error_for_part_of_a_file_names_path_size_and_remedy(tmp_path, share):
    path = write_h5(tmp_path / "part.h5", {"conv1": kernel_and_bias("conv1", shape=(100, 50))})
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match=r"part\.h5: the file \([\d,]+ bytes\).*download it again"):
        weight_files.read_weight_file(path)


def test_text_instead_of_a_file(tmp_path):
    path = tmp_path / "page.h5"
    path.write_text("<!DOCTYPE html><title>Not found</title>")
    with pytest.raises(ValueError, match=r"page\.h5: the file \(39 bytes\) is not a complete HDF5"):
        weight_files.read_weight_file(path)


def test_listed_weight_without_data(tmp_path):
    path = write_h5(tmp_path / "w.h5", {"conv1": kernel_and_bias("conv1")})
    with h5py.File(path, "r+") as file:
        del file["conv1/conv1/bias:0"]
    with pytest.raises(ValueError, match="not a complete HDF5"):
        weight_files.read_weight_file(path)


def test_weights_that_are_no_numbers(tmp_path):
    path = write_h5(tmp_path / "w.h5", {"conv1": [("conv1/kernel:0", np.array([b"a"]))]})
    with pytest.raises(ValueError, match=r"conv1/kernel:0"):
        weight_files.read_weight_file(path)


def test_hdf5_of_something_else(tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["measurements"] = np.zeros(3)
    with pytest.raises(ValueError, match=r"layer_names.*measurements"):
        weight_files.read_weight_file(tmp_path / "w.h5")


# ---------------------------------------------------------------- writing


def as_layers(*names):
    return {name: dict(kernel_and_bias(name, seed)) for seed, name in enumerate(names)}


def test_written_layout_is_that_of_keras_2(tmp_path):
    layers = as_layers("conv1", "fpn_p2")
    weight_files.write_weight_file(tmp_path / "w.h5", layers)
    with h5py.File(tmp_path / "w.h5") as file:
        assert file.attrs["backend"] == b"tensorflow"
        assert file.attrs["keras_version"].decode() == "2.2.5"
        assert [name.decode() for name in file.attrs["layer_names"]] == ["conv1", "fpn_p2"]
        assert file.attrs["layer_names"].dtype.kind == "S"
        assert list(file["conv1"].attrs["weight_names"]) == [b"conv1/kernel:0", b"conv1/bias:0"]
        data = file["/conv1/conv1/kernel:0"]
        assert data.dtype == np.float32
        np.testing.assert_array_equal(data, layers["conv1"]["conv1/kernel:0"])


def test_written_file_is_read_back(tmp_path):
    layers = as_layers("conv1", "bn_conv1", "mrcnn_mask")
    weight_files.write_weight_file(tmp_path / "w.h5", layers)
    got = weight_files.read_weight_file(tmp_path / "w.h5")
    assert list(got) == list(layers)
    for name, weights in layers.items():
        assert_same(got[name], list(weights.values()))


def test_long_lists_of_names_are_split(tmp_path):
    names = [f"a_layer_with_quite_a_long_name_{index:05d}" * 4 for index in range(500)]
    layers = {name: {f"{name}/bias:0": np.full(1, i)} for i, name in enumerate(names)}
    weight_files.write_weight_file(tmp_path / "w.h5", layers)
    with h5py.File(tmp_path / "w.h5") as file:
        assert "layer_names" not in file.attrs
        chunks = [file.attrs[key] for key in sorted(file.attrs) if key.startswith("layer_names")]
        assert len(chunks) > 1
        assert all(chunk.nbytes <= 64512 for chunk in chunks)
    got = weight_files.read_weight_file(tmp_path / "w.h5")
    assert list(got) == names
    assert [values[0][0] for values in got.values()] == list(range(500))


def test_writing_replaces_a_file_and_follows_a_link(tmp_path):
    folder = tmp_path / "store"
    folder.mkdir()
    (folder / "real.h5").write_bytes(b"old")
    link = tmp_path / "link.h5"
    link.symlink_to(folder / "real.h5")
    weight_files.write_weight_file(link, as_layers("conv1"))
    assert link.is_symlink()
    assert list(weight_files.read_weight_file(folder / "real.h5")) == ["conv1"]
    assert os.listdir(folder) == ["real.h5"]


def test_new_file_has_the_usual_permissions(tmp_path):
    weight_files.write_weight_file(tmp_path / "w.h5", as_layers("conv1"))
    (tmp_path / "plain").touch()
    assert (tmp_path / "w.h5").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_missing_folders_are_created(tmp_path):
    path = tmp_path / "a" / "b" / "w.h5"
    weight_files.write_weight_file(path, as_layers("conv1"))
    assert list(weight_files.read_weight_file(path)) == ["conv1"]


def test_a_folder_that_is_a_file_is_named_with_the_size_and_a_remedy(tmp_path):
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "w.h5"
    with pytest.raises(OSError, match=r"about 36 bytes.*another folder") as caught:
        weight_files.write_weight_file(path, as_layers("conv1"))
    assert caught.value.filename == str(path)


def test_target_that_is_a_folder_leaves_no_temporary_file(tmp_path):
    (tmp_path / "w.h5").mkdir()
    with pytest.raises(OSError, match="Cannot write the weights"):
        weight_files.write_weight_file(tmp_path / "w.h5", as_layers("conv1"))
    assert os.listdir(tmp_path) == ["w.h5"]


def test_failure_half_way_leaves_the_old_file(tmp_path):
    resource = pytest.importorskip("resource")
    path = tmp_path / "w.h5"
    weight_files.write_weight_file(path, as_layers("conv1"))
    old = path.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # as a disk that fills up
    try:
        with pytest.raises(OSError, match=r"about 4,000,400 bytes.*unchanged"):
            big = {f"dense/{i}:0": np.zeros((100, 1000)) for i in range(10)}
            weight_files.write_weight_file(path, {"dense": {**big, "dense/b:0": np.zeros(100)}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == old
    assert os.listdir(tmp_path) == ["w.h5"]


# ---------------------------------------------------------------- files of strangers


def weight_file_with(path, make):
    """A weight file of one layer, whose kernel `make(group)` stores."""
    write_h5(path, {"conv1": kernel_and_bias("conv1")})
    with h5py.File(path, "r+") as file:
        del file["conv1/conv1/kernel:0"]
        make(file["conv1/conv1"])
    return path


def other_file(folder):
    """Private numbers in another HDF5 file, and the same bytes in a file of no format."""
    with h5py.File(folder / "private.h5", "w") as file:
        file["numbers"] = np.full((2, 3), 7.0, "f4")
    (folder / "private.bin").write_bytes(np.full((2, 3), 7.0, "f4").tobytes())


def external_link(group):
    group["kernel:0"] = h5py.ExternalLink("private.h5", "/numbers")


def soft_link(group):
    group["kernel:0"] = h5py.SoftLink("/conv1/conv1/bias:0")


def external_storage(group):
    group.create_dataset("kernel:0", (2, 3), "f4", external=[("private.bin", 0, 24)])


def virtual_dataset(group):
    layout = h5py.VirtualLayout((2, 3), "f4")
    layout[:] = h5py.VirtualSource("private.h5", "numbers", (2, 3))
    group.create_virtual_dataset("kernel:0", layout)


ELSEWHERE = [external_link, soft_link, external_storage, virtual_dataset]


@pytest.mark.parametrize("make", ELSEWHERE)
def test_data_in_other_files_is_not_read(tmp_path, monkeypatch, make):
    monkeypatch.chdir(tmp_path)
    other_file(tmp_path)
    path = weight_file_with(tmp_path / "w.h5", make)
    with h5py.File(path) as file:
        assert file["conv1/conv1/kernel:0"].size in (3, 6), "the file would give numbers"
    with pytest.raises(InvalidDataError, match=r"w\.h5: .*kernel:0.*source that you trust"):
        weight_files.read_weight_file(path)


@pytest.mark.parametrize("make", [external_link, external_storage, virtual_dataset])
def test_other_files_are_not_even_opened(tmp_path, monkeypatch, make):
    """A FIFO would wait for a writer forever."""
    monkeypatch.chdir(tmp_path)
    other_file(tmp_path)
    path = weight_file_with(tmp_path / "w.h5", make)
    for name in ("private.h5", "private.bin"):
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
    with pytest.raises(InvalidDataError, match="kernel:0"):
        weight_files.read_weight_file(path)


@pytest.mark.parametrize("name", ["conv1", "model_weights"])
def test_links_in_place_of_groups(tmp_path, name):
    path = write_h5(tmp_path / "w.h5", {"conv1": kernel_and_bias("conv1")})
    with h5py.File(path, "r+") as file:
        file.move("conv1", "elsewhere")
        file[name] = h5py.SoftLink("/elsewhere")
    with pytest.raises(InvalidDataError, match=rf"w\.h5: {name}: this is a link"):
        weight_files.read_weight_file(path)


@pytest.mark.parametrize("shape", [(26000, 26000), (10**6, 10**6)])
def test_a_stated_size_is_compared_before_memory_is_allocated(tmp_path, shape):
    path = weight_file_with(tmp_path / "w.h5", lambda group: group.create_dataset("kernel:0", shape, "f4"))
    assert path.stat().st_size < 20_000
    with pytest.raises(InvalidDataError, match=r"w\.h5: the file \([\d,]+ bytes\) declares [\d,]+ bytes"):
        weight_files.read_weight_file(path)
    with weight_files.open_weight_file(path) as layers:
        assert layers["conv1"][0].shape == shape


def test_a_list_of_names_that_repeats_itself(tmp_path):
    path = write_h5(tmp_path / "w.h5", {"conv1": kernel_and_bias("conv1")})
    with h5py.File(path, "r+") as file:
        file["conv1"].attrs["weight_names"] = np.array([b"conv1/bias:0"] * 4000)
        file.attrs["layer_names"] = np.array([b"conv1"] * 4000)
    with pytest.raises(InvalidDataError, match=r"w\.h5: the file lists more than 100,000 weights"):
        weight_files.read_weight_file(path)


def null_dataspace(group):
    group.create_dataset("kernel:0", data=h5py.Empty("f4"))


def compound_type(group):
    group.create_dataset("kernel:0", (3,), np.dtype([("a", "f4"), ("b", "i4")]))


def group_of_the_name(group):
    group.create_group("kernel:0")


def named_type(group):
    group["kernel:0"] = np.dtype("f4")


@pytest.mark.parametrize("make", [null_dataspace, compound_type, group_of_the_name, named_type])
def test_weights_of_another_kind_name_the_file_and_the_weight(tmp_path, make):
    path = weight_file_with(tmp_path / "w.h5", make)
    with pytest.raises(InvalidDataError, match=r"w\.h5: conv1/kernel:0: a weight must be an array of num"):
        weight_files.read_weight_file(path)


@pytest.mark.parametrize("name", [b"conv1\xff", b"conv1/conv1/bias:0/more", b""])
def test_names_that_lead_nowhere_name_the_file(tmp_path, name):
    path = write_h5(tmp_path / "w.h5", {"conv1": kernel_and_bias("conv1")})
    with h5py.File(path, "r+") as file:
        file["conv1"].attrs["weight_names"] = np.array([name, b"conv1/bias:0"])
    with pytest.raises(InvalidDataError, match=r"w\.h5"):
        weight_files.read_weight_file(path)


@pytest.mark.parametrize("value", [h5py.Empty("S4"), 3, np.zeros((2, 2))])
def test_lists_of_names_that_are_none_name_the_file(tmp_path, value):
    path = write_h5(tmp_path / "w.h5", {"conv1": kernel_and_bias("conv1")})
    with h5py.File(path, "r+") as file:
        file.attrs["layer_names"] = value
    with pytest.raises(InvalidDataError, match=r"w\.h5"):
        weight_files.read_weight_file(path)


def test_fifo_in_place_of_a_file(tmp_path):
    os.mkfifo(tmp_path / "w.h5")
    with pytest.raises(UnreadableFileError, match=r"w\.h5: .*it is a FIFO"):
        weight_files.read_weight_file(tmp_path / "w.h5")


def test_random_damage_is_an_error_of_ours_or_none(tmp_path):
    """Seeded mutations: bytes changed, removed or repeated anywhere in the file."""
    path = write_h5(tmp_path / "w.h5", {"conv1": kernel_and_bias("conv1"), "fc": kernel_and_bias("fc", 1)})
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    errors = 0
    for _ in range(400):
        changed = bytearray(content)
        for _ in range(rng.integers(1, 8)):
            position = int(rng.integers(len(changed)))
            match rng.integers(3):
                case 0:
                    changed[position] = rng.integers(256)
                case 1:
                    del changed[position : position + int(rng.integers(1, 50))]
                case 2:
                    changed[position:position] = changed[position : position + 20]
        path.write_bytes(changed)
        try:
            weight_files.read_weight_file(path)
        except InvalidDataError as error:
            assert "w.h5" in str(error)
            errors += 1
    assert errors > 100
