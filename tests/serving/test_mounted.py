"""The application in a larger one, which runs no start and no end of the applications mounted in it."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.results import Detections

fastapi = pytest.importorskip("fastapi")
testclient = pytest.importorskip("fastapi.testclient")
serving = pytest.importorskip("mrcnn.serving")

CONFIG = SimpleNamespace(
    **{"NUM_CLASSES": 2, "DETECTION_MIN_CONFIDENCE": 0.5, "DETECTION_MAX_INSTANCES": 100},
    **{"IMAGE_RESIZE_MODE": "square", "IMAGE_MIN_DIM": 64, "IMAGE_MAX_DIM": 64, "IMAGE_MIN_SCALE": 0},
    IMAGE_CHANNEL_COUNT=3,
)


class OneObject:
    """A model that finds one object in the corner of each image."""

    config = CONFIG
    class_names = ("BG", "leaf")

    def detect(self, images, masks="full"):
        box, scores = np.array([[0, 0, 4, 5]], np.int32), np.array([0.75], np.float32)
        crops = (MaskCrops(image.shape[:2], box, (np.ones((4, 5), bool),)) for image in images)
        return [Detections(box, np.array([1]), scores, one) for one in crops]


def png():
    file = io.BytesIO()
    Image.new("RGB", (20, 10)).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(params=["alone", "mounted"])
def client(request):
    app, path = serving.create_app(OneObject(), "leaves", serving.Settings(answer_seconds=30)), ""
    if request.param == "mounted":
        outer, path = fastapi.FastAPI(), "/leaves"
        outer.mount(path, app)
        app = outer
    with testclient.TestClient(app, base_url=f"http://testserver{path}") as client:
        yield client


def test_a_service_answers(client):
    assert client.get("health").json() == {"status": "ok", "requests": 0}
    for _ in range(2):
        answer = client.post("detect", content=png())
        assert answer.status_code == 200
        assert [record["score"] for record in answer.json()["annotations"]] == [0.75]
    assert client.post("overlay", content=png()).headers["content-type"] == "image/png"
    assert client.get("health").status_code == 200


@pytest.mark.parametrize(
    "address, words",
    [
        ("detect?min_scor=0.5", ["/detect", "'min_scor'", "Did you mean min_score?", "Known ones: "]),
        ("detect?min_score=0.5&Page=1", ["'Page'", "Did you mean page?"]),
        ("detect?min_scor=2&masks=all", ["'min_scor'"]),
        ("overlay?masks=none", ["/overlay", "'masks'", "Known ones: min_score, page, channels."]),
        ("picture?zzz%0A=", ["/picture", "'zzz\\n'. Known ones: page, channels."]),
        ("detect?channels=0&channels=1", ["must have channels once. Received: 2 times.", "channels=0,1,2."]),
        ("picture?page=0&page=0&page=1", ["must have page once. Received: 3 times."]),
    ],
)
def test_unknown_names_in_the_address_are_refused(client, address, words):
    answer = client.post(address, content=png())
    assert answer.status_code == 400
    for word in words:
        assert word in answer.json()["detail"]


@pytest.mark.parametrize(
    "form, words",
    [
        (
            {"min_score": "0.5"},
            ["the text field 'min_score'", "Pass parameters in the address", "?min_score=0.5."],
        ),
        ({"file": "photo.jpg"}, ["the text field 'file'"]),
    ],
)
def test_texts_in_a_form_are_refused(client, form, words):
    files = {"image": ("a.png", png())}
    assert client.post("detect", files=files).status_code == 200
    answer = client.post("detect", files=files, data=form)
    assert answer.status_code == 400
    for word in words:
        assert word in answer.json()["detail"]
    assert "curl" not in answer.json()["detail"]
    alone = client.post("detect", files={name: (None, text) for name, text in form.items()})
    assert alone.status_code == 400 and "curl needs an @" in alone.json()["detail"]
