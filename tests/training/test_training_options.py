"""Settings of training that trade speed, memory and steadiness: what each does to one step, and to a run."""

import keras
import numpy as np
import pytest
from conftest import running_eagerly
from tiny_model import TinyConfig
from toy_data import toy_dataset

from mrcnn import backend
from mrcnn.checkpoints import weights
from mrcnn.data.augmentation_policies import camera_policy
from mrcnn.data.copy_paste import CopyPaste
from mrcnn.data.generator import DataGenerator
from mrcnn.model import MaskRCNN
from mrcnn.training import network as training_network
from mrcnn.training.mean_weights import MeanWeights

HALF = ("bfloat16", pytest.param("float16", marks=pytest.mark.slow))
FLOAT32_OUTPUTS = (
    *("rpn_class_logits", "rpn_class", "rpn_bbox", "ROI", "output_rois", "target_bbox", "target_mask"),
    *("target_rpn_bbox", "mrcnn_class_logits", "mrcnn_class", "mrcnn_bbox", "mrcnn_mask"),
)


def network(folder, start=None, **changes):
    """A compiled training model without chance, with the weights of another if one is given."""
    config = TinyConfig()
    for name, value in changes.items():
        setattr(config, name, value)
    model = MaskRCNN("training", config, folder)
    for name in ("proposal_targets", "rpn_targets"):
        model.keras_model.get_layer(name).shuffle = False
    if start is not None:
        model.copy_weights(start)
    model.set_trainable(".*", verbose=0)
    model.compile(0.01, 0.9)
    return model


def values(model):
    return [keras.ops.convert_to_numpy(variable) for variable in model.keras_model.trainable_variables]


def same_boxes(first, second, pixels=2):
    """Pairs of detections of one class whose coordinates differ by at most so many pixels."""
    distances = np.abs(first["rois"][:, None] - second["rois"][None]).max(axis=-1)
    classes = first["class_ids"][:, None] == second["class_ids"][None]
    return np.argwhere((distances <= pixels) & classes)


@pytest.fixture(scope="module")
def batches():
    return [DataGenerator(toy_dataset(), TinyConfig(), seed=0, workers=0)[index][0] for index in range(2)]


@pytest.fixture(scope="module")
def plain(tmp_path_factory, batches):
    """A float32 model before its first step, its outputs, and the losses and weights after that step."""
    folder = tmp_path_factory.mktemp("plain")
    keras.utils.set_random_seed(1)
    start = network(folder)
    model = network(folder, start)
    with running_eagerly():
        outputs = model.keras_model(batches[0], training=True)
        logs = model.keras_model.train_on_batch(batches[0], return_dict=True)
    return start, outputs, logs, values(model)


