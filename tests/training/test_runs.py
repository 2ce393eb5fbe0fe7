"""Run folders and weight files: any name and folder, resumed runs, the newest weights, leftovers."""

import os

import pytest

from mrcnn import files
from mrcnn.config import Config
from mrcnn.training import runs

NAMES = [
    "toy",
    "my run",
    "a.b",
    "my-data_2",
    "{epoch}",
    "{b}",
    "{0}",
    "über",
    "x12345678",
    "[1]*",
    "run_2024",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("folder", ["logs", "my {folder} {0} 20200101T0000 *.[x]"])
def test_a_saved_run_is_found_and_resumed_whatever_its_name(tmp_path, name, folder):
    run = runs.new_run(tmp_path / folder, name)
    runs.open_run_folder(run.log_dir, Config(), 0)
    for epoch in (1, 12):
        runs.weights_path(run.checkpoint_path, epoch).write_text("")
    last = runs.find_last(tmp_path / folder, name)
    assert last == run.log_dir / f"mask_rcnn_{name}_0012.h5"
    resumed = runs.resumed_run(tmp_path / folder, name, last)
    assert resumed == runs.Run(run.log_dir, run.checkpoint_path, 12)


def test_the_checkpoint_path_is_a_format_string_for_ordinary_names():
    run = runs.new_run("logs", "Toy")
    assert run.checkpoint_path.format(epoch=7) == str(runs.weights_path(run.checkpoint_path, 7))
    assert run.checkpoint_path.endswith("mask_rcnn_toy_{epoch:04d}.h5")
    assert runs.weights_path("{epoch}/w{epoch}.h5", 7).as_posix() == "{epoch}/w7.h5"


@pytest.mark.parametrize(
    ("path", "epoch"),
    [
        ("logs/coco20171029T2315/mask_rcnn_coco_0001.h5", 1),
        ("C:\\x\\my run20191231T2359\\mask_rcnn_my run_0007.h5", 7),
        ("coco20171029T2315/mask_rcnn_coco_12345.h5", 12345),
        ("x20171029T2315/mask_rcnn_x_0001.h5/y20200101T0000/mask_rcnn_y_0002.h5", 2),
        ("logs/coco20171029T2315/mask_rcnn_coco.h5", None),
        ("logs/coco20171029T2315/best.h5", None),
        ("mask_rcnn_coco_0001.h5", None),
    ],
)
def test_the_epoch_of_a_weight_file(path, epoch):
    run = runs.resumed_run("logs", "new", path)
    assert (run and run.epoch) == epoch


def test_the_newest_weights_are_those_of_the_highest_epoch(tmp_path):
    for name in ("toy20200101T0000", "toy20200102T0000", "toy20200103T0000", "toys20990101T0000"):
        (tmp_path / name).mkdir()
    second = tmp_path / "toy20200102T0000"
    for name in ("mask_rcnn_toy_9999.h5", "mask_rcnn_toy_10000.h5", "mask_rcnn_toy_best.h5"):
        (second / name).write_text("")
    (tmp_path / "toy20200101T0000" / "mask_rcnn_toy_0001.h5").write_text("")
    assert runs.find_last(tmp_path, "Toy") == second / "mask_rcnn_toy_10000.h5"


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no folder .*nowhere.*model_dir"):
        runs.find_last(tmp_path / "nowhere", "toy")
    with pytest.raises(FileNotFoundError, match=r"no run of NAME='toy'.*toy20260131T1200"):
        runs.find_last(tmp_path, "toy")
    (tmp_path / "toy20200101T0000").mkdir()
    with pytest.raises(FileNotFoundError, match=r"have no weight file.*toy20200101T0000"):
        runs.find_last(tmp_path, "toy")


def test_leftovers_of_a_killed_run_are_removed_and_nothing_else(tmp_path):
    with files.atomic_write(tmp_path / "mask_rcnn_toy_0002.h5") as temporary:
        leftover = temporary.name
    leftovers = [leftover, ".config-ab_9xyz1.part.json", ".mask_rcnn_toy_0003.h5.0a1b2c3d.tmp"]
    kept = ["mask_rcnn_toy_0001.h5", ".mine.tmp", "notes.part", ".part", "events.out.tmp"]
    for name in [*leftovers, *kept]:
        (tmp_path / name).write_text("")
    runs.open_run_folder(tmp_path, Config(), 2)
    assert sorted(os.listdir(tmp_path)) == sorted([*kept, "mask_rcnn_toy_0002.h5", "config.json"])


def test_weights_of_later_epochs_are_kept_when_a_run_continues_earlier(tmp_path, caplog):
    run = tmp_path / "toy20260131T1200"
    run.mkdir()
    for epoch in (1, 2, 3):
        (run / f"mask_rcnn_toy_{epoch:04d}.h5").write_text(str(epoch))
    (run / "best.h5").write_text("best")
    runs.open_run_folder(run, Config(), 1)
    assert runs.find_last(tmp_path, "toy").name == "mask_rcnn_toy_0001.h5"
    (aside,) = run.glob("replaced-*")
    assert {path.name: path.read_text() for path in aside.iterdir()} == {
        "mask_rcnn_toy_0002.h5": "2",
        "mask_rcnn_toy_0003.h5": "3",
    }
    assert (run / "best.h5").exists()
    assert f"continues after epoch 1. Weight files of later epochs (2) were moved to {aside}." in caplog.text
    runs.open_run_folder(run, Config(), 1)
    assert len(list(run.glob("replaced-*"))) == 1


def test_a_folder_that_cannot_be_written_is_named_once(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"Not a directory. Choose another model_dir.*run'$") as error:
        runs.open_run_folder(tmp_path / "file" / "run", Config(), 0)
    assert str(error.value).count("run") == 2  # "the run folder" and its path


def test_runs_of_the_same_minute_get_folders_of_their_own(tmp_path):
    run = runs.new_run(tmp_path / "logs", "Twin")
    first, second = runs.claimed(run), runs.claimed(run)
    assert first.log_dir == run.log_dir and first.checkpoint_path == run.checkpoint_path
    assert second.log_dir != first.log_dir and second.checkpoint_path.startswith(str(second.log_dir))
    assert first.log_dir.is_dir() and second.log_dir.is_dir()
    assert run.is_new and not first.is_new
    runs.weights_path(second.checkpoint_path, 1).write_text("")
    assert runs.find_last(tmp_path / "logs", "twin").parent == second.log_dir


@pytest.mark.parametrize("name, is_taken", [("notes.txt", False), ("mask_rcnn_toy_0001.h5", True)])
def test_a_folder_with_files_of_the_program_is_free(tmp_path, name, is_taken):
    run = runs.new_run(tmp_path, "toy")
    run.log_dir.mkdir()
    (run.log_dir / name).write_text("")
    assert (runs.claimed(run).log_dir != run.log_dir) is is_taken


def test_a_folder_that_cannot_be_created_is_left_to_the_error_that_explains_it(tmp_path):
    (tmp_path / "logs").write_text("a file")
    run = runs.claimed(runs.new_run(tmp_path / "logs", "toy"))
    with pytest.raises(OSError, match="Cannot write to the run folder"):
        runs.open_run_folder(run.log_dir, Config(), 0)


def test_the_folder_of_all_runs(tmp_path):
    run = runs.new_run(tmp_path, "toy")
    assert runs.model_dir_of(runs.weights_path(run.checkpoint_path, 3)) == tmp_path
    assert runs.model_dir_of(tmp_path / "best.h5") is None


class Writer:
    """Stands for a callback with paths of three kinds."""

    def __init__(self, folder):
        self.path, self.log_dir = folder / "best.h5", str(folder)
        self.filepath, self.count = str(folder) + "-other/best.h5", 3


def test_paths_of_callbacks_follow_the_run(tmp_path):
    run = runs.new_run(tmp_path, "twin")
    runs.claimed(run)
    writer = Writer(run.log_dir)
    second = runs.claimed(run, [writer])
    assert writer.path == second.log_dir / "best.h5" and writer.log_dir == str(second.log_dir)
    assert writer.filepath == str(run.log_dir) + "-other/best.h5" and writer.count == 3
