"""Videos: a round trip, the frame rate, threads, and nothing half-written."""

import signal
import subprocess
import sys
import threading

import cv2
import numpy as np
import pytest

from mrcnn.inference import video

RATE = 12.5
SHAPE = (48, 64, 3)


def moving_square(number):
    """Frame `number`: a bright square on dark ground, one place further right in each frame."""
    frame = np.full(SHAPE, 20, np.uint8)
    frame[10:30, 3 * number : 3 * number + 12] = (200, 100, 30)
    return frame


@pytest.fixture(params=[".avi", ".mp4"])
def clip(request, tmp_path):
    path = tmp_path / f"clip{request.param}"
    with video.VideoWriter(path, RATE) as writer:
        for number in range(10):
            writer.write(moving_square(number))
    return path


def left_edges(frames):
    """Number of each frame, told from its red square."""
    return [round(int(np.flatnonzero(frame[20, :, 0] > 110)[0]) / 3) for frame in frames]


def bright(frames):
    """A detector: the mask of what is red, for each frame."""
    return [frame[..., 0] > 110 for frame in frames]


def paint(frame, mask):
    painted = frame.copy()
    painted[mask] = (0, 0, 255)
    return painted


def test_frames_come_back_in_order_and_in_rgb(clip):
    with video.VideoReader(clip) as reader:
        frames = list(reader)
        assert reader.rate == pytest.approx(RATE, rel=0.01)
        assert reader.frames == len(frames) == 10
        assert not reader.is_camera
    assert left_edges(frames) == list(range(10))
    assert frames[0].shape == SHAPE
    assert abs(frames[3] - moving_square(3).astype(int)).mean() < 8
    assert [path.name for path in clip.parent.iterdir()] == [clip.name]  # nothing beside it


@pytest.mark.parametrize("batch_size", [1, 4])
def test_detections_are_drawn_into_every_frame(clip, batch_size, tmp_path):
    sizes = []

    def detect(frames):
        sizes.append(len(frames))
        return bright(frames)

    output = tmp_path / "new" / f"out{clip.suffix}"
    assert video.detect_video(clip, output, detect, paint, batch_size=batch_size, progress=False) == 10
    assert sizes == ([1] * 10 if batch_size == 1 else [4, 4, 2])
    with video.VideoReader(output) as reader:
        frames = list(reader)
        assert reader.rate == pytest.approx(RATE, rel=0.01)
    assert len(frames) == 10
    for number, frame in enumerate(frames):
        middle = frame[20, 3 * number + 6].astype(int)
        assert middle[2] > 180 and middle[0] < 80  # blue where it was red


def test_drawing_and_decoding_run_beside_inference(clip, tmp_path):
    threads = set()

    def draw(frame, result):
        threads.add(threading.current_thread().name)
        return frame

    main = []
    video.detect_video(
        clip,
        tmp_path / "out.avi",
        lambda frames: main.append(threading.current_thread()) or frames,
        draw,
        progress=False,
    )
    assert set(main) == {threading.main_thread()}
    assert len(threads) == 1 and next(iter(threads)).startswith("encode")


@pytest.mark.parametrize("number", ["limit", "batch_size"])
def test_no_frames_are_no_fault_of_the_video(number, clip, tmp_path):
    with pytest.raises(ValueError, match=f"`{number}` must be .* at least 1. Received: {number}=0"):
        video.detect_video(clip, tmp_path / "out.avi", bright, paint, **{number: 0})


def test_limit_and_progress(clip, tmp_path, capsys):
    assert video.detect_video(clip, tmp_path / "out.avi", bright, paint, batch_size=4, limit=6) == 6
    assert "6/6" in capsys.readouterr().err


@pytest.mark.parametrize("stage", ["detect", "draw"])
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_nothing_is_left_after_an_error_or_ctrl_c(stage, error, clip, tmp_path):
    output = tmp_path / "out" / "x.avi"
    calls = []

    def failing(function, name):
        def call(*arguments):
            calls.append(name)
            if name == stage and calls.count(name) == 4:
                raise error
            return function(*arguments)

        return call

    with pytest.raises(error):
        video.detect_video(clip, output, failing(bright, "detect"), failing(paint, "draw"), progress=False)
    assert list(output.parent.iterdir()) == []
    assert threading.active_count() == 1 or not any("code" in t.name for t in threading.enumerate())


def test_ctrl_c_in_a_terminal_leaves_nothing(clip, tmp_path):
    """A real interrupt, in a process of its own, while frames are drawn and decoded."""
    output = tmp_path / "out" / "x.avi"
    program = (
        "import signal, sys, time\nfrom mrcnn.inference import video\n"
        # A process that starts in the background ignores interrupts.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "calls = []\n"
        "def detect(frames):\n    calls.append(frames)\n    print('frame', flush=True)\n"
        "    time.sleep(0.2 if len(calls) < 3 else 60)\n    return frames\n"
        "video.detect_video(sys.argv[1], sys.argv[2], detect, lambda frame, result: frame, progress=False)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, str(clip), str(output)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    for _ in range(3):
        assert process.stdout.readline()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode != 0 and b"KeyboardInterrupt" in errors
    assert list(output.parent.iterdir()) == []


def test_an_old_file_stays_after_an_error(clip, tmp_path):
    output = tmp_path / "x.avi"
    output.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError):
        video.detect_video(clip, output, lambda frames: 1 / 0, paint, progress=False)
    assert output.read_bytes() == b"old"