@pytest.mark.parametrize("precision", HALF)
def test_half_precision_trains_and_detects_as_float32(plain, batches, precision, tmp_path):
    start, outputs, logs, after = plain
    model = network(tmp_path, start, PRECISION=precision)
    assert keras.config.dtype_policy().name == "float32"
    half = model.keras_model(batches[0], training=True)
    for name in FLOAT32_OUTPUTS:
        assert keras.backend.standardize_dtype(half[name].dtype) == "float32", name
    assert {variable.dtype for variable in model.keras_model.trainable_variables} == {"float32"}
    features = model.keras_model.get_layer("fpn_p2")
    assert features.compute_dtype == precision
    for name in ("rpn_class", "rpn_bbox"):
        wanted, found = (keras.ops.convert_to_numpy(x[name]) for x in (outputs, half))
        assert 0 < np.linalg.norm(found - wanted) < 0.03 * np.linalg.norm(wanted), name
    for name in ("target_rpn_match", "target_rpn_bbox"):  # boxes and IoUs are float32 in each
        np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(x[name]) for x in (outputs, half)))
    scaled = isinstance(model.keras_model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert scaled == (precision == "float16")
    for _ in range(
        20
    ):  # float16: the scale of the loss starts too high and is halved until gradients are finite
        found = model.keras_model.train_on_batch(batches[0], return_dict=True)
        if int(model.keras_model.optimizer.iterations) == 1:
            break
    np.testing.assert_allclose(float(found["loss"]), float(logs["loss"]), rtol=0.1)
    changes = [
        np.concatenate([(b - a).ravel() for a, b in zip(values(start), end, strict=True)])
        for end in (values(model), after)
    ]
    cosine = changes[0] @ changes[1] / np.linalg.norm(changes[0]) / np.linalg.norm(changes[1])
    assert cosine > 0.9

    config = TinyConfig()
    config.PRECISION = precision
    detector = MaskRCNN("inference", config, tmp_path)
    detector.copy_weights(model)
    picture = toy_dataset(1).load_image(0)
    (result,) = detector.detect([picture])
    assert result["scores"].dtype == np.float32
    assert len(result["scores"]) == result["masks"].shape[-1] > 0
    reference = model.inference_model(TinyConfig()).detect([picture])[0]
    # Rounding may take another of several boxes on an object: only detections of the same box are compared.
    pairs = same_boxes(reference, result)
    assert len(pairs) >= len(reference["scores"]) / 2
    for one, other in pairs:
        np.testing.assert_allclose(result["scores"][other], reference["scores"][one], atol=0.03)


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() == "jax", reason="XLA has to know all sizes")
def test_places_that_no_image_fills_are_left_out_and_change_no_number(batches, tmp_path, monkeypatch):
    some = network(tmp_path, TRAIN_ROIS_PER_IMAGE=60)
    monkeypatch.setattr(backend, "sizes_may_vary", lambda choice: False)
    every = network(tmp_path, some, TRAIN_ROIS_PER_IMAGE=60)
    outputs, full = (model.keras_model(batches[0], training=True) for model in (some, every))
    positives = (keras.ops.convert_to_numpy(outputs["target_class_ids"]) > 0).sum(axis=1)
    assert outputs["mrcnn_mask"].shape[1] == outputs["target_mask"].shape[1] == max(positives.max(), 1)
    assert full["mrcnn_mask"].shape[1] == int(60 * 0.33) > positives.max()
    logs, wanted = (m.keras_model.train_on_batch(batches[0], return_dict=True) for m in (some, every))
    for name, loss in wanted.items():
        np.testing.assert_allclose(float(logs[name]), float(loss), rtol=1e-5, err_msg=name)
    for expected, now in zip(values(every), values(some), strict=True):
        np.testing.assert_allclose(now, expected, rtol=1e-4, atol=1e-6)


def test_accumulated_gradients_are_those_of_one_large_step(plain, batches, tmp_path):
    start = plain[0]
    model = network(tmp_path, start, GRADIENT_ACCUMULATION_STEPS=2)
    model.keras_model.train_on_batch(batches[0])
    for before, now in zip(values(start), values(model), strict=True):
        np.testing.assert_array_equal(before, now)
    model.keras_model.train_on_batch(batches[0])
    for wanted, now in zip(plain[3], values(model), strict=True):  # twice the same batch: its own step
        np.testing.assert_allclose(now, wanted, rtol=1e-4, atol=1e-6)


class Watch(keras.callbacks.Callback):
    """Weights as training and validation meet them."""

    def __init__(self):
        super().__init__()
        self.trained, self.validated = [], []

    def on_train_batch_end(self, batch, logs=None):
        self.trained.append(self._first())

    def on_test_begin(self, logs=None):
        self.validated.append(self._first())

    def _first(self):
        return keras.ops.convert_to_numpy(self.model.trainable_variables[0])


