"""Seeing what a network learned: filters, responses, and what in an image they come from.

Functions that give arrays need nothing but minigrad and work on every backend. Those that draw need matplotlib, which
the extra ``viz`` brings.
"""

from minigrad.nn.visualize.backward import grad_cam, guided_backprop, input_gradient, saliency
from minigrad.nn.visualize.deconvnet import deconvnet
from minigrad.nn.visualize.drawing import (
    draw_curves,
    draw_explanation,
    draw_filters,
    draw_maps,
    draw_patch_pairs,
    draw_patches,
    draw_values,
    png,
    save,
)
from minigrad.nn.visualize.filters import first_filters
from minigrad.nn.visualize.occlusion import occlusion
from minigrad.nn.visualize.probe import activations
from minigrad.nn.visualize.responses import Response, strongest_patches
from minigrad.nn.visualize.structure import ReceptiveField, Window, receptive_field

__all__ = [
    "ReceptiveField", "Response", "Window", "activations", "deconvnet", "draw_curves", "draw_explanation",
    "draw_filters", "draw_maps", "draw_patch_pairs", "draw_patches", "draw_values", "first_filters", "grad_cam",
    "guided_backprop", "input_gradient", "occlusion", "png", "receptive_field", "saliency", "save", "strongest_patches",
]  # fmt: skip
