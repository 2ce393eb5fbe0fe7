"""Times of the Keras 2 library (with TensorFlow 1.15.5), constants to compare with.

Medians on a shared 2-core x86-64 machine whose TensorFlow used neither AVX2 nor FMA, after one warm-up, while
other programs ran: load averages of 6 to 13. Its CPU seconds are therefore the fairer comparison. It cannot
run beside `mrcnn`, because it needs Python 3.7.
"""

from collections.abc import Mapping

from benchmarks.workers import Case

# {(network, height, width): {"wall" or "cpu": seconds}}
Times = Mapping[tuple[str, int, int], Mapping[str, float]]

# Single images in float32; 4 classes with ResNet-50, 81 with ResNet-101. Its mask head computes 100 masks of
# all classes, however many detections there are.
DETECT: Times = {
    ("resnet50", 512, 512): {"wall": 2.847, "cpu": 4.871},
    ("resnet101", 1024, 1024): {"wall": 9.252, "cpu": 15.33},
}
# A training step of all layers, 200 RoIs, 4 classes.
TRAIN: Times = {("resnet50", 512, 512): {"wall": 34.03, "cpu": 50.10}}
# One image of 1024 x 1024 with 20 instances and mini-masks: the whole sample, and load_image_gt alone.
SAMPLE = {"wall": 0.6376, "cpu": 0.8029}
LOAD_IMAGE_GT = {"wall": 0.3741, "cpu": 0.4676}


def matching(times: Times, case: Case) -> Mapping[str, float] | None:
    """Return the seconds of the Keras 2 library for a case; None if there are none."""
    if case.batch != 1 or case.steps != 1 or case.precision != "float32":
        return None
    return times.get((case.network, case.height, case.width))
