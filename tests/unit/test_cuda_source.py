"""Generated CUDA compiled by NVIDIA's compiler, down to the machine code of one kind of GPU, without one."""

import numpy as np
import nvrtc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from steps import training
from test_cstyle_library import functions_of_all

from minigrad import Tensor, dtypes, jit, nn
from minigrad import device as devices
from minigrad.backends.cstyle.cuda import CUDA
from minigrad.backends.cstyle.library import Functions
from minigrad.backends.cstyle.source import NAME
from minigrad.testing import strategies
from minigrad.testing.evaluate import run
from minigrad.testing.programs import on, outcomes

PARTS = 4
TOGETHER = 80  # kernels in one program


@pytest.fixture
def sources(monkeypatch):
    """A device that only keeps what was rendered."""
    return nvrtc.Sources().opened(monkeypatch).backend


def compiled(launches):
    """All functions of all kernels, compiled."""
    found = {}
    for first in range(0, len(launches), TOGETHER):
        some = launches[first : first + TOGETHER]
        made = nvrtc.compiled(nvrtc.source(some))
        stages = [stage for rendered in {launch.rendered for launch in some} for stage in rendered.stages]
        assert len(made.functions) == len(stages) and made.cubin.startswith(b"\x7fELF")
        found |= {f"{first} {name}": function for name, function in made.functions.items()}
    return found


@pytest.mark.parametrize("part", range(PARTS))
def test_every_row_of_the_table_compiles(sources, part):
    """Every primitive and its gradient, all dtypes among the examples."""

    @settings(max_examples=2)
    @given(data=st.data())
    def rows(data):
        for op in strategies.rows()[part::PARTS]:
            program = data.draw(strategies.cases(op, only=list(dtypes.ALL)))
            run(outcomes(program, program.build(on(sources.name))))

    rows()
    assert len(sources.launches) > len(strategies.rows()) // PARTS
    assert compiled(sources.launches)


def test_every_function_of_the_library_compiles():
    functions = Functions(CUDA)
    calls = []
    for n, (name, dtype, arguments, result) in enumerate(functions_of_all(CUDA, 1)):
        parameters = [f"const {CUDA.storage[kind]} *b{i}" for i, kind in enumerate(arguments)]
        given = ", ".join(f"b{i}[0]" for i in range(len(arguments)))
        head = CUDA.kernel(", ".join([*parameters, f"{CUDA.storage[result]} *out"]), (1,)).replace(NAME, f"k{n}")
        calls.append(f"{head} {{ out[0] = {functions.call(name, 1, dtype)}({given}); }}")
    made = nvrtc.compiled("\n".join([CUDA.prelude(True), functions.text(), *calls]))
    assert len(made.functions) == len(calls)


def test_lenets_training_step_compiles(sources):
    with devices.backend(sources.name):
        model = nn.models.lenet5()
        step = training(jit, model, nn.optim.SGD(model.parameters(), 0.1, momentum=0.9))
        step(Tensor(np.zeros((128, 1, 28, 28), np.float32)), Tensor(np.zeros(128, np.int64)))
    cores = {launch.kernel.op for launch in sources.launches}
    assert cores >= {"conv", "conv_weight_grad", "conv_input_grad", "matmul"}
    functions = compiled(sources.launches)
    assert [name for name, function in functions.items() if function.spilled] == []
