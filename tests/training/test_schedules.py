"""Learning rates, and the stages of a training that starts from a pretrained backbone."""

import keras
import numpy as np
import pytest

from mrcnn.training.schedules import Stage, remaining, transfer_stages, warm_up_and_decay


def rates(schedule, steps):
    return np.array([float(schedule(step)) for step in range(steps + 1)])


def test_rises_in_a_line_and_falls_along_a_cosine():
    found = rates(warm_up_and_decay(0.01, 100), 100)
    assert found[:11] == pytest.approx(np.linspace(0.001, 0.01, 11), rel=1e-5)
    way = np.linspace(0, np.pi, 91)
    assert found[10:] == pytest.approx(0.01 * (0.05 + 0.95 * (1 + np.cos(way)) / 2), rel=1e-4)


def test_shares_and_short_trainings():
    found = rates(warm_up_and_decay(1.0, 10, warm_up=0.5, end=0.2), 20)
    assert found.argmax() == 5 and found[10:] == pytest.approx(0.2, rel=1e-5)
    assert rates(warm_up_and_decay(1.0, 1), 1) == pytest.approx([0.1, 1.0])


@pytest.mark.parametrize("wrong", [{"peak": 0}, {"steps": 0}, {"warm_up": 1}, {"end": -0.1}])
def test_refuses_what_is_no_schedule(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        warm_up_and_decay(**{"peak": 0.1, "steps": 10, **wrong})


def test_the_heads_train_first_and_faster():
    heads, rest = transfer_stages(0.01, epochs=20, steps_per_epoch=50)
    assert (heads.layers, heads.epochs, rest.layers, rest.epochs) == ("heads", 2, "3+", 20)
    found = rates(heads.learning_rate, 100)
    assert found.max() == pytest.approx(0.02) and found[-1] == pytest.approx(0.001, rel=1e-4)
    found = rates(rest.learning_rate, 900)
    assert found.argmax() == 90 and found.max() == pytest.approx(0.01)
    assert found[-1] == pytest.approx(0.0005, rel=1e-4)


def test_a_single_epoch_has_one_stage():
    assert [(stage.layers, stage.epochs) for stage in transfer_stages(0.01, 1, 10)] == [("3+", 1)]
    two = transfer_stages(0.01, 2, 10)
    assert [(stage.layers, stage.epochs) for stage in two] == [("heads", 1), ("3+", 2)]


def test_the_number_of_steps_must_be_known():
    stages = transfer_stages(0.01, 4, 10)
    with pytest.raises(ValueError, match=r"`steps_per_epoch` must be a number.*one pass"):
        transfer_stages(0.01, 4, None)
    with pytest.raises(ValueError, match=r"`steps_per_epoch` must be a number.*one pass"):
        remaining(stages, 2, None)


def test_a_training_continues_where_it_was():
    schedule = warm_up_and_decay(0.1, 100)
    stages = [Stage(0.3, 2, "heads"), Stage(schedule, 12, "3+")]
    assert remaining(stages, 0, 10) == stages
    assert remaining(stages, 1, 10) == stages
    assert remaining(stages, 2, 10) == stages[1:]
    (left,) = remaining(stages, 6, 10)
    assert (left.epochs, left.layers) == (12, "3+")
    assert float(left.learning_rate(3)) == pytest.approx(float(schedule(43)))
    restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(left.learning_rate))
    assert float(restored(3)) == pytest.approx(float(schedule(43)))
    assert remaining(stages, 12, 10) == []
