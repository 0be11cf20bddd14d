"""The networks by name."""

import pytest

from minigrad.errors import ArgumentError, ArgumentTypeError
from minigrad.nn import models


def test_a_network_by_name_is_what_its_function_makes():
    net = models.get("lenet5", num_classes=3, activation="tanh")
    assert repr(net) == repr(models.lenet5(3, "tanh"))
    assert models.available()[0] == "lenet5"


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ArgumentError, match=r"one of lenet5.*'lenet-5'\n  hint: did you mean 'lenet5'\?"):
        models.get("lenet-5")
    with pytest.raises(ArgumentError) as caught:
        models.get("transformer")
    assert "hint" not in str(caught.value)


def test_an_unknown_option_lists_the_known_ones():
    with pytest.raises(ArgumentTypeError, match=r"get\('lenet5'\): expected options among num_classes, .*'classes'"):
        models.get("lenet5", classes=3)
