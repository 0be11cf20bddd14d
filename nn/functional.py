"""Layers and losses as functions: the methods of :class:`minigrad.Tensor`, under PyTorch's names.

Activations and dropout accept PyTorch's ``inplace``, which changes nothing: the result is what is returned.

>>> from minigrad.nn import functional as F
>>> F.relu(Tensor([-1.0, 2.0]), inplace=True).tolist()
[0.0, 2.0]
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from minigrad.tensor import Tensor


def _activation(method: Callable[..., Tensor]) -> Callable[..., Tensor]:
    @wraps(method)
    def function(x: Tensor, *args: Any, inplace: bool = False, **options: Any) -> Tensor:
        return method(x, *args, **options)

    return function


def cross_entropy(input: Any, *args: Any, **options: Any) -> Tensor:
    """:meth:`minigrad.Tensor.cross_entropy`; also of what GoogLeNet gives in training, which has one of its own."""
    loss: Tensor = input.cross_entropy(*args, **options)
    return loss


adaptive_avg_pool1d = Tensor.adaptive_avg_pool1d
adaptive_avg_pool2d = Tensor.adaptive_avg_pool2d
adaptive_avg_pool3d = Tensor.adaptive_avg_pool3d
adaptive_max_pool1d = Tensor.adaptive_max_pool1d
adaptive_max_pool2d = Tensor.adaptive_max_pool2d
adaptive_max_pool3d = Tensor.adaptive_max_pool3d
avg_pool1d = Tensor.avg_pool1d
avg_pool2d = Tensor.avg_pool2d
avg_pool3d = Tensor.avg_pool3d
interpolate = Tensor.interpolate
max_pool1d = Tensor.max_pool1d
max_pool2d = Tensor.max_pool2d
max_pool3d = Tensor.max_pool3d
max_unpool1d = Tensor.max_unpool1d
max_unpool2d = Tensor.max_unpool2d
max_unpool3d = Tensor.max_unpool3d
pad = Tensor.pad
pixel_shuffle = Tensor.pixel_shuffle
pixel_unshuffle = Tensor.pixel_unshuffle
unfold = Tensor.unfold

conv1d = Tensor.conv1d
conv2d = Tensor.conv2d
conv3d = Tensor.conv3d
conv_transpose1d = Tensor.conv_transpose1d
conv_transpose2d = Tensor.conv_transpose2d
conv_transpose3d = Tensor.conv_transpose3d
embedding = Tensor.embedding
linear = Tensor.linear
one_hot = Tensor.one_hot

batch_norm = Tensor.batch_norm
cosine_similarity = Tensor.cosine_similarity
group_norm = Tensor.group_norm
instance_norm = Tensor.instance_norm
layer_norm = Tensor.layer_norm
local_response_norm = Tensor.local_response_norm
normalize = Tensor.normalize
rms_norm = Tensor.rms_norm

celu = _activation(Tensor.celu)
dropout = _activation(Tensor.dropout)
dropout1d = _activation(Tensor.dropout1d)
dropout2d = _activation(Tensor.dropout2d)
dropout3d = _activation(Tensor.dropout3d)
elu = _activation(Tensor.elu)
hardsigmoid = _activation(Tensor.hardsigmoid)
hardswish = _activation(Tensor.hardswish)
hardtanh = _activation(Tensor.hardtanh)
leaky_relu = _activation(Tensor.leaky_relu)
mish = _activation(Tensor.mish)
relu = _activation(Tensor.relu)
relu6 = _activation(Tensor.relu6)
selu = _activation(Tensor.selu)
silu = _activation(Tensor.silu)
threshold = _activation(Tensor.threshold)

gelu = Tensor.gelu
glu = Tensor.glu
hardshrink = Tensor.hardshrink
log_softmax = Tensor.log_softmax
logsigmoid = Tensor.logsigmoid
prelu = Tensor.prelu
sigmoid = Tensor.sigmoid
softmax = Tensor.softmax
softmin = Tensor.softmin
softplus = Tensor.softplus
softshrink = Tensor.softshrink
softsign = Tensor.softsign
tanh = Tensor.tanh
tanhshrink = Tensor.tanhshrink

binary_cross_entropy = Tensor.binary_cross_entropy
binary_cross_entropy_with_logits = Tensor.binary_cross_entropy_with_logits
huber_loss = Tensor.huber_loss
kl_div = Tensor.kl_div
l1_loss = Tensor.l1_loss
mse_loss = Tensor.mse_loss
nll_loss = Tensor.nll_loss
smooth_l1_loss = Tensor.smooth_l1_loss
