"""The cheap half of ``make evidence ARGS=agreement``: logits of two networks at full input size, on every backend."""

import pytest
from agreement import distances


@pytest.mark.parametrize("name", ["alexnet", "resnet18"])
def test_logits_at_full_input_size(device, name):
    (logits,) = distances(name, device, steps=0)
    assert logits.own < 1e-5  # sums of up to 9216 products, in 8 or 18 layers
    assert logits.holds, logits
