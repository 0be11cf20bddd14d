"""The training loop without the Trainer: what ``examples/train_lenet.py`` does, but for files and figures."""

import argparse

import minigrad
from minigrad import Tensor, nn, no_grad

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--epochs", type=int, default=5)
epochs, batch_size = parser.parse_args().epochs, 64

minigrad.manual_seed(0)
digits = nn.data.mnist()
normalize = nn.data.transforms.Normalize(digits.mean, digits.std)
train = nn.data.DataLoader(digits.train, batch_size, shuffle=True, transform=normalize)
test = nn.data.DataLoader(digits.test, 1000, transform=normalize)
model = nn.models.lenet5()
optimizer = nn.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, weight_decay=5e-4)
schedule = nn.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs * len(train))


@minigrad.jit
def step(images: Tensor, labels: Tensor) -> Tensor:
    """Captured at its first call, replayed after."""
    optimizer.zero_grad()
    loss = model(images).cross_entropy(labels)
    loss.backward()
    optimizer.step()
    return loss


for epoch in range(epochs):
    model.train()
    for images, labels in train:
        loss = step(images, labels)
        schedule.step()
    model.eval()
    with no_grad():
        right = sum((model(images).argmax(1) == labels).sum().item() for images, labels in test)
    print(f"epoch {epoch + 1}: loss {loss.item():.4f}, test accuracy {100 * right / len(digits.test):.2f} %")
