"""The training loop: one class, used by ``minigrad train`` and the examples; a recipe says what varies."""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path
from typing import Any

import minigrad
from minigrad import random
from minigrad.errors import ArgumentError, DataError, DivergedError, StateDictError
from minigrad.interrupt import Interrupts
from minigrad.nn import models
from minigrad.nn.amp import GradScaler
from minigrad.nn.data import DataLoader, random_split
from minigrad.nn.data.transforms import Compose, Transform
from minigrad.nn.module import Module
from minigrad.nn.serialize import PathLike
from minigrad.nn.training.augmentation import CUTTING, augmentation
from minigrad.nn.training.checkpoint import (
    CHECKPOINT,
    WEIGHTS,
    ModelInfo,
    check_folder,
    load_training,
    save_training,
    save_weights,
)  # fmt: skip
from minigrad.nn.training.command import command
from minigrad.nn.training.display import Display
from minigrad.nn.training.ema import ExponentialMovingAverage
from minigrad.nn.training.environment import environment, warn_of_differences
from minigrad.nn.training.evaluate import TOP, Evaluation, Evaluator, held_out_batches
from minigrad.nn.training.log import EventWriter, Log, has_tensorboard, read_log
from minigrad.nn.training.metrics import Best, Meter
from minigrad.nn.training.optimization import Schedule, make_optimizer
from minigrad.nn.training.plots import announce, draw
from minigrad.nn.training.preprocessing import Preprocessing
from minigrad.nn.training.recipe import Recipe
from minigrad.nn.training.sources import ImageSource
from minigrad.nn.training.step import Step, checkpoint_children
from minigrad.tensor import Tensor

LOG, EVENTS = "log.jsonl", "events"  # names in the folder of a run
LOG_STEPS = 50  # steps between two entries of the log


