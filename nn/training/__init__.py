"""Training of networks that tell classes of images apart: recipes, the loop, checkpoints, evaluation."""

from minigrad.nn.training.checkpoint import ModelInfo, load_model, load_training, new_run
from minigrad.nn.training.ema import ExponentialMovingAverage
from minigrad.nn.training.evaluate import Evaluation, Evaluator
from minigrad.nn.training.log import read_log
from minigrad.nn.training.metrics import Meter
from minigrad.nn.training.preprocessing import Preprocessing
from minigrad.nn.training.recipe import Recipe
from minigrad.nn.training.recipes import RECIPES, recipe, recipe_for
from minigrad.nn.training.sources import open_images
from minigrad.nn.training.trainer import Trainer

__all__ = [
    "Evaluation", "Evaluator", "ExponentialMovingAverage", "Meter", "ModelInfo", "Preprocessing", "RECIPES", "Recipe",
    "Trainer", "load_model", "load_training", "new_run", "open_images", "read_log", "recipe", "recipe_for",
]  # fmt: skip
