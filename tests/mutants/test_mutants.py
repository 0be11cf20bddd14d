"""Planted faults stay applicable, and a few of them, one of each kind of module, are noticed."""

import plant
import pytest
import run

import minigrad

# Each with tests that take the same few cases in every process: what Hypothesis draws depends on what is imported.
ALONE = "test_each_rewrite_rule_alone_preserves_values_and_the_signs_of_zeros"
FEW = {
    "take_gradient_not_added": ("numpy", "unit/test_indexing.py::test_gradient_of_reading"),
    "divide_loses_sign": ("numpy", "null/test_schedule.py::" + ALONE),
    "assignment_before_copy": ("numpy", "unit/test_indexing.py::test_writing"),
    "argument_not_copied": ("numpy", "unit/test_jit.py::test_arguments_may_alias_and_be_views"),
    "numpy_max_pool_is_zero_padded": ("numpy", "backend/test_conv_pool.py::test_nan_wins_and_padding_does_not"),
    "written_in_place_twice": ("opencl", "backend/test_in_place.py::test_each_element_once"),
    "reduction_parts": ("opencl", "backend/test_sizes.py::test_reductions_of_long_rows"),
}


@pytest.mark.parametrize("fault", plant.FAULTS, ids=lambda fault: fault.name)
def test_fault_applies(fault):
    assert fault.old != fault.new
    compile(plant.mutated(fault), fault.module, "exec", dont_inherit=True)


@pytest.mark.parametrize("name", FEW)
def test_fault_is_noticed(name, tmp_path):
    backend, test = FEW[name]
    reason = minigrad.available_backends()[backend]
    if reason is not None:
        pytest.skip(reason)
    code, output = run.run(name, backend, str(tmp_path), f"tests/{test}")
    assert code == 1 and "FAILED" in output, output
