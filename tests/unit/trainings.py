"""A quick training, and what tests of trainings compare."""

import numpy as np
from images import blob_data, small_net

import minigrad
from minigrad.nn.training import Recipe, Trainer

QUICK = Recipe("small", epochs=2, batch_size=32, lr=0.1, weight_decay=0.0, seed=1)


def trainer(recipe=QUICK, data=None, net=None, **options):
    minigrad.manual_seed(recipe.seed)
    return Trainer(recipe, data or blob_data(side=14), net or small_net(), **options)


def weights(made):
    return {name: tensor.numpy() for name, tensor in made.model.state_dict().items()}


def same_weights(one, other):
    assert one.keys() == other.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], other[name])
