"""Recipes: their values, the schedules that they describe, and the recipes that the course names."""

import json
import math

import pytest

from minigrad import Tensor, nn
from minigrad.errors import ArgumentError, ArgumentTypeError
from minigrad.nn.optim import SGD, Adam, AdamW
from minigrad.nn.training import RECIPES, Recipe, recipe, recipe_for
from minigrad.nn.training.augmentation import AUGMENTATIONS, augmentation
from minigrad.nn.training.optimization import Schedule, make_optimizer


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "newton"}, {"schedule": "stairs"}, {"precision": "float8"}, {"augment": (("mirror", 1.0),)},
        {"epochs": 0}, {"batch_size": 0}, {"accumulate": 0}, {"lr": 0.0}, {"lr": math.nan}, {"momentum": -0.1},
        {"weight_decay": -1.0}, {"gamma": 1.0}, {"label_smoothing": 1.5}, {"clip_norm": 0.0}, {"ema": 1.0},
        {"stop_after": 0}, {"resize": 0}, {"warmup": 5.0}, {"schedule": "milestones"}, {"milestones": (1.0,)},
        {"validation": -1}, {"patience": -1},
    ],
    ids=str,
)  # fmt: skip
def test_values_that_make_no_sense(wrong):
    with pytest.raises(ArgumentError, match=next(iter(wrong))):
        Recipe("lenet5", **wrong)


def test_a_field_that_does_not_exist():
    with pytest.raises(ArgumentTypeError, match="learning_rate"):
        Recipe("lenet5").replace(learning_rate=1)


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_survives_json_and_its_network_exists(name):
    found = recipe(name)
    assert Recipe.from_json(json.loads(json.dumps(found.to_json()))) == found
    assert found.network in nn.models.available()


def test_json_of_a_later_version_has_fields_more_and_of_an_earlier_one_fewer():
    values = Recipe("lenet5", lr=0.5).to_json()
    del values["ema"]
    assert Recipe.from_json({**values, "sharpness": 2}) == Recipe("lenet5", lr=0.5)


def test_every_network_has_a_recipe():
    assert all(recipe_for(name).network == name for name in nn.models.available())
    with pytest.raises(ArgumentError, match="cifar-resnet"):
        recipe("lenet-1789")


def test_the_recipes_of_the_course():
    alexnet, resnet = recipe("alexnet"), recipe("resnet")
    assert (alexnet.batch_size, alexnet.momentum, alexnet.lr, alexnet.weight_decay) == (128, 0.9, 1e-2, 5e-4)
    assert (resnet.batch_size, resnet.momentum, resnet.lr, resnet.weight_decay) == (256, 0.9, 0.1, 1e-4)
    for found in (alexnet, resnet):
        assert (found.optimizer, found.schedule, found.gamma) == ("sgd", "plateau", 0.1)


def test_optimizers():
    w = [Tensor([1.0], requires_grad=True)]
    chosen = Recipe("x", lr=0.5, weight_decay=0.25)
    made = [make_optimizer(chosen.replace(optimizer=name), w) for name in ("sgd", "adam", "adamw")]
    assert [type(o) for o in made] == [SGD, Adam, AdamW]
    assert all(o.param_groups[0]["lr"] == 0.5 and o.param_groups[0]["weight_decay"] == 0.25 for o in made)
    assert made[0].param_groups[0]["momentum"] == 0.9


# Learning rates of each step of four epochs of five steps; accuracy after the epochs is 0.5, 0.6, 0.6, 0.6.
STEPS, ACCURACIES = 5, (0.5, 0.6, 0.6, 0.6)


def rates(**fields):
    chosen = Recipe("x", epochs=4, lr=1.0, **fields)
    optimizer = make_optimizer(chosen, [Tensor([1.0], requires_grad=True)])
    schedule, found = Schedule(chosen, optimizer, STEPS), []
    for accuracy in ACCURACIES:
        for _ in range(STEPS):
            found.append(schedule.rates[0])
            schedule.after_step()
        schedule.after_epoch(accuracy)
    return found, chosen


def half_cosine(n, length):
    return 0.5 * (1 + math.cos(math.pi * n / length))


@pytest.mark.parametrize(
    "fields, expected",
    [
        ({"schedule": "constant"}, lambda n: 1.0),
        ({"schedule": "constant", "warmup": 1}, lambda n: min(1.0, (1 + n) / 6)),
        ({"schedule": "cosine"}, lambda n: half_cosine(n, 20)),
        ({"schedule": "cosine", "warmup": 1}, lambda n: (1 + n) / 6 if n < 5 else half_cosine(n - 5, 15)),
        ({"schedule": "milestones", "milestones": (1, 3), "gamma": 0.5}, lambda n: 0.5 ** ((n >= 5) + (n >= 15))),
        (
            {"schedule": "milestones", "milestones": (2,), "warmup": 1},
            lambda n: (1 + n) / 6 if n < 5 else 1.0 if n < 10 else 0.1,
        ),
        ({"schedule": "plateau", "patience": 0}, lambda n: 1.0 if n < 15 else 0.1),
        ({"schedule": "plateau", "patience": 3}, lambda n: 1.0),
        ({"schedule": "plateau", "patience": 0, "warmup": 1}, lambda n: min(1.0, (1 + n) / 6) if n < 15 else 0.1),
    ],
    ids=lambda value: " ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else "",
)
def test_learning_rates(fields, expected):
    found, _ = rates(**fields)
    assert found == pytest.approx([expected(n) for n in range(4 * STEPS)], rel=1e-9)


def test_one_cycle_has_its_peak_where_the_warm_up_ends():
    found, _ = rates(schedule="one-cycle", warmup=1)
    assert max(found) == found[STEPS - 1] == pytest.approx(1.0) and found[0] == pytest.approx(0.04)
    assert found[-1] < 1e-5 and found == [*sorted(found[:STEPS]), *sorted(found[STEPS:], reverse=True)]
    for fields in ({"momentum": 0.0}, {"optimizer": "adam"}):
        assert rates(schedule="one-cycle", warmup=1, **fields)[0] == found


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle", "milestones", "plateau"])
def test_a_schedule_goes_on_where_its_state_was_taken_or_where_it_is_replayed(schedule):
    fields = {"milestones": (1,)} if schedule == "milestones" else {}
    chosen = Recipe("x", epochs=4, lr=1.0, warmup=0.5, schedule=schedule, patience=0, **fields)

    def make():
        optimizer = make_optimizer(chosen, [Tensor([1.0], requires_grad=True)])
        return optimizer, Schedule(chosen, optimizer, STEPS)

    def rest(optimizer, made):
        found = []
        for n in range(12, 20):
            found.append(made.rates[0])
            made.after_step()
            if n == 14:
                made.after_epoch(0.5)
        return found

    optimizer, made = make()
    made.replay(12, [0.5, 0.5])
    state = json.loads(json.dumps([made.state_dict(), optimizer.state_dict()["param_groups"]]))
    other, loaded = make()
    other.load_state_dict({"state": {}, "param_groups": state[1]})
    loaded.load_state_dict(state[0])
    again = make()
    again[1].replay(12, [0.5, 0.5])
    expected = rest(optimizer, made)
    assert rest(other, loaded) == expected and rest(*again) == expected


def test_augmentation_by_name():
    made = augmentation([(name, 0.5) for name in AUGMENTATIONS], (6, 4))
    assert len({type(transform).__name__ for transform in made}) == len(AUGMENTATIONS)
