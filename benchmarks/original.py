"""Times of the original library (Keras 2, TensorFlow 1.15.5), constants to compare with.

Medians on a shared 2-core x86-64 machine whose TensorFlow used neither AVX2 nor FMA, after one warm-up, with
other programs running: load averages of 6 to 13. So its CPU seconds are the fairer side. No such run can be
repeated beside ours: that release needs Python 3.7.
"""

from collections.abc import Mapping

from benchmarks.workers import Case

Timed = Mapping[tuple[str, int, int], Mapping[str, float]]

# (network, height, width) of single pictures in float32; 4 classes with ResNet-50, 81 with ResNet-101.
# Its mask head always computes 100 masks of all classes, however many detections there are.
DETECT: Timed = {
    ("resnet50", 512, 512): {"wall": 2.847, "cpu": 4.871},
    ("resnet101", 1024, 1024): {"wall": 9.252, "cpu": 15.33},
}
# A step of all layers, 200 RoIs, 4 classes.
TRAIN: Timed = {("resnet50", 512, 512): {"wall": 34.03, "cpu": 50.10}}
# One image of 1024 x 1024 with 20 instances and mini masks: the whole sample, and load_image_gt alone.
SAMPLE = {"wall": 0.6376, "cpu": 0.8029}
LOAD_IMAGE_GT = {"wall": 0.3741, "cpu": 0.4676}


def matching(timed: Timed, case: Case) -> Mapping[str, float] | None:
    """The original's seconds for a case, None if there are none."""
    if case.batch != 1 or case.steps != 1 or case.precision != "float32":
        return None
    return timed.get((case.network, case.height, case.width))
