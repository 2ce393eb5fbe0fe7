"""Every Python block of the README and of the documentation runs, page by page.

Blocks of one page share their names. They run in a folder with the files that the pages speak of. Training
takes one step, on small images unless the page sets their size.
"""

import inspect

import doc_pages as pages
import keras
import matplotlib.pyplot as plt
import pytest

from mrcnn.config import LightConfig
from mrcnn.model import MaskRCNN

WITH_BLOCKS = [page for page in pages.PAGES if pages.examples(page)]
# Pages that train, or look at many steps of a network.
SLOW = {
    "docs/correcting-labels.md",
    "docs/evaluation.md",
    "docs/export.md",
    "docs/inside.md",
    "docs/recipes.md",
    "docs/train-your-own.md",
    "docs/tutorials/2-train.md",
    "docs/tutorials/3-annotations.md",
    "docs/tutorials/4-fine-tune.md",
}


# JAX compiles every network, which takes minutes.
if keras.backend.backend() == "jax":
    SLOW |= {"README.md", "docs/measuring-objects.md", "docs/tutorials/1-detect.md", "docs/weights.md"}


def marked(page):
    name = pages.name(page)
    return pytest.param(page, marks=pytest.mark.slow if name in SLOW else (), id=name)


@pytest.fixture
def short_training(monkeypatch):
    """One epoch of one step, small images, and no compilation where the backend can do without."""
    train = MaskRCNN.train

    def train_briefly(model, *args, **kwargs):
        model.config.STEPS_PER_EPOCH = model.config.VALIDATION_STEPS = 1
        given = inspect.signature(train).bind(model, *args, **kwargs).arguments
        return train(**given | {"epochs": min(given["epochs"], model.epoch + 1)})

    monkeypatch.setattr(MaskRCNN, "train", train_briefly)
    monkeypatch.setattr(LightConfig, "IMAGE_MIN_DIM", 128)
    monkeypatch.setattr(LightConfig, "IMAGE_MAX_DIM", 128)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.run_functions_eagerly(True)
        yield
        tf.config.run_functions_eagerly(False)
    else:
        yield


@pytest.mark.filterwarnings("ignore:Even though the `tf.config:UserWarning")  # eager, on purpose
@pytest.mark.parametrize("page", [marked(page) for page in WITH_BLOCKS])
def test_blocks_run(page, workplace, short_training, published_weights):
    for example in pages.examples(page):
        pages.run(example)
    plt.close("all")


def test_skipped_blocks_have_a_reason():
    for page in WITH_BLOCKS:
        for line in page.read_text(encoding="utf-8").splitlines():
            assert not line.startswith("<!-- skip") or '"' in line, f"{pages.name(page)}: {line}"
