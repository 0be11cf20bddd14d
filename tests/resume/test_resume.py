"""A training that is killed twice and resumed ends with the same bits; ``make resume`` tries twenty random moments."""

import time

import kill
import pytest


@pytest.mark.parametrize("backend", ["numpy"])
def test_killed_twice(tmp_path, backend):
    whole = kill.start(tmp_path / "whole", backend)
    for wanted in (5, 14):
        process = kill.start(tmp_path / "killed", backend, slow=0.05)
        while (kill.steps(tmp_path / "killed") or 0) < wanted:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.02)
        process.kill()
        process.communicate()
    kill.finish(whole)
    kill.finish(kill.start(tmp_path / "killed", backend))
    assert kill.steps(tmp_path / "killed") == 24 and kill.differences(tmp_path / "whole", tmp_path / "killed") == []
