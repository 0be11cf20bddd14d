"""Checkpoints: one safetensors file with all that a training needs to go on, and a network to be used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigrad.errors import DataError, DivergedError
from minigrad.nn import models, serialize, torch_file
from minigrad.nn.module import Module
from minigrad.nn.serialize import PathLike
from minigrad.nn.training.preprocessing import Preprocessing
from minigrad.tensor import Tensor

Array = npt.NDArray[Any]

FORMAT = "minigrad 1"
RUNS = Path("runs")  # where the folders of runs are, unless they are named
CHECKPOINT, WEIGHTS = "checkpoint.safetensors", "weights.safetensors"  # names in the folder of a run


@dataclass(frozen=True)
class ModelInfo:
    """What is known about a network in a file, besides its weights.

    Attributes:
        network: the name for ``nn.models.get``; None for one that it does not know.
        options: for that.
        classes: names of the classes.
        preprocessing: from images to what the network takes.
        data_set: what it was trained on.
        epoch: after how many epochs.
        accuracy: on the images that were held out then, or else on the test images; None before the first epoch.
        images: how many it was trained on; None where a file does not say.
    """

    network: str | None
    options: Mapping[str, Any]
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    data_set: str
    epoch: int = 0
    accuracy: float | None = None
    images: int | None = None

    def after(self, epoch: int, accuracy: float | None) -> ModelInfo:
        """The same at another time."""
        return replace(self, epoch=epoch, accuracy=accuracy)

    def to_json(self) -> str:
        """All of it as JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ModelInfo:
        """That of :meth:`to_json`."""
        values = json.loads(text)
        values.update(
            classes=tuple(values["classes"]), preprocessing=Preprocessing.from_json(values["preprocessing"])
        )
        return cls(**values)


def save_weights(path: PathLike, model: Module, info: ModelInfo) -> None:
    """Write a network's weights, under their own names, with what is needed to use it.

    Raises:
        DataError: if the file cannot be written; an earlier one of that name is intact.
    """
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    _write(path, arrays, {"info": info.to_json()})


def save_training(path: PathLike, tensors: Mapping[str, Tensor], state: Mapping[str, Any], info: ModelInfo) -> None:
    """Write all that a training consists of.

    Args:
        path: the file, replaced as a whole.
        tensors: by names that begin with ``model.``, ``ema.``, ``optimizer.``.
        state: the rest, as JSON has it.
        info: about the network.

    Raises:
        DivergedError: if a weight is infinite or NaN; an earlier file is intact.
        DataError: if the file cannot be written; likewise.
    """
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    for name, array in arrays.items():
        if name.startswith("model.") and not np.isfinite(array.astype(np.float32)).all():
            raise DivergedError.of("training", "finite weights", f"infinity or NaN in {name.removeprefix('model.')}")
    _write(path, arrays, {"info": info.to_json(), "training": json.dumps(state)})


def load_training(path: PathLike, device: str | None = None) -> tuple[dict[str, Tensor], dict[str, Any], ModelInfo]:
    """What :func:`save_training` wrote.

    Args:
        path: the file; a folder stands for the checkpoint in it.
        device: where the tensors go; None is the default device.

    Raises:
        DataError: if there is no such file, or it is damaged or not the checkpoint of a training.
    """
    path = find_checkpoint(path)
    tensors, metadata = _read(path, device)
    if "training" not in metadata:
        hint = f"resume from {CHECKPOINT}; {WEIGHTS} is for evaluate and predict"
        raise DataError.of(str(path), "the checkpoint of a training", "weights alone", hint)
    return tensors, json.loads(metadata["training"]), ModelInfo.from_json(metadata["info"])


def load_model(path: PathLike) -> tuple[Module, ModelInfo]:
    """A trained network, in evaluation mode, and what is known about it; of a checkpoint, what would be evaluated.

    Args:
        path: weights or a checkpoint that a :class:`Trainer` wrote, or the folder of its run, which stands for the
            weights there.

    Raises:
        DataError: if there is no such file, or it is damaged or does not say what network it is of.
        StateDictError: if the weights do not fit that network.
    """
    found = find_checkpoint(path, WEIGHTS, CHECKPOINT)
    tensors, metadata = _read(found)
    info = ModelInfo.from_json(metadata["info"])
    if info.network is None:
        hint = "build it, and give load_state_dict what load_weights reads"
        raise DataError.of(str(found), "a network that nn.models.get knows", "one of another program", hint)
    model = models.get(info.network, **info.options)
    model.load_state_dict(weights_of(tensors))
    return model.eval(), info


def weights_of(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of the network in a file of weights or a checkpoint: the averages, if there are any."""
    for prefix in ("ema.", "model."):
        if found := {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}:
            return found
    return dict(tensors)


def new_run(name: str) -> Path:
    """The first of ``runs/name-1``, ``runs/name-2``, ... that does not exist."""
    return next(folder for n in count(1) if not (folder := RUNS / f"{name}-{n}").exists())


def check_folder(folder: Path, resumed: bool) -> None:
    """Raise now what would stop a training from writing into a folder; nothing is made.

    Args:
        folder: of the run.
        resumed: whether the training goes on from a checkpoint.

    Raises:
        DataError: if it has the checkpoint of another training, or cannot be made or written to.
    """
    if not resumed and (folder / CHECKPOINT).exists():
        hint = f"go on with it (--resume {folder}), name another folder, or remove it"
        raise DataError.of(str(folder), "a folder without the checkpoint of another training", CHECKPOINT, hint)
    serialize.check_writable(folder)


def find_checkpoint(path: PathLike, *names: str) -> Path:
    """The file, or the first of ``names`` in the folder.

    Raises:
        DataError: if there is none.
    """
    path = Path(path)
    if not path.is_dir():
        return path
    names = names or (CHECKPOINT,)
    for name in names:
        if (path / name).is_file():
            return path / name
    raise DataError.of(str(path), " or ".join(names), "neither" if len(names) > 1 else "no such file")


def _write(path: PathLike, arrays: Mapping[str, Array], metadata: Mapping[str, str]) -> None:
    serialize.save(path, arrays, {"format": FORMAT, **metadata})


def _read(path: Path, device: str | None = None) -> tuple[dict[str, Tensor], dict[str, str]]:
    """What :func:`_write` wrote."""
    of_pytorch = torch_file.recognize(path)
    metadata = {"format": "one of PyTorch"} if of_pytorch else serialize.read_metadata(path)
    if metadata.get("format") != FORMAT:
        hint = "build its network, and give load_state_dict what nn.load reads from it"
        raise DataError.of(str(path), "a file that `minigrad train` wrote", metadata.get("format", "another"), hint)
    return serialize.load(path, device), metadata