class Trainer:
    """Trains a network to tell classes of images apart, as a recipe says, and shows how it goes.

    :meth:`fit` is the loop. It prints a row for each epoch, with a progress bar below on a terminal, and at last
    ``test accuracy: 99.12 %``. In the folder ``out`` there will be ``checkpoint.safetensors`` (all that is needed to
    go on, saved from time to time and after each epoch), ``weights.safetensors`` (what to use: the weights of the last
    epoch, or of the best one where validation images tell), ``log.jsonl``, pictures and event files.

    A training that was killed, at any moment, and resumed ends with the same weights, bit for bit, as one that was
    not: on the same backend, device, number of threads and measured tiles. Ctrl-C and SIGTERM save first.

    Args:
        recipe: what to do.
        images: to learn from and to measure on.
        model: the network; by default the one that the recipe names, with initial weights drawn from its seed.
        out: a folder for what is written; None writes nothing.
        workers: threads that prepare batches.
        save_seconds: how often to save within an epoch.
        save_steps: likewise, in steps; None: only by time.

    Attributes:
        model: as said.
        history: a record for each epoch.
        evaluation: what the network said about the images that accuracy is measured on, after the last epoch.

    Raises:
        ArgumentError: if the images do not fit the network, or too many are held out.
        DataError: if ``out`` cannot be written to.

    >>> from minigrad import nn
    >>> digits = nn.data.mnist()  # doctest: +SKIP
    >>> Trainer(nn.training.recipe("lenet"), digits, out="runs/lenet").fit().top1  # doctest: +SKIP
    epoch   loss ...
    test accuracy: 99.19 %
    0.9919
    """

    def __init__(
        self,
        recipe: Recipe,
        images: ImageSource,
        model: Module | None = None,
        *,
        out: PathLike | None = None,
        workers: int = 1,
        save_seconds: float = 60.0,
        save_steps: int | None = None,
    ) -> None:
        self.recipe, self.images, self.out = recipe, images, None if out is None else Path(out)
        self.save_seconds, self.save_steps = save_seconds, save_steps
        named = model is None
        if model is None:
            minigrad.manual_seed(recipe.seed)
            model = models.get(recipe.network, num_classes=len(images.classes), **recipe.options)
        self.model = model
        self.device = next(model.parameters()).device
        self.preprocessing = _preprocessing(recipe, images, model)
        self.info = ModelInfo(
            recipe.network if named else None,
            {"num_classes": len(images.classes), **recipe.options},
            images.classes,
            self.preprocessing,
            recipe.data_set,
            images=len(images.train) - recipe.validation,
        )
        train, self.held_out = images.train, images.test
        if recipe.validation:
            if recipe.validation >= len(train):
                raise ArgumentError.of("Trainer", f"fewer than {len(train)} images held out", recipe.validation)
            train, self.held_out = random_split(train, [len(train) - recipe.validation, recipe.validation])
        size = train[0][0].shape[1:]
        self.loader = DataLoader(
            train, recipe.batch_size, shuffle=True, num_workers=workers, seed=recipe.seed, device=self.device,
            transform=_composed(_training_transforms(recipe, self.preprocessing, size)),
        )  # fmt: skip
        if recipe.checkpoint_gradients:
            checkpoint_children(model)
        self.optimizer = make_optimizer(recipe, model.parameters())
        self.schedule = Schedule(recipe, self.optimizer, len(self.loader))
        self.scaler = GradScaler(enabled=recipe.precision == "float16", device=self.device)
        self.ema = None if recipe.ema is None else ExponentialMovingAverage(model, recipe.ema)
        self.step = Step(recipe, model, self.optimizer, self.preprocessing, self.scaler, self.ema)
        self.evaluator = Evaluator([self.evaluated], self.preprocessing)
        self.evaluation: Evaluation | None = None
        self.epoch = self.steps = 0
        self.meter, self.best = Meter(), Best(recipe.stop_after)
        self.history: list[dict[str, Any]] = []
        self._logged = self.meter.state_dict()  # what the meter showed at the last entry of the log
        self._rate = recipe.lr  # of the last step
        self._seconds = self._waited = 0.0  # of this epoch, before the process began
        # Images and seconds of this epoch after which speed is measured: the process's first step compiles.
        self._speed_from: tuple[int, float] | None = None
        self._start_clock()
        self._resumed = False
        self._saved_log = 0
        self._log: Log | None = None
        self._events: EventWriter | None = None

    @property
    def evaluated(self) -> Module:
        """The network that is evaluated and saved: the average of weights if there is one."""
        return self.model if self.ema is None else self.ema.model

    @property
    def is_over(self) -> bool:
        """Whether there is nothing left to train: all epochs are done, or accuracy no longer grows."""
        return self.epoch >= self.recipe.epochs or self.best.is_out_of_patience

    # The loop.

    def fit(self) -> Evaluation:
        """Train, from where it stands to the last epoch, and give what the network then says about the test images.

        Raises:
            DivergedError: if the loss is infinite or NaN; the last good checkpoint is kept.
            DataError: if a file cannot be written, or the folder has another training's checkpoint; that is intact.
            SystemExit: after Ctrl-C or SIGTERM, with code 130 or 143, when all is saved.
        """
        images, top5 = len(self.loader.dataset), len(self.images.classes) > TOP
        done = self.epoch * images + self.meter.count
        label = "validation" if self.recipe.validation else "test"
        try:
            with Interrupts() as self._interrupts:
                self._open()
                with Display(self.recipe.epochs, images, done, label, top5) as self.display:
                    self._stop_if_asked()
                    while not self.is_over:
                        self._train_epoch()
                        self._end_epoch()
        except DivergedError as error:
            raise DivergedError(f"{error}\n  {self._last_good()}") from None
        finally:
            self._close()
        try:
            return self._conclude()
        except KeyboardInterrupt:
            if self.out is not None:
                print(f"the training is over and saved in {self.out}; not all pictures are drawn", file=sys.stderr)
            raise

    def _conclude(self) -> Evaluation:
        """Say how good the network is on the test images, and draw how it went."""
        test = self.evaluation
        if test is None or self.recipe.validation:
            test = self.evaluate(self.images.test)
        drawn = self.out is not None and announce(self.out)
        print(f"test accuracy: {100 * test.top1:.2f} %", flush=True)
        if self.out is not None and drawn:
            draw(self.out, read_log(self.out / LOG), test, self.images.test, self.images.classes)
        return test

    def _train_epoch(self) -> None:
        self.model.train()
        self._start_clock()
        for images, labels in self.loader:
            loss, correct = self.step(images, labels)
            self.meter.add(loss, correct, len(labels))
            self._rate = self.schedule.rates[0]
            self.schedule.after_step()
            self.steps += 1
            if self.steps % LOG_STEPS == 0:
                self._log_steps()
            if self._speed_from is None:
                self._speed_from = self.meter.count + len(labels), self._clock()[0]
            self.display.advance(self.epoch, len(labels), self.meter, self._speed)
            self._save_if_due()

    def _end_epoch(self) -> None:
        loss, accuracy = self.meter.read()
        seconds, waited = self._clock()
        speed = self._speed() or self.meter.count / seconds
        self.display.evaluating(self.epoch)
        self.evaluation = held_out = self.evaluate(self.held_out)
        record = {
            "epoch": self.epoch + 1,
            "steps": self.steps,
            "loss": loss,
            "accuracy": accuracy,
            "held_out_loss": held_out.loss,
            "held_out_accuracy": held_out.top1,
            "held_out_top5": held_out.top5,
            "lr": self._rate,
            "seconds": seconds,
            "images_per_second": speed,
            "loader_share": waited / seconds,
        }
        self.display.row(record)  # before anything is written: that may fail
        self.schedule.after_epoch(held_out.top1)
        better = self.best.note(held_out.top1)
        self.history.append(record)
        self.epoch += 1
        self.meter = Meter()
        self._logged = self.meter.state_dict()
        self._seconds = self._waited = 0.0
        self._speed_from = 0, 0.0
        self._start_clock()
        self._log_epoch(record)
        if self.out is not None:
            if better or not self.recipe.validation:  # test images must not choose
                save_weights(self.out / WEIGHTS, self.evaluated, self._info())
            self.save()
        self._stop_if_asked()

    def evaluate(self, dataset: Any) -> Evaluation:
        """What the network says about images, and how right that is."""
        return self.evaluator(held_out_batches(dataset, self.preprocessing, self.device))

    # Saving and resuming.

    def save(self) -> None:
        """Write the checkpoint, if there is a folder for it.

        Raises:
            DivergedError: if the loss or a weight is infinite or NaN; the checkpoint before is intact.
            DataError: if it cannot be written; likewise.
        """
        if self.out is None:
            return
        seconds, waited = self._clock()
        state = {
            "recipe": self.recipe.to_json(),
            "environment": environment(self.device),
            "epoch": self.epoch,
            "steps": self.steps,
            "loader": self.loader.state_dict(),
            "random": random.get_rng_state(),
            "meter": self.meter.state_dict(),
            "logged": self._logged,
            "optimizer": self.optimizer.state_dict()["param_groups"],
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "best": [self.best.value, self.best.stale],
            "history": self.history,
            "log": 0 if self._log is None else self._log.size,
            "rate": self._rate,
            "seconds": seconds,
            "waited": waited,
        }
        save_training(self.out / CHECKPOINT, self._tensors(), state, self._info())
        self._saved = time.perf_counter()

    def resume(self, path: PathLike) -> None:
        """Take over the state of a checkpoint, to go on from there.

        With the recipe of the checkpoint this is as if the training had never stopped. With another one (more epochs,
        say), which is printed, the learning rate is what that recipe says for this epoch; the state of another kind of
        optimizer begins anew.

        Args:
            path: a checkpoint, or the folder of a run.

        Raises:
            DataError: if there is none.
            StateDictError: if it is of another network, or of other training images or batches.
        """
        tensors, state, _ = load_training(path, self.device)
        before = Recipe.from_json(state["recipe"])
        if before.network != self.recipe.network:
            hint = "resume with the network of the checkpoint, or train another from the beginning"
            raise StateDictError.of(str(path), f"the checkpoint of {self.recipe.network}", before.network, hint)
        warn_of_differences(state["environment"], environment(self.device))
        self.loader.load_state_dict(state["loader"])
        self.model.load_state_dict(_part(tensors, "model."))
        if self.ema is not None:
            averages = _part(tensors, "ema.") or _part(tensors, "model.")
            self.ema.model.load_state_dict(averages)
            self.ema.updates.assign(tensors["ema-updates"] if "ema-updates" in tensors else 0.0)
        same = before == self.recipe
        anew = before.optimizer != self.recipe.optimizer
        if not same:
            end = "; the optimizer's state begins anew" if anew else ""
            print(f"another recipe than before: {', '.join(before.changes(self.recipe))}{end}")
        moments: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimizer.").items() if not anew else ():
            number, _, entry = name.partition(".")
            moments.setdefault(int(number), {})[entry] = tensor
        groups = state["optimizer"] if same else self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": [_tuples(group) for group in groups]})
        self.epoch, self.steps, self.history = state["epoch"], state["steps"], state["history"]
        if same:
            self.schedule.load_state_dict(state["schedule"])
        else:
            self.schedule.replay(self.steps, [record["held_out_accuracy"] for record in self.history])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.meter.load_state_dict(state["meter"])
        self._logged = state["logged"]
        self.best.value, self.best.stale = state["best"]
        self._rate, self._saved_log = state["rate"], state["log"]
        self._seconds, self._waited = state["seconds"], state["waited"]
        random.set_rng_state(tuple(state["random"]))
        self._resumed = True

    def _tensors(self) -> dict[str, Tensor]:
        found = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        if self.ema is not None:
            found |= {f"ema.{name}": tensor for name, tensor in self.ema.model.state_dict().items()}
            found["ema-updates"] = self.ema.updates
        for number, moments in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{number}.{name}": tensor for name, tensor in moments.items()}
        return found

    def _info(self) -> ModelInfo:
        accuracy = self.history[-1]["held_out_accuracy"] if self.history else None
        return self.info.after(self.epoch, accuracy)

    def _save_if_due(self) -> None:
        by_steps = self.save_steps is not None and self.steps % self.save_steps == 0
        if self.out is not None and (by_steps or time.perf_counter() - self._saved > self.save_seconds):
            self.save()
        self._stop_if_asked()

    def _stop_if_asked(self) -> None:
        number = self._interrupts.received
        if number is None:
            return
        self.display.stop()
        when = "after the last epoch" if self.is_over else f"in epoch {self.epoch + 1} of {self.recipe.epochs}"
        where = f"stopped {when}, after {self.steps} steps"
        if self.out is None:
            print(f"{where}; nothing was saved", file=sys.stderr)
        else:
            self.save()
            by_name = f"{command()} train --resume {shlex.quote(str(self.out))} --backend {self.device}"
            way = by_name if self.info.network else f"make the trainer again, then resume({str(self.out)!r}) and fit()"
            print(f"{where}; all is saved in {self.out / CHECKPOINT}\nto go on: {way}", file=sys.stderr)
        raise SystemExit(128 + number)

    def _last_good(self) -> str:
        if self.out is None or not (self.out / CHECKPOINT).exists():
            return "nothing was saved"
        _, state, _ = load_training(self.out)
        return f"the last good checkpoint, after {state['steps']} steps, is {self.out / CHECKPOINT}"

    def _start_clock(self) -> None:
        self._began = self._saved = time.perf_counter()
        self._waited_before = self.loader.waited

    def _clock(self) -> tuple[float, float]:
        """Seconds of this epoch, and how many of them the loader was waited for."""
        seconds = self._seconds + time.perf_counter() - self._began
        return seconds, self._waited + self.loader.waited - self._waited_before

    def _speed(self) -> float | None:
        """Images a second in this epoch, without the first step of the process; None if there are no others."""
        images, seconds = self._speed_from or (0, 0.0)
        more = self.meter.count - images
        return more / (self._clock()[0] - seconds) if more > 0 else None

    # The log.

    def _open(self) -> None:
        """Find out now, not after the first epoch, whether the folder can be written to."""
        if self.out is None:
            return
        check_folder(self.out, self._resumed)
        try:
            self.out.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError.of(str(self.out), "a folder to write into", error.strerror) from error
        self._log = Log(self.out / LOG, self._saved_log)
        self._resumed = True  # the folder is this training's from now on
        if has_tensorboard():
            self._events = EventWriter(self.out / EVENTS, self.steps)
        if not self._log.size:
            self._log.write("start", {"recipe": self.recipe.to_json(), "environment": environment(self.device)})
            self.save()

    def _close(self) -> None:
        for open_one in (self._log, self._events):
            if open_one is not None:
                open_one.close()
        self._log = self._events = None

    def _log_steps(self) -> None:
        now, before = self.meter.state_dict(), self._logged
        count = max(now["count"] - before["count"], 1)
        loss, accuracy = ((now[name] - before[name]) / count for name in ("loss", "correct"))
        self._logged = now
        if self._log is not None:
            self._log.write("steps", {"steps": self.steps, "loss": loss, "accuracy": accuracy, "lr": self._rate})
        if self._events is not None:
            self._events.write(self.steps, {"loss/train": loss, "accuracy/train": accuracy, "lr": self._rate})

    def _log_epoch(self, record: dict[str, Any]) -> None:
        if self._log is not None:
            self._log.write("epoch", record)
        if self._events is not None:
            kind = "validation" if self.recipe.validation else "test"
            shown = {"loss": "held_out_loss", "accuracy": "held_out_accuracy", "top5": "held_out_top5"}
            self._events.write(self.steps, {f"{tag}/{kind}": record[name] for tag, name in shown.items()})
            self._events.flush()


