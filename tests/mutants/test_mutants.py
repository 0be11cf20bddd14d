"""Planted faults stay applicable."""

import plant
import pytest


@pytest.mark.parametrize("fault", plant.FAULTS, ids=lambda fault: fault.name)
def test_fault_applies(fault):
    assert fault.old != fault.new
    compile(plant.mutated(fault), fault.module, "exec", dont_inherit=True)
