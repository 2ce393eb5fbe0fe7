"""Learning-rate schedules for training from scratch.

Pass one to `train` in place of a number:

    rate = warm_up_and_decay(config.LEARNING_RATE, steps=epochs * config.STEPS_PER_EPOCH)
    model.train(train, val, learning_rate=rate, epochs=epochs, layers="all")
"""

import keras


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
