"""The learning rate over a training from random weights, as a Keras schedule.

rate = warm_up_and_decay(config.LEARNING_RATE, steps=epochs * config.STEPS_PER_EPOCH)
model.train(train, val, learning_rate=rate, epochs=epochs, layers="all")
"""

import keras


def warm_up_and_decay(
    peak: float, steps: int, warm_up: float = 0.1, end: float = 0.05
) -> keras.optimizers.schedules.CosineDecay:
    """A rate that rises in a straight line to its peak, then falls along half a cosine.

    The first steps of a network of random weights are wild, and large ones may end it (warm-up: Goyal et al.
    2017); the last ones should be small (cosine: Loshchilov and Hutter 2017).

    peak: the highest rate; the first step takes a tenth of it. steps: of the whole training; from there on
    the rate stays where it is. warm_up: share of the steps in which it rises, at least one step. end: rate of
    the last step, as a share of the peak.
    Raises ValueError for a peak that is not positive, fewer steps than one, or shares outside 0 to 1.
    """
    if not (peak > 0 and steps >= 1 and 0 <= warm_up < 1 and 0 <= end <= 1):
        raise ValueError(
            "A schedule needs peak > 0, steps >= 1, warm_up in [0, 1) and end in [0, 1]. "
            f"Received: peak={peak}, steps={steps}, warm_up={warm_up}, end={end}"
        )
    rising = max(1, int(steps * warm_up))
    return keras.optimizers.schedules.CosineDecay(
        peak / 10, max(1, steps - rising), alpha=end, warmup_target=peak, warmup_steps=rising
    )
