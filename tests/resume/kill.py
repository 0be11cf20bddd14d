"""Kill a training at random moments, resume it, and compare what it ends with: ``make resume ARGS="--kills 20"``.

Each trial starts anew, is killed with SIGKILL at a moment drawn uniformly from the time that a whole run takes (imports
and saving included), goes on and ends. All that the checkpoint holds must be the same, bit for bit, but for times.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from safetensors import safe_open

WORKER = Path(__file__).with_name("worker.py")
CHECKPOINT = "checkpoint.safetensors"
TIMED = {"seconds", "waited", "images_per_second", "loader_share", "log"}  # what differs from run to run


def start(folder, backend="numpy", slow=0.0):
    command = [sys.executable, str(WORKER), str(folder), "--backend", backend, "--slow", str(slow)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process):
    """Wait for the end of a run, which must be a good one."""
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()
    return errors.decode()


def timeless(value):
    """A nested value without what is measured by the clock."""
    if isinstance(value, dict):
        return {name: timeless(v) for name, v in value.items() if name not in TIMED}
    return [timeless(v) for v in value] if isinstance(value, list) else value


def steps(folder):
    """How far the checkpoint of a run is; None before the first."""
    return contents(folder)[1]["steps"] if Path(folder, CHECKPOINT).exists() else None


def contents(folder):
    """All that a checkpoint holds: bytes of the tensors, and the rest without times."""
    with safe_open(Path(folder, CHECKPOINT), "numpy") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        metadata = file.metadata()
    return tensors, timeless(json.loads(metadata["training"])), metadata["info"]


def logged(folder):
    """The log without times."""
    lines = Path(folder, "log.jsonl").read_text().splitlines()
    return [timeless(json.loads(line)) for line in lines]


def differences(one, other):
    """The names of what two runs do not have in common."""
    (tensors, state, info), (others, state2, info2) = contents(one), contents(other)
    found = [name for name in tensors | others if not _same(tensors.get(name), others.get(name))]
    found += [name for name in state | state2 if state.get(name) != state2.get(name)]
    found += ["info"] * (info != info2) + ["log"] * (logged(one) != logged(other))
    return found


def _same(a, b):
    if a is None or b is None:
        return False
    return (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--backend", default="numpy")
    parser.add_argument("--seed", type=int, default=0, help="draws the moments")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        finish(start(Path(folder, "warm"), args.backend))  # compiles what is compiled
        finish(start(Path(folder, "whole"), args.backend))
        begin = time.perf_counter()
        finish(start(Path(folder, "again"), args.backend))
        whole = time.perf_counter() - begin
        assert not differences(Path(folder, "whole"), Path(folder, "again")), "two whole runs differ"
        print(f"{args.backend}: a whole run takes {whole:.1f} s", flush=True)
        different = 0
        for number in range(args.kills):
            place, moment = Path(folder, str(number)), rng.uniform(0, whole)
            process = start(place, args.backend)
            time.sleep(moment)
            process.kill()
            process.communicate()
            at = steps(place)
            finish(start(place, args.backend))
            found = differences(Path(folder, "whole"), place)
            different += bool(found)
            stood = "before the first checkpoint" if at is None else f"with a checkpoint of step {at}"
            outcome = f"DIFFERENT: {', '.join(found)}" if found else "the same"
            print(f"killed after {moment:5.2f} s, {stood}: {outcome}", flush=True)
        print(f"{args.kills - different} of {args.kills} ended with the same bits")
    sys.exit(different > 0)


if __name__ == "__main__":
    main()
