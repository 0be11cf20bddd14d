"""Layers and losses as functions: the methods of :class:`minigrad.Tensor`, under PyTorch's names.

>>> from minigrad.nn import functional as F
>>> F.relu(Tensor([-1.0, 2.0])).tolist()
[0.0, 2.0]
"""

from __future__ import annotations

from minigrad.tensor import Tensor

adaptive_avg_pool1d = Tensor.adaptive_avg_pool1d
adaptive_avg_pool2d = Tensor.adaptive_avg_pool2d
adaptive_max_pool2d = Tensor.adaptive_max_pool2d
avg_pool1d = Tensor.avg_pool1d
avg_pool2d = Tensor.avg_pool2d
avg_pool3d = Tensor.avg_pool3d
max_pool1d = Tensor.max_pool1d
max_pool2d = Tensor.max_pool2d
max_pool3d = Tensor.max_pool3d
max_unpool1d = Tensor.max_unpool1d
max_unpool2d = Tensor.max_unpool2d
max_unpool3d = Tensor.max_unpool3d
unfold = Tensor.unfold

conv1d = Tensor.conv1d
conv2d = Tensor.conv2d
conv3d = Tensor.conv3d
conv_transpose1d = Tensor.conv_transpose1d
conv_transpose2d = Tensor.conv_transpose2d
conv_transpose3d = Tensor.conv_transpose3d
linear = Tensor.linear
embedding = Tensor.embedding

batch_norm = Tensor.batch_norm
cosine_similarity = Tensor.cosine_similarity
group_norm = Tensor.group_norm
instance_norm = Tensor.instance_norm
layer_norm = Tensor.layer_norm
local_response_norm = Tensor.local_response_norm
normalize = Tensor.normalize
rms_norm = Tensor.rms_norm

dropout = Tensor.dropout
one_hot = Tensor.one_hot
pad = Tensor.pad

elu = Tensor.elu
gelu = Tensor.gelu
hardsigmoid = Tensor.hardsigmoid
hardswish = Tensor.hardswish
hardtanh = Tensor.hardtanh
leaky_relu = Tensor.leaky_relu
log_softmax = Tensor.log_softmax
logsigmoid = Tensor.logsigmoid
mish = Tensor.mish
relu = Tensor.relu
relu6 = Tensor.relu6
selu = Tensor.selu
sigmoid = Tensor.sigmoid
silu = Tensor.silu
softmax = Tensor.softmax
softplus = Tensor.softplus
softsign = Tensor.softsign
tanh = Tensor.tanh

binary_cross_entropy = Tensor.binary_cross_entropy
binary_cross_entropy_with_logits = Tensor.binary_cross_entropy_with_logits
cross_entropy = Tensor.cross_entropy
huber_loss = Tensor.huber_loss
kl_div = Tensor.kl_div
l1_loss = Tensor.l1_loss
mse_loss = Tensor.mse_loss
nll_loss = Tensor.nll_loss
smooth_l1_loss = Tensor.smooth_l1_loss