@pytest.mark.usefixtures("eager_test")
def test_a_schedule_trains_and_the_running_mean_of_weights_is_validated_and_saved(tmp_path):
    config = TinyConfig()
    config.EMA_MOMENTUM = 0.5
    model = MaskRCNN("training", config, tmp_path)
    watch = Watch()
    warm_up = keras.optimizers.schedules.CosineDecay(0.0, 100, warmup_target=0.05, warmup_steps=10)
    model.train(toy_dataset(4), toy_dataset(2), warm_up, epochs=2, layers="all", custom_callbacks=[watch])
    np.testing.assert_allclose(float(model.keras_model.optimizer.learning_rate), 0.02, rtol=1e-5)
    mean, means = watch.trained[0], []
    for step, trained in enumerate(watch.trained[1:], 1):
        momentum = step / (step + 9)  # below 0.5 until the tenth step
        mean = momentum * mean + (1 - momentum) * trained
        means.append(mean)
    layer, name = model.keras_model.trainable_variables[0].path.split("/")[-2:]
    for epoch, expected in ((1, means[0]), (2, means[2])):
        saved = weights.read_weight_file(model.checkpoint_path.format(epoch=epoch))[layer][0]
        np.testing.assert_allclose(saved, expected, rtol=1e-4, atol=1e-6, err_msg=name)
        assert np.abs(saved - watch.trained[2 * epoch - 1]).max() > 10 * np.abs(saved - expected).max()
    now = keras.ops.convert_to_numpy(model.keras_model.trainable_variables[0])
    np.testing.assert_allclose(now, means[2], rtol=1e-4, atol=1e-6)


