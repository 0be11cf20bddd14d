"""Training of networks that tell classes of images apart."""

from minigrad.nn.training.evaluate import evaluate
from minigrad.nn.training.metrics import Meter
from minigrad.nn.training.preprocessing import Preprocessing
from minigrad.nn.training.trainer import train_classifier

__all__ = ["Meter", "Preprocessing", "evaluate", "train_classifier"]