def _preprocessing(recipe: Recipe, images: ImageSource, model: Module) -> Preprocessing:
    """For the network, which may say what it takes; else for the images as they are."""
    channels, height, width = images.train[0][0].shape
    shape = getattr(model, "input_size", (channels, height, width))
    if shape[0] != channels:
        hint = "choose another network or data set"
        expected = f"images of {shape[0]} channels for {recipe.network}"
        raise ArgumentError.of("Trainer", expected, f"{channels} from {images.source}", hint)
    return Preprocessing(tuple(shape), images.mean, images.std, recipe.resize)


def _training_transforms(recipe: Recipe, preprocessing: Preprocessing, size: tuple[int, int]) -> list[Transform]:
    """What images of ``size`` go through on the host: scaled, then changed at random, one way or the other cut."""
    found = preprocessing.transforms(size)
    if any(kind in CUTTING for kind, _ in recipe.augment):
        found = [transform for transform in found if type(transform).__name__ == "Resize"]
    return [*found, *augmentation(recipe.augment, preprocessing.shape[1:])]


def _composed(transforms: list[Transform]) -> Transform | None:
    return Compose(transforms) if transforms else None


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _tuples(group: dict[str, Any]) -> dict[str, Any]:
    """Settings as they were before JSON made lists of tuples."""
    return {key: tuple(value) if isinstance(value, list) and key != "params" else value for key, value in group.items()}