class StopAfterFirst(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = True


@pytest.mark.usefixtures("eager_test")
@pytest.mark.parametrize("epochs", [1, 3])
def test_a_training_that_is_stopped_early_keeps_the_mean_weights(epochs, tmp_path):
    config = TinyConfig()
    config.EMA_MOMENTUM = 0.9
    model = MaskRCNN("training", config, tmp_path)
    model.train(toy_dataset(4), None, 0.05, epochs, "heads", custom_callbacks=[StopAfterFirst()])
    assert model.epoch == 1
    saved = weights.read_weight_file(model.find_last())["mrcnn_class_conv1"][0]
    now = model.keras_model.get_layer("mrcnn_class_conv1").get_weights()[0]
    np.testing.assert_array_equal(now, saved)


@pytest.mark.usefixtures("eager_test")
def test_keras_own_fit_counts_the_epochs_of_the_batches(tmp_path):
    model = MaskRCNN("training", TinyConfig(), tmp_path)
    model.set_trainable("mrcnn_class_logits", verbose=0)
    model.compile(0.001, 0.9)
    batches = DataGenerator(toy_dataset(8), TinyConfig(), seed=0, workers=0)
    model.keras_model.fit(batches, epochs=3, shuffle=False, verbose=0)
    assert batches.epoch == 3


def test_only_a_network_for_training_is_compiled(tmp_path):
    with pytest.raises(ValueError, match="compile"):
        MaskRCNN("inference", TinyConfig(), tmp_path).compile(0.001, 0.9)


class WatchStatistics(keras.callbacks.Callback):
    """A moving variance after each step, in each validation and at the end of each epoch."""

    def __init__(self):
        super().__init__()
        self.trained, self.validated, self.ended = [], [], []

    def on_train_batch_end(self, batch, logs=None):
        self.trained.append(self._variance())

    def on_test_begin(self, logs=None):
        self.validated.append(self._variance())

    def on_epoch_end(self, epoch, logs=None):
        self.ended.append(self._variance())

    def _variance(self):
        return keras.ops.convert_to_numpy(self.model.get_layer("mrcnn_class_bn1").moving_variance)


@pytest.mark.usefixtures("eager_test")
def test_the_running_mean_includes_the_statistics_of_batch_norm(tmp_path, monkeypatch):
    monkeypatch.setattr(MeanWeights, "STATISTICS_EVERY", 2)
    config = TinyConfig()
    config.EMA_MOMENTUM, config.TRAIN_BN, config.STEPS_PER_EPOCH = 0.25, None, 3
    model = MaskRCNN("training", config, tmp_path)
    watch = WatchStatistics()
    model.train(toy_dataset(4), toy_dataset(2), 0.05, epochs=2, layers="all", custom_callbacks=[watch])
    seen = watch.trained
    assert len(seen) == 6
    # After two steps, and one more at the end of the epoch. The momentum grows from 2 / 11 to 0.25.
    first = 2 / 11 * seen[1] + 9 / 11 * seen[2]
    second = 0.0625 * first + 0.9375 * seen[4]
    second = 0.25 * second + 0.75 * seen[5]
    for shown in (watch.validated, watch.ended):
        np.testing.assert_allclose(shown, [first, second], rtol=1e-5)
    assert np.abs(second - seen[5]).max() > 1e-4
    saved = weights.read_weight_file(model.checkpoint_path.format(epoch=2))["mrcnn_class_bn1"][3]
    np.testing.assert_allclose(saved, second, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PRECISION", "half"),
        ("JIT_COMPILE", "auto"),
        ("EMA_MOMENTUM", 1.0),
        ("GRADIENT_ACCUMULATION_STEPS", 0),
        ("LOADER_PROCESSES", 4),
        ("RPN_TARGETS_IN_GRAPH", None),
        ("ROI_POSITIVE_RATIO", 0),
    ],
)
def test_wrong_settings_are_named(name, value):
    config = TinyConfig()
    setattr(config, name, value)
    with pytest.raises(ValueError, match=f"{name} must be .*Received: {name}="):
        config.validate()


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="Keras hands batches over by itself")
def test_tensorflow_reads_the_batches_of_an_epoch():
    """The generator's own batches, epoch by epoch, without tf.data's tuning, for which epochs would wait."""
    with DataGenerator(toy_dataset(), TinyConfig(), workers=2) as generator:
        data = backend.get_devices(1).batches(generator)
        assert not data.options().autotune.enabled
        assert int(data.cardinality()) == len(generator) == TinyConfig.STEPS_PER_EPOCH
        for epoch in range(2):
            assert generator.epoch == epoch
            read = list(data.as_numpy_iterator())
            generator.epoch = epoch
            for index, batch in enumerate(read):
                [expected] = generator[index]
                assert batch.keys() == expected.keys()
                for name in expected:
                    np.testing.assert_array_equal(batch[name], expected[name])
            generator.epoch = epoch + 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -0.001),
        ("learning_rate", float("nan")),
        ("learning_rate", "fast"),
        ("layers", ["heads"]),
        ("epochs", 2.0),
        ("epochs", "3"),
        ("custom_callbacks", keras.callbacks.Callback()),
        ("custom_callbacks", [print]),
        ("augmentation", "flip"),
        ("augmentation", True),
        ("augmentation", [[]]),
        ("augmentation", camera_policy),
        ("augmentation", [CopyPaste]),
    ],
)
def test_wrong_arguments_are_named_before_anything_is_written(name, value, tmp_path):
    model = MaskRCNN("training", TinyConfig(), tmp_path)
    arguments = {"learning_rate": 0.01, "epochs": 1, "layers": "heads", name: value}
    with pytest.raises(ValueError, match=f"`{name}` must be "):
        model.train(toy_dataset(2), None, **arguments)
    assert list(tmp_path.iterdir()) == []


# Numbers that the checks accept, and the same ones as Keras wants them.
NUMBERS = [
    ("LEARNING_MOMENTUM", 0, 0.0),
    ("LEARNING_MOMENTUM", np.float32(0.5), 0.5),
    ("EMA_MOMENTUM", 0, 0.0),
    ("EMA_MOMENTUM", np.float32(0.5), 0.5),
    ("GRADIENT_CLIP_NORM", 2, 2.0),
    ("GRADIENT_CLIP_NORM", np.float64(2), 2.0),
    ("GRADIENT_ACCUMULATION_STEPS", np.int64(2), 2),
    ("WEIGHT_DECAY", 0, 0.0),
    ("WEIGHT_DECAY", np.float32(0.5), 0.5),
    ("LOSS_WEIGHTS", {"rpn_class_loss": np.float64(2)}, {"rpn_class_loss": 2.0}),
    ("NUM_CLASSES", np.int64(4), 4),
    ("RPN_ANCHOR_STRIDE", np.int64(1), 1),
    ("SEED", np.int64(3), 3),
]


