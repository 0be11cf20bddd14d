"""A network in numbers, without running it: ``nn.summary`` and what it is made of."""

from minigrad.nn.summary.explain import output_size
from minigrad.nn.summary.layers import Block, Core, Layer
from minigrad.nn.summary.report import Memory, ParameterInfo, Share, Summary, summary

__all__ = ["Block", "Core", "Layer", "Memory", "ParameterInfo", "Share", "Summary", "output_size", "summary"]
