"""The benchmarks run: each script with a tiny network, and contestants in processes of their own.

Tests that load a framework and build networks are slow ones.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import (
    data_pipeline,
    flops,
    inference,
    keras2_library,
    measure,
    memory,
    ours,
    start,
    synthetic,
    throughput,
    training,
    workers,
)
from benchmarks.workers import Case, Subprocess, WorkerError

ONCE = ["--quick", "--repeats", "2", "--warmup", "1"]


@pytest.fixture
def run(tmp_path):
    """Run a script and return what it writes."""

    def run(script, *options):
        path = script.main([*ONCE, "--output", str(tmp_path / "result.json"), *options])
        assert list(tmp_path.iterdir()) == [path]
        return json.loads(path.read_text())

    return run


@pytest.fixture
def counter(monkeypatch):
    """A contestant that needs no framework, in a process of its own."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    opened = []

    def open_counter(**case):
        opened.append(Subprocess("counter", "counting_worker:build", Case(**case)))
        return opened[-1]

    yield open_counter
    for contestant in opened:
        contestant.close()
        assert contestant.process.returncode is not None


@pytest.mark.slow
def test_inference_finds_the_stated_number_of_objects(run):
    written = run(inference, "--in-process", "--set", "PRE_NMS_LIMIT=150")
    matmul, convolution, row = written["rows"]
    assert row["settings"] == {"PRE_NMS_LIMIT": 150}
    assert matmul["gflops"] > 0 and convolution["gflops"] > 0
    assert row["seen"]["detections"] == 5
    assert row["min"] <= row["seconds"] <= row["max"] and len(row["all_seconds"]) == 2
    assert row["gflop"] == pytest.approx(sum(row["gflop_by_part"].values()))
    assert {"machine", "command", "load_average_before", "load_average_after"} <= written.keys()
    assert "keras" in written["versions"]["ours, " + written["options"]["backends"][0] + ", tiny"]


def test_arithmetic_of_the_parts(run):
    rows = run(flops, "--in-process")["rows"]
    parts = rows[-1]
    # Box head by hand: 40 RoIs, 7x7x8 to 16, 16 to 16, 16 to 4 classes and 16 box numbers.
    assert parts["box head"] == pytest.approx(2e-9 * 40 * (7 * 7 * 8 * 16 + 16 * 16 + 16 * (4 + 16)))
    # RPN: 3x3x8 to 8 and 1x1 to 6 + 12, on 16, 8, 4, 2 and 1 cells squared.
    assert parts["RPN"] == pytest.approx(2e-9 * (9 * 8 * 8 + 8 * 18) * (256 + 64 + 16 + 4 + 1))
    # Mask head: four 3x3x8 to 8 on 14x14, 2x2 upwards, then one class only on 28x28; 5 masks.
    mask = 196 * (4 * 9 * 8 * 8 + 4 * 8 * 8) + 784 * 8
    assert parts["mask head"] == pytest.approx(2e-9 * 5 * mask)


def test_data_pipeline_with_and_without_workers(run):
    rows = run(data_pipeline, "--workers", "0", "2")["rows"]
    assert [row["what"] for row in rows] == ["load_image_gt", "training sample", "loader", "loader"]
    assert all(row["images_per_second"] > 0 for row in rows)


@pytest.mark.slow
def test_throughput_of_files(run):
    network, *files = rows = run(throughput)["rows"]
    assert [row["way"] for row in rows] == ["network", "one by one", "stream", "reduced"]
    assert network["share"] == 1 and min(row["share"] for row in files) > 0
    assert all(len(row["runs"]) == 2 and row["cpu_seconds"] > 0 for row in rows)


@pytest.mark.slow
def test_start_and_memory(run):
    phases = run(start, "--in-process", "--repeats", "1")["rows"][0]
    assert phases["until_first_seconds"] > phases["first_seconds"] > 0
    peaks = run(memory, "--in-process", "--repeats", "1")["rows"][0]
    assert peaks["peak_mb"] >= peaks["built_mb"] > 50


@pytest.mark.slow
def test_training_step(run):
    row = run(training, "--in-process")["rows"][-1]
    assert np.isfinite(row["seen"]["loss"])
    assert row["seen"]["box_rois"] == 12 and row["seen"]["mask_rois"] == 3


def test_contestants_alternate(counter):
    first, second = counter(steps=1), counter(steps=10)
    second.name = "second"
    answers = workers.alternate([first, second], warmup=1, repeats=2)
    assert [answer["calls"] for answer in answers["counter"]] == [2, 3]
    assert [answer["calls"] for answer in answers["second"]] == [20, 30]
    assert all(answer["seconds"] >= 0 for answer in answers["counter"])
    peaks = first.ask("memory")
    assert peaks["peak_rss"] > 5e6 and peaks["device_peak"] is None
    assert first.facts["ready_seconds"] > first.facts["build_seconds"]


def test_a_contestant_that_fails_is_named_and_left_out(counter, capsys):
    with pytest.raises(WorkerError, match=r"counter ended with code 1:\n(.*\n)*.*no classes"):
        counter(classes=0)
    with workers.opened([lambda: counter(classes=0), counter]) as contestants:
        assert len(contestants) == 1
    assert "Left out: counter" in capsys.readouterr().err
    with pytest.raises(WorkerError, match="dance"):
        counter().ask("dance")


def test_the_others_continue_after_a_failure(counter, capsys):
    first, second = counter(settings={"most": 2}), counter()
    second.name = "second"
    answers = workers.alternate([first, second], warmup=1, repeats=3)
    assert [answer["calls"] for answer in answers.pop("second")] == [2, 3, 4]
    assert not answers
    assert "counted enough" in capsys.readouterr().err


def test_settings_of_the_command_line():
    assert measure.setting("A=(1, 2)") == ("A", (1, 2))
    assert measure.setting("B=bfloat16") == ("B", "bfloat16")
    with pytest.raises(ValueError, match="NO_SUCH_FIELD"):
        ours.config_of(Case(settings={"NO_SUCH_FIELD": 1}))


def test_statistics_and_table():
    summary = measure.summary([4.0, 1.0, 2.0, 3.0])
    assert (summary["median"], summary["min"], summary["max"], summary["repeats"]) == (2.5, 1.0, 4.0, 4)
    assert measure.ratio([2.0, 8.0, 6.0], [1.0, 2.0, 2.0]) == 3.0
    text = measure.table([{"a": 1.0, "b": None}, {"a": 1234.5, "b": None}], {"a": "first", "b": "second"})
    assert text.splitlines() == ["first", "-----", "1", "1,234"]


def test_only_equal_cases_are_compared_with_the_keras_2_library():
    assert keras2_library.matching(keras2_library.TRAIN, Case("train"))["wall"] == 34.03
    for other in (Case(batch=2), Case(precision="bfloat16"), Case(network="light"), Case(height=1024)):
        assert keras2_library.matching(keras2_library.DETECT, other) is None


def test_synthetic_objects_lie_inside(tmp_path):
    dataset = synthetic.SyntheticDataset(2, 64, 96, instances=6, classes=4, folder=tmp_path)
    masks, class_ids = dataset.load_mask(1)
    assert masks.shape == (64, 96, 6) and masks.any(axis=(0, 1)).all()
    assert not masks[[0, -1]].any() and not masks[:, [0, -1]].any()
    assert set(class_ids) == {1, 2, 3}
    assert dataset.load_image(1).shape == (64, 96, 3) and dataset.from_files
