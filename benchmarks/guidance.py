"""What classifier-free guidance costs beside a network call on twice the batch, in one run, as a ratio.

    python benchmarks/guidance.py [--model digits-vp] [--images 64] [--rounds 20]

Both call the shipped model's score with labels, in turn and in alternating order; the median of the ratios is shown.
"""

import argparse
import statistics

import torch
from timing import seconds

from coursework import models
from coursework.guidance import classifier_free_guidance
from coursework.models.training import default_accelerator


def main(name, n_images, n_rounds):
    """One line: the ratio."""
    device = default_accelerator().device
    model = models.load(name, device=device)
    _, recipe = models.load_with_recipe(name)
    x = torch.randn(n_images, *models.SHAPES[recipe.data], device=device)
    twice, t, labels = torch.cat([x, x]), torch.tensor(0.5, device=device), torch.arange(n_images, device=device) % 10
    both = torch.cat([labels, torch.full_like(labels, -1)])
    guided = classifier_free_guidance(model, labels, 3.0)
    ways = {"guided": lambda: guided(x, t), "bare": lambda: model(twice, t, both)}
    ratios = []
    with torch.no_grad():
        for i in range(n_rounds + 2):
            spent = {key: seconds(ways[key], device) for key in sorted(ways, reverse=bool(i % 2))}
            ratios.append(spent["guided"] / spent["bare"])
    print(f"{name}, {n_images} images, {device}: {statistics.median(ratios[2:]):.3f} times the bare call")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="digits-vp")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=20)
    arguments = parser.parse_args()
    main(arguments.model, arguments.images, arguments.rounds)
