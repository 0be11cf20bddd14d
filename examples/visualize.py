"""See what a network learned, with the functions that `minigrad visualize` is made of.

`python examples/visualize.py` trains LeNet on MNIST for an epoch, and draws. `python examples/visualize.py CHECKPOINT`
draws a network that `minigrad train` has saved, such as a ResNet for CIFAR-10. Needs matplotlib: `pip install
"minigrad[viz]"`.
"""

import argparse
from pathlib import Path

import numpy as np

import minigrad
from minigrad import Tensor, nn
from minigrad.nn import visualize
from minigrad.nn.training import Preprocessing, load_model, open_images

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("checkpoint", nargs="?", help="a file or folder that `minigrad train` wrote")
parser.add_argument("--data", metavar="FOLDER", help="where data sets lie (default: MINIGRAD_DATA, cache, download)")
parser.add_argument("--layer", help="whose units are shown (default: an early one)")
parser.add_argument("--images", type=int, default=2000, help="test images that are searched")
parser.add_argument("--out", type=Path, default=Path("visualize"), help="folder for the pictures")


def trained_lenet(data, prepare):
    """LeNet after one epoch."""
    minigrad.manual_seed(0)
    model = nn.models.lenet5()
    optimizer = nn.optim.SGD(model.parameters(), lr=0.02, momentum=0.9)

    @minigrad.jit
    def step(images, labels):
        optimizer.zero_grad()
        loss = model(prepare(images)).cross_entropy(labels)
        loss.backward()
        optimizer.step()
        return loss

    for images, labels in nn.data.DataLoader(data.train, batch_size=64, shuffle=True, drop_last=True):
        loss = step(images, labels)
    model.eval()
    print(f"LeNet, trained on {len(data.train)} digits; loss of the last batch {loss.item():.3f}")
    return model


def main():
    """Draw filters, maps, the strongest patches with their projections, and why three images are what they are."""
    args = parser.parse_args()
    if args.checkpoint:
        model, info = load_model(args.checkpoint)
        data, prepare = open_images(info.data_set, args.data), info.preprocessing
    else:
        data = nn.data.mnist(args.data)
        prepare = Preprocessing((1, 28, 28), data.mean, data.std)
        model = trained_lenet(data, prepare)
    test = nn.data.Subset(data.test, range(min(args.images, len(data.test))))
    layer = args.layer or ("c3" if isinstance(model, nn.models.LeNet5) else "layer1")
    args.out.mkdir(parents=True, exist_ok=True)

    def save(figure, name):
        visualize.save(figure, args.out / name)
        print(args.out / name)

    # What the first layer looks for.
    save(visualize.draw_filters(visualize.first_filters(model), "filters of the first layer"), "filters.png")

    # How a layer sees an image.
    image = test[0][0]
    maps = visualize.activations(model, prepare(Tensor(image[None])), layer)[layer]
    save(visualize.draw_maps(maps[0], f"maps of {layer}"), "maps.png")

    # What six of its units look for, and what in these patches they respond to. A network without pools, such as a
    # ResNet for CIFAR-10, has no maxima that a deconvnet could put values back to.
    project = visualize.deconvnet if isinstance(model, nn.models.LeNet5) else visualize.guided_backprop
    patches = visualize.strongest_patches(model, test, layer, units=range(6), preprocess=prepare)
    projections = {
        unit: project(model, prepare(Tensor(np.stack([test[r.index][0] for r in found]))), unit, layer)
        for unit, found in patches.items()
    }
    save(visualize.draw_patch_pairs(patches, projections, f"strongest patches of {layer}"), "patches.png")

    # Why it says what it says.
    for number in range(3):
        image, label = test[number]
        x = prepare(Tensor(image[None]))
        pictures = {
            "saliency": visualize.saliency(model, x)[0],
            "guided backprop": visualize.guided_backprop(model, x)[0],
            "deconvnet": visualize.deconvnet(model, x)[0],
            "Grad-CAM": visualize.grad_cam(model, x)[0],
            "occlusion": visualize.occlusion(model, x, size=image.shape[1] // 4, stride=2)[0],
        }
        said = data.classes[model(x).argmax(1).item()]
        title = f"it says {said}, and it is {data.classes[int(label)]}"
        save(visualize.draw_explanation(image, pictures, title), f"why-{number}.png")


if __name__ == "__main__":
    main()
