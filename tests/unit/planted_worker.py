"""A worker of the fuzzer that draws programs of a few elements around the primitive that planted backends spoil."""

from hypothesis import strategies as st

from minigrad import dtypes
from minigrad.primitive import TABLE
from minigrad.testing import fuzz_worker
from minigrad.testing.programs import Program, Step
from minigrad.testing.strategies import cases


@st.composite
def chains(draw):
    """A case of the primitive among some of another."""
    program = draw(cases(TABLE["sigmoid"], only=[dtypes.float32]))
    steps = list(program.steps)
    for op in draw(st.lists(st.sampled_from(["neg", "relu", "abs"]), max_size=6)):
        steps.append(Step(op, (len(steps),)))
    return Program(program.inputs, tuple(steps), (len(steps),))


def drawing(kind, backends):
    return cases(TABLE["sigmoid"], only=[dtypes.float32]) if kind == "rows" else chains()


if __name__ == "__main__":
    fuzz_worker.drawing = drawing
    fuzz_worker.main()
