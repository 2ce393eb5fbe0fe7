"""Learning-rate schedules for training from scratch, and stages for training a pretrained backbone.

Pass a schedule to `train` in place of a number:

    rate = warm_up_and_decay(config.LEARNING_RATE, steps=epochs * config.STEPS_PER_EPOCH)
    model.train(train, val, learning_rate=rate, epochs=epochs, layers="all")

Train in stages:

    for stage in transfer_stages(config.LEARNING_RATE, epochs, config.STEPS_PER_EPOCH):
        model.train(train, val, **stage._asdict())
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import keras

LearningRate: TypeAlias = float | keras.optimizers.schedules.LearningRateSchedule


def warm_up_and_decay(
    peak: float, steps: int, warm_up: float = 0.1, end: float = 0.05
) -> keras.optimizers.schedules.CosineDecay:
    """Return a learning rate that rises linearly to its peak, then falls along half a cosine.

    Random weights give large gradients at first, and a high learning rate may then diverge (warm-up: Goyal et
    al., 2017). Small steps at the end let the weights converge (cosine: Loshchilov and Hutter, 2017).

    Args:
        peak: The highest learning rate. The rise starts at a tenth of it.
        steps: Number of steps of the whole training. Later steps keep the last learning rate.
        warm_up: Share of the steps in which the learning rate rises; at least one step.
        end: Learning rate of the last step, as a share of `peak`.

    Raises:
        ValueError: If `peak` is not positive, `steps` is less than 1, or a share is outside 0 to 1.
    """
    if not (peak > 0 and steps >= 1 and 0 <= warm_up < 1 and 0 <= end <= 1):
        raise ValueError(
            "A schedule needs `peak` > 0, `steps` >= 1, `warm_up` in [0, 1) and `end` in [0, 1]. "
            f"Received: peak={peak}, steps={steps}, warm_up={warm_up}, end={end}"
        )
    warm_up_steps = max(1, int(steps * warm_up))
    return keras.optimizers.schedules.CosineDecay(
        peak / 10,
        max(1, steps - warm_up_steps),
        alpha=end,
        warmup_target=peak,
        warmup_steps=warm_up_steps,
    )


class Stage(NamedTuple):
    """A part of a training: arguments of `MaskRCNN.train`. `epochs` counts from the start of the training."""

    learning_rate: LearningRate
    epochs: int
    layers: str


def transfer_stages(peak: float, epochs: int, steps_per_epoch: int) -> list[Stage]:
    """Return the two stages that train a network whose backbone is pretrained and whose heads are random.

    The heads train alone for a tenth of the epochs, at twice the learning rate, because the large gradients
    of random heads would change the backbone for the worse. Then stages 3 to 5 of the backbone train, too.
    Its first layers, which see edges and colors, keep their weights. In each part, the learning rate rises
    and decays as in `warm_up_and_decay`.

    Args:
        peak: The highest learning rate of the second stage.
        epochs: Number of epochs of the whole training. A single epoch has no first stage.
        steps_per_epoch: Number of steps of each epoch.

    Raises:
        ValueError: If `steps_per_epoch` is None; see also `warm_up_and_decay`.
    """
    _check_steps(steps_per_epoch)
    alone = max(1, round(epochs / 10)) if epochs > 1 else 0
    stages = [Stage(warm_up_and_decay(peak, (epochs - alone) * steps_per_epoch), epochs, "3+")]
    if alone:
        stages.insert(0, Stage(warm_up_and_decay(2 * peak, alone * steps_per_epoch), alone, "heads"))
    return stages


@keras.saving.register_keras_serializable("mrcnn")
class Continued(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule that begins at a later step, for a training that continues.

    Args:
        schedule: The schedule of the whole training.
        first: The step of `schedule` to begin with.
    """

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, first: int) -> None:
        self.schedule, self.first = schedule, first

    def __call__(self, step: Any) -> Any:
        """Return the learning rate of a step, counted from `first`."""
        return self.schedule(step + self.first)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {"schedule": keras.saving.serialize_keras_object(self.schedule), "first": self.first}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Continued":
        """Create a schedule from `get_config`."""
        return cls(keras.saving.deserialize_keras_object(config["schedule"]), config["first"])


def remaining(stages: Sequence[Stage], epoch: int, steps_per_epoch: int) -> list[Stage]:
    """Return what is left of a training that was interrupted.

    Args:
        stages: The stages of the whole training.
        epoch: Number of epochs that are done.
        steps_per_epoch: Number of steps of each epoch.

    Returns:
        The stages that are not finished. The learning rate of the first one continues where it stopped.

    Raises:
        ValueError: If `steps_per_epoch` is None.
    """
    _check_steps(steps_per_epoch)
    left = []
    begin = 0
    for stage in stages:
        steps = max(0, epoch - begin) * steps_per_epoch
        begin = stage.epochs
        if epoch >= stage.epochs:
            continue
        rate = stage.learning_rate
        if steps and callable(rate):
            rate = Continued(rate, steps)
        left.append(Stage(rate, stage.epochs, stage.layers))
    return left


def _check_steps(steps_per_epoch: int | None) -> None:
    if steps_per_epoch is None:
        raise ValueError(
            "`steps_per_epoch` must be a number. Received: None, which as STEPS_PER_EPOCH means one pass "
            "over the images. Pass the number of images divided by the batch size, rounded up."
        )
