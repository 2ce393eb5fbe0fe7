"""The service on the nucleus network: results, refusals, a full queue, the page and the end."""

import io
import json
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor

import headless_browser as browser
import httpx
import keras
import numpy as np
import pytest
import tifffile
from PIL import Image
from pycocotools import mask as run_lengths
from running_service import service

import mrcnn
from mrcnn.serving import Settings
from mrcnn.serving.page import page_html

# JAX compiles every size, which takes minutes.
pytestmark = pytest.mark.skipif(
    keras.backend.backend() == "jax", reason="the service does not know the backend"
)


def picture(seed=0, height=96, width=120):
    """Bright disks on a dark ground."""
    rng = np.random.default_rng(seed)
    image = rng.integers(10, 40, (height, width, 3)).astype(np.uint8)
    rows, columns = np.mgrid[:height, :width]
    for y, x in ((20, 25), (50, 70), (70, 20), (24, 90), (75, 100)):
        image[(rows - y) ** 2 + (columns - x) ** 2 < (8 + seed % 3) ** 2] = 190 - 10 * seed
    return image


def as_file(image, kind="PNG"):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind)
    return file.getvalue()


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def bomb(side):
    """A small PNG file that states side x side pixels."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def model():
    return mrcnn.load("nucleus-light")


@pytest.fixture(scope="module")
def address(model):
    settings = Settings(batch=2, max_bytes=200_000, max_pixels=400 * 400, upload_seconds=2)
    with service(model, settings) as address:
        yield address


def post(address, path, content, **options):
    return httpx.post(f"{address}{path}", content=content, timeout=60, **options)


def test_the_answer_is_what_detect_finds(model, address):
    for image in (picture(0), picture(1, 110, 80)[:, :, 0]):
        (expected,) = model.detect(image)
        assert len(expected["rois"])
        answer = post(address, "/detect?name=cells.png", as_file(image)).json()
        assert answer["images"] == [
            {"id": 1, "file_name": "cells.png", "height": image.shape[0], "width": image.shape[1]}
        ]
        assert answer["categories"] == [{"id": 1, "name": "nucleus"}]
        assert answer["info"]["is_complete"]
        found = answer["annotations"]
        np.testing.assert_allclose([x["score"] for x in found], expected["scores"], atol=1e-5)
        y1, x1, y2, x2 = expected["rois"].T
        np.testing.assert_array_equal([x["bbox"] for x in found], np.stack([x1, y1, x2 - x1, y2 - y1], 1))
        masks = np.stack([run_lengths.decode(x["segmentation"]) for x in found], -1).astype(bool)
        np.testing.assert_array_equal(masks, expected["masks"])


def test_polygons_fill_the_same_pixels(model, address):
    image = picture()
    expected = model.detect(image)[0]["masks"]
    answer = post(address, "/detect?masks=polygons", as_file(image)).json()
    for index, record in enumerate(answer["annotations"]):
        codes = run_lengths.frPyObjects(record["segmentation"], *image.shape[:2])
        mask = run_lengths.decode(run_lengths.merge(codes)).astype(bool)
        assert (mask ^ expected[..., index]).sum() <= 2, index
    fewer = post(address, "/detect?masks=polygons&tolerance=1", as_file(image)).json()
    assert len(json.dumps(fewer)) < len(json.dumps(answer))


def test_an_answer_tells_that_there_may_be_more(model, monkeypatch):
    monkeypatch.setattr(model.config, "DETECTION_MAX_INSTANCES", 2)
    with service(model) as address:
        answer = post(address, "/detect?min_score=1", as_file(picture())).json()
    assert answer["annotations"] == [] and not answer["info"]["is_complete"]


def test_min_score_and_boxes_alone(model, address):
    image = picture()
    scores = model.detect(image)[0]["scores"]
    least = float(scores[len(scores) // 2])
    answer = post(address, f"/detect?masks=none&min_score={least:.4f}", as_file(image)).json()
    assert len(answer["annotations"]) == np.count_nonzero(scores >= round(least, 4))
    assert all("segmentation" not in record for record in answer["annotations"])


def test_forms_and_other_files_are_read(address):
    expected = post(address, "/detect", as_file(picture())).json()
    form = httpx.post(f"{address}/detect", files={"file": ("a.png", as_file(picture()))}, timeout=60)
    assert form.json() == expected
    assert post(address, "/detect", as_file(picture(), "TIFF")).json() == expected


def test_overlay_and_picture(address):
    image = picture()
    answer = post(address, "/overlay?min_score=0.3", as_file(image))
    assert answer.headers["content-type"] == "image/png"
    drawn = np.asarray(Image.open(io.BytesIO(answer.content)))
    scale = len(drawn) // len(image)
    assert drawn.shape == (96 * scale, 120 * scale, 3) and scale > 1
    assert (drawn[::scale, ::scale] != image).any()
    shown = post(address, "/picture", as_file(image, "TIFF")).content
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(shown))), image)


def test_many_clients_get_their_own_results(model, address):
    images = [picture(seed) for seed in range(4)]
    expected = [result["scores"] for result in (model.detect(image)[0] for image in images)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda i: post(address, "/detect", as_file(images[i % 4])), range(16)))
    for index, answer in enumerate(answers):
        scores = [record["score"] for record in answer.json()["annotations"]]
        np.testing.assert_allclose(scores, expected[index % 4], atol=1e-5)


# --- Refusals ---


@pytest.mark.parametrize(
    "content, status, words",
    [
        (b"", 400, "The request has no image"),
        (b"not an image at all", 415, "not an image"),
        (as_file(picture())[:300], 415, "cannot be read"),
        (bytes(200_001), 413, "at most 0.2 MB"),
        (bomb(401), 413, "401 x 401 pixels"),
        (bomb(60_000), 413, "too many pixels"),
        (
            as_file(np.zeros((9, 9, 3), np.uint8))[:-4] + b"x" * 4,
            200,
            "annotations",
        ),  # its checksum is not needed
    ],
)
def test_what_is_no_image_gets_one_sentence(address, content, status, words):
    answer = post(address, "/detect", content)
    assert answer.status_code == status
    assert words in answer.text
    if status != 200:
        sentence = answer.json()["detail"]
        assert sentence.endswith(".") and "\n" not in sentence and "Traceback" not in sentence


def test_a_thin_image_that_would_become_huge_is_refused(model):
    """The file is tiny, and the image has fewer pixels than the limit."""
    with service(model) as address:
        for height, width in ((1, 3000), (3000, 1), (2, 512)):
            answer = post(address, "/detect", as_file(np.zeros((height, width, 3), np.uint8)))
            assert answer.status_code == 413
            assert "is too thin" in answer.json()["detail"] and "IMAGE_MIN_DIM=256" in answer.text
        assert httpx.get(f"{address}/model").json()["max_pixels"] == 2_000_000


def test_the_limits_of_pixels(model):
    limits = Settings().limits_for(model.config)
    assert (limits.pixels, limits.network_pixels) == (2_000_000, 8_000_000)
    assert not limits.is_too_thin(1000, 2000) and not limits.is_too_thin(250, 8000)
    assert limits.is_too_thin(2, 512)
    wide = Settings(max_pixels=50_000_000).limits_for(model.config)
    assert wide.network_pixels == 200_000_000 and not wide.is_too_thin(5000, 10_000)
    assert limits.network_pixels_of(np.zeros((8, 512, 3), np.uint8)) == 256 * 16384


def small_and_large(kind):
    """A file with two images, of 9 x 9 and of 500 x 500 pixels."""
    small, large = (Image.fromarray(np.zeros((side, side), np.uint8)) for side in (9, 500))
    if kind == "TIFF":
        file = io.BytesIO()
        small.save(file, kind, save_all=True, append_images=[large], compression="tiff_deflate")
        return file.getvalue()
    first, second = (as_file(np.asarray(image), "GIF") for image in (small, large))
    colors = 3 * 2 ** ((second[10] & 7) + 1) if second[10] & 128 else 0
    return first[:-1] + second[13 + colors :]  # the second image, without its header


@pytest.mark.parametrize("path", ["/picture", "/detect"])
@pytest.mark.parametrize("kind", ["TIFF", "GIF"])
def test_every_page_is_checked(address, path, kind):
    content = small_and_large(kind)
    answer = post(address, f"{path}?page=1", content)
    assert answer.status_code == 413
    assert "500 x 500 pixels" in answer.json()["detail"]
    assert post(address, "/picture?page=0", content).status_code == 200


def test_channels_of_a_stack(address):
    """Two slices of two channels; the names of the axes are in the metadata of ImageJ."""
    stack = np.stack([picture(seed)[..., 0] for seed in range(4)]).reshape(2, 2, *picture().shape[:2])
    file = io.BytesIO()
    tifffile.imwrite(file, stack, imagej=True, metadata={"axes": "ZCYX"})
    answer = post(address, "/picture", file.getvalue())
    assert answer.status_code == 422 and "2 slices x 2 channels" in answer.json()["detail"]
    assert "page" in answer.json()["detail"] and "--page" not in answer.json()["detail"]
    for channel in (0, 1):
        answer = post(address, f"/picture?page=1&channels={channel}", file.getvalue())
        shown = np.asarray(Image.open(io.BytesIO(answer.content)).convert("L"))
        assert np.array_equal(shown, stack[1, channel])
    assert post(address, "/detect?page=2&channels=1", file.getvalue()).status_code == 422


def test_the_page_of_a_channel_is_checked(address):
    file = io.BytesIO()
    with tifffile.TiffWriter(file, imagej=False) as tiff:
        for side in (64, 500):
            tiff.write(np.zeros((side, side), np.uint8), metadata=None)
    assert post(address, "/picture?page=1&channels=0", file.getvalue()).status_code == 413


def test_a_large_upload_is_refused_and_not_kept(address):
    def stream():
        for _ in range(500):
            yield bytes(1_000_000)

    before = resident_bytes(address)
    for headers in ({}, {"Content-Length": "500000000"}):
        answer = post(address, "/detect", stream(), headers=headers)
        assert answer.status_code == 413
        assert "at most 0.2 MB" in answer.json()["detail"]
    assert resident_bytes(address) < before + 100e6


def resident_bytes(address):
    text = httpx.get(f"{address}/metrics").text
    lines = [line for line in text.splitlines() if line.startswith("process_resident_memory_bytes ")]
    return float(lines[0].split()[1]) if lines else 0.0


def test_a_slow_upload_ends(address):
    def stream():
        yield as_file(picture())[:100]
        time.sleep(3)
        yield b"late"

    assert post(address, "/detect", stream()).status_code == 408


@pytest.mark.parametrize(
    "query, words",
    [
        ("min_score=2", "`min_score` in the address is not valid"),
        ("masks=all", "'rle', 'polygons' or 'none'"),
        ("page=3", "`page` must be from 0 to 0"),
        ("channels=red", "`channels` in the address is not valid"),
        (
            "channels=0,1,2,2",
            "The model takes images of 3 channels (IMAGE_CHANNEL_COUNT). Received",
        ),
        ("channels=7", "`channels` must be numbers from 0 to 2: the file has 3 channels"),
    ],
)
def test_query_values_are_checked(address, query, words):
    answer = post(address, f"/detect?{query}", as_file(picture()))
    assert answer.status_code == 422
    assert words in answer.json()["detail"]


def test_forms_without_a_file(address):
    assert httpx.post(f"{address}/detect", data={"a": "b"}).status_code == 415
    empty = httpx.post(f"{address}/detect", files={"file": ("a.png", b"")})
    assert (empty.status_code, "no image" in empty.text) == (400, True)
    broken = post(address, "/detect", b"x", headers={"Content-Type": "multipart/form-data"})
    assert (broken.status_code, "form cannot be read" in broken.text) == (400, True)


# --- Information ---


def test_health_metrics_model_and_reference(address):
    assert httpx.get(f"{address}/health").json() == {"status": "ok", "requests": 0}
    facts = httpx.get(f"{address}/model").json()
    assert facts["classes"] == [{"id": 1, "name": "nucleus"}]
    assert (facts["name"], facts["max_bytes"], facts["max_pixels"]) == ("nuclei", 200_000, 160_000)
    post(address, "/detect", b"")
    text = httpx.get(f"{address}/metrics").text
    assert 'mrcnn_requests_total{path="/detect",status="400"}' in text
    assert "mrcnn_batch_seconds_sum" in text
    paths = httpx.get(f"{address}/openapi.json").json()["paths"]
    assert set(paths) == {"/detect", "/overlay", "/picture", "/model", "/health", "/metrics"}
    assert "multipart/form-data" in paths["/detect"]["post"]["requestBody"]["content"]
    reference = httpx.get(f"{address}/docs").text
    assert "://" not in reference.split("</head>")[0]  # nothing from other servers


def test_under_the_path_of_a_proxy(model):
    with service(model, root_path="/nuclei") as address:
        assert httpx.get(f"{address}/health").status_code == 200
        assert "/nuclei/openapi.json" in httpx.get(f"{address}/docs").text


# --- Load and the end ---


class Slow:
    """A model that waits before it detects."""

    def __init__(self, model):
        self.config, self.class_names, self._model = model.config, model.class_names, model
        self.entered, self.open = threading.Event(), threading.Event()

    def detect(self, images, masks="full"):
        self.entered.set()
        assert self.open.wait(30)
        return self._model.detect(images, masks=masks)


def test_a_full_queue_answers_at_once(model):
    slow = Slow(model)
    with service(slow, Settings(queue=1)) as address, ThreadPoolExecutor(4) as pool:
        accepted = [pool.submit(post, address, "/detect", as_file(picture())) for _ in range(2)]
        assert slow.entered.wait(30)
        while httpx.get(f"{address}/health").json()["requests"] < 2:
            time.sleep(0.01)
        refused = post(address, "/detect", as_file(picture()))
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) >= 1
        assert "busy" in refused.json()["detail"]
        slow.open.set()
        assert [answer.result().status_code for answer in accepted] == [200, 200]
        assert post(address, "/detect", as_file(picture())).status_code == 200


def test_a_detection_that_takes_too_long(model):
    slow = Slow(model)
    with service(slow, Settings(answer_seconds=0.3)) as address:
        answer = post(address, "/detect", as_file(picture()))
        assert (answer.status_code, "longer than 0.3 seconds" in answer.text) == (504, True)
        slow.open.set()


def test_a_client_that_leaves_gives_its_place_back(model):
    slow = Slow(model)
    with service(slow) as address:
        with pytest.raises(httpx.ReadTimeout):
            httpx.post(f"{address}/detect", content=as_file(picture()), timeout=1)
        for _ in range(500):
            if httpx.get(f"{address}/health").json()["requests"] == 0:
                break
            time.sleep(0.01)
        assert httpx.get(f"{address}/health").json()["requests"] == 0
        slow.open.set()


def test_an_error_of_the_network_is_no_traceback(model, caplog):
    class Broken(Slow):
        def detect(self, images, masks="full"):
            raise RuntimeError("out of memory at address 0x1234")

    with service(Broken(model)) as address:
        answer = post(address, "/detect", as_file(picture()))
        assert answer.status_code == 500
        assert "log of the service" in answer.json()["detail"] and "0x1234" not in answer.text
        assert "out of memory" in caplog.text


def test_requests_in_progress_are_answered_at_the_end(model):
    slow = Slow(model)
    with ThreadPoolExecutor(3) as pool:
        with service(slow) as address:
            running = [pool.submit(post, address, "/detect", as_file(picture())) for _ in range(3)]
            assert slow.entered.wait(30)
            while httpx.get(f"{address}/health").json()["requests"] < 3:
                time.sleep(0.01)
            threading.Timer(0.5, slow.open.set).start()
        assert [answer.result().status_code for answer in running] == [200, 200, 200]
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health")


# --- The page ---


def test_the_page_needs_no_other_file(address):
    answer = httpx.get(f"{address}/")
    assert answer.text == page_html()
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert 'href="http' not in answer.text and "src=" not in answer.text
    assert "/* script.js */" not in answer.text and "/* style.css */" not in answer.text


@pytest.fixture(scope="module")
def tab():
    if browser.PROGRAM is None:
        pytest.skip("needs Chromium")
    pytest.importorskip("websockets")
    with browser.chromium() as tab:
        yield tab


@pytest.mark.parametrize("width, mobile", [(1280, False), (390, True)], ids=["desktop", "phone"])
def test_drop_slide_choose_and_download(tab, address, tmp_path, width, mobile):
    path = tmp_path / f"cells-{width}.tif"  # a browser cannot show it
    path.write_bytes(as_file(picture(), "TIFF"))
    tab.open(address, width, 844, mobile)
    tab.wait("document.getElementById('model').textContent === 'nuclei'")
    tab.drop(path)
    tab.wait("document.getElementById('main').dataset.state === 'shown'")
    everything = post(address, "/detect?masks=polygons", path.read_bytes()).json()["annotations"]
    for least in (0.05, 0.9):
        tab.run(f"score.value = {least}; score.dispatchEvent(new Event('input'))")
        expected = [record for record in everything if record["score"] >= least]
        assert tab.run("document.getElementById('count').textContent") == str(len(expected))
        assert tab.run("document.querySelectorAll('#list button').length") == len(expected)
    # A click at the middle of the best object chooses it in the list.
    x, y, w, h = everything[0]["bbox"]
    middle = [x + w / 2, y + h / 2]
    tab.run(
        f"""(() => {{
        const box = canvas.getBoundingClientRect(), scale = box.width / 120;
        canvas.dispatchEvent(new MouseEvent("click", {{ bubbles: true,
            clientX: box.left + {middle[0]} * scale, clientY: box.top + {middle[1]} * scale }}));
        }})()"""
    )
    assert tab.run("document.querySelector('#list [aria-pressed=true]').textContent").startswith("nucleus 1")
    tab.run("document.getElementById('json').click()")
    saved = json.loads(tab.downloaded(f"cells-{width}.json"))
    assert saved["annotations"] == expected and saved["info"]["is_complete"]
    assert saved["images"][0]["file_name"] == path.name
    tab.run("document.getElementById('png').click()")
    drawn = Image.open(io.BytesIO(tab.downloaded(f"cells-{width}-objects.png")))
    assert drawn.width / drawn.height == pytest.approx(120 / 96, rel=0.01)
    assert tab.run("document.documentElement.scrollWidth <= window.innerWidth")
    assert tab.messages == []


def test_the_page_shows_the_sentence_of_an_error(tab, address, tmp_path):
    path = tmp_path / "text.png"
    path.write_bytes(b"not an image at all")
    tab.open(address)
    tab.wait("document.getElementById('model').textContent === 'nuclei'")
    tab.drop(path)
    tab.wait("document.querySelector('.status.bad')")
    assert "not an image" in tab.run("document.getElementById('status').textContent")
    assert tab.run("document.getElementById('main').dataset.state") == "empty"