# The settings that change nothing but the optimizer.
OF_THE_OPTIMIZER = (
    *("LEARNING_MOMENTUM", "EMA_MOMENTUM", "GRADIENT_CLIP_NORM", "GRADIENT_ACCUMULATION_STEPS"),
    "WEIGHT_DECAY",
)


@pytest.fixture(scope="module")
def any_network(tmp_path_factory):
    """A network of which one layer trains: enough for an optimizer."""
    model = network(tmp_path_factory.mktemp("any"))
    model.set_trainable("mrcnn_mask", verbose=0)
    return model


@pytest.mark.usefixtures("eager_test")
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize(("name", "value", "same"), [row for row in NUMBERS if row[0] in OF_THE_OPTIMIZER])
def test_integers_and_numbers_of_numpy_optimize_as_others(
    name, value, same, optimizer, batches, any_network, monkeypatch
):
    model = any_network
    monkeypatch.setattr(model.config, "OPTIMIZER", optimizer)
    monkeypatch.setattr(model.config, name, value)
    model.compile(0.01, model.config.LEARNING_MOMENTUM)
    found = model.keras_model.optimizer.get_config()
    assert np.isfinite(float(model.keras_model.train_on_batch(batches[0], return_dict=True)["loss"]))
    monkeypatch.setattr(model.config, name, same)
    model.compile(0.01, model.config.LEARNING_MOMENTUM)
    assert found == model.keras_model.optimizer.get_config()


@pytest.mark.usefixtures("eager_test")
@pytest.mark.parametrize(
    ("name", "value", "same"), [row for row in NUMBERS if row[0] not in OF_THE_OPTIMIZER]
)
def test_integers_and_numbers_of_numpy_train_as_others(name, value, same, batches, tmp_path):
    model = network(tmp_path, **{name: value})
    found = model.keras_model.optimizer.get_config()
    assert np.isfinite(float(model.keras_model.train_on_batch(batches[0], return_dict=True)["loss"]))
    setattr(model.config, name, same)
    model.compile(0.01, 0.9)
    assert found == model.keras_model.optimizer.get_config()


@pytest.mark.parametrize("rate", [1, np.float32(0.5), np.float64(0.5), np.int64(1)], ids=repr)
def test_any_real_number_is_a_learning_rate(rate, tmp_path, capsys):
    model = network(tmp_path)
    before = model.keras_model.optimizer
    model.compile(rate, 0.9)
    assert float(model.keras_model.optimizer.learning_rate) == float(rate)
    assert model.keras_model.optimizer is before  # nothing compiles again for another rate
    model._print_start(1, "heads", rate, 0)
    assert f"learning rate {float(rate):g}" in capsys.readouterr().out
    model.keras_model.compiled_steps = None
    model.compile(rate, 0.9)
    assert float(model.keras_model.optimizer.learning_rate) == float(rate)


@pytest.mark.parametrize("epoch", [0, 1])
def test_nothing_is_created_or_moved_if_compiling_fails(epoch, tmp_path, monkeypatch):
    model = MaskRCNN("training", TinyConfig(), tmp_path)
    files = []
    if epoch:  # of a run that goes on from an earlier epoch
        files = [model.checkpoint_path.format(epoch=number) for number in (1, 2)]
        for path in files:
            model.keras_model.save_weights(path)
        model.load_weights(files[0])
    before = sorted(tmp_path.rglob("*"))

    def fail(*arguments):
        raise ValueError("no such optimizer")

    monkeypatch.setattr(training_network, "compile_network", fail)
    with pytest.raises(ValueError, match="no such optimizer"):
        model.train(toy_dataset(2), None, 0.01, epochs=2, layers="heads")
    assert sorted(tmp_path.rglob("*")) == before