def test_ctrl_c_ends_the_recording_of_a_camera(clip, tmp_path, monkeypatch):
    opened = []
    real = cv2.VideoCapture
    camera = {0: str(clip)}
    monkeypatch.setattr(cv2, "VideoCapture", lambda x: opened.append(x) or real(camera.get(x, x)))
    calls = []

    def detect(frames):
        calls.append(1)
        if len(calls) == 6:
            raise KeyboardInterrupt
        return bright(frames)

    output = tmp_path / "camera.avi"
    assert video.detect_video("0", output, detect, paint, progress=False) == 5
    assert opened[0] == 0
    monkeypatch.undo()
    with video.VideoReader(output) as reader:
        assert len(list(reader)) == 5


def test_bad_sources_and_outputs_are_named(clip, tmp_path):
    with pytest.raises(OSError, match=r"Cannot open the video .*gone\.mp4"):
        video.VideoReader(tmp_path / "gone.mp4")
    with pytest.raises(OSError, match="Cannot open the camera 97"):
        video.VideoReader(97)
    with pytest.raises(ValueError, match=r"must end in \.avi or \.mp4.*out\.gif"):
        video.detect_video(clip, tmp_path / "out.gif", bright, paint)
    with video.VideoWriter(tmp_path / "x.avi", 5) as writer:
        writer.write(moving_square(0))
        with pytest.raises(ValueError, match="same size"):
            writer.write(moving_square(0)[:-2])
        with pytest.raises(ValueError, match="uint8"):
            writer.write(moving_square(0) / 255)
    with pytest.raises(ValueError, match=r"zip\(\)"):
        video.detect_video(clip, tmp_path / "y.avi", lambda frames: [], paint, progress=False)


@pytest.mark.parametrize("clip", [".avi"], indirect=True)  # a cut .mp4 does not open: its index is at the end
def test_a_video_that_is_cut_off_is_warned_of(clip, tmp_path):
    whole = clip.read_bytes()
    clip.write_bytes(whole[: len(whole) * 3 // 4])
    output = tmp_path / "out.avi"
    with pytest.warns(UserWarning, match=r"clip\.avi ends after \d frames, .* declares 10"):
        count = video.detect_video(clip, output, bright, paint, progress=False)
    assert 0 < count < 10 and output.exists()


def test_a_limit_beyond_a_cut_does_not_change_what_the_header_declares(tmp_path):
    path = tmp_path / "cut.avi"
    with video.VideoWriter(path, RATE) as writer:
        for number in range(10):
            writer.write(moving_square(number))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) * 3 // 4])
    with pytest.warns(UserWarning, match=r"cut\.avi ends after \d frames, .* declares 10"):
        video.detect_video(path, tmp_path / "out.avi", bright, paint, limit=9, progress=False)


def test_a_stream_that_declares_no_length_may_be_shorter_than_the_limit(tmp_path, recwarn):
    stream = tmp_path / "frames.mjpeg"
    frames = [cv2.imencode(".jpg", moving_square(number))[1].tobytes() for number in range(5)]
    stream.write_bytes(b"".join(frames))
    with video.VideoReader(stream) as reader:
        assert reader.frames is None
    assert video.detect_video(stream, tmp_path / "out.avi", bright, paint, limit=100, progress=False) == 5
    assert not recwarn.list


@pytest.mark.parametrize("name", ["x.avi", "x.mp4"])
def test_on_a_full_disk_the_old_file_stays(name, tmp_path):
    pytest.importorskip("resource")
    program = (
        "import resource, signal, sys\nimport numpy as np\nfrom mrcnn.inference import video\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, hard))\n"
        "noise = np.random.default_rng(0).integers(0, 256, (60, 240, 320, 3), np.uint8)\n"
        "with video.VideoWriter(sys.argv[1], 25) as writer:\n    [writer.write(frame) for frame in noise]"
    )
    output = tmp_path / name
    output.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", program, str(output)], capture_output=True, text=True)
    assert done.returncode != 0
    assert f"OSError: [Errno 5] Cannot write {output}: the 60 frames cannot be read back" in done.stderr
    assert output.read_bytes() == b"old" and list(tmp_path.iterdir()) == [output]


def test_the_source_is_not_replaced(clip):
    before = clip.read_bytes()
    with pytest.raises(ValueError, match="would replace the video"):
        video.detect_video(clip, clip.parent / "." / clip.name, bright, paint, progress=False)
    assert clip.read_bytes() == before
