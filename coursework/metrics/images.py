"""Quality and variety of generated images, seen by a classifier (lessons 06 and 16, `coursework evaluate`).

The published scores use Inception-v3's features of 299 x 299 colour images; ours use those of the classifier that comes
with the package, so numbers compare only with one another, best beside the floor that real images reach.
"""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from coursework._arguments import at_least, finite, floating, indices
from coursework.metrics.checks import order, two_sets_of_features
from coursework.nn import Classifier


@torch.no_grad()
def image_features(classifier: Classifier, images: Tensor, *, batch_size: int = 100) -> tuple[Tensor, Tensor]:
    """What a classifier's last layer sees, and its class scores. Shapes: (N, C, H, W) -> (N, F), (N, K)."""
    batch_size = at_least(batch_size, 1, "batch_size")
    floating(images, "images")
    features = torch.cat([classifier.features(part) for part in images.split(batch_size)])
    return features, classifier.head(features)


def frechet_distance(real: Tensor, generated: Tensor) -> float:
    """|m - m'|^2 + tr(C + C' - 2 (C C')^(1/2)), means and covariances of two sets of features: FID.

    In finite samples it is biased upwards by about c/N; c depends on both laws. So compare equal N only, beside the
    distance of two sets of real images, and know that c may differ between models. By torchmetrics, in float64. Shapes:
    (N, F), (M, F), N and M at least 2.
    Source: Heusel et al. 2017, eq. 6.
    """
    real, generated = two_sets_of_features(real, generated)
    with torch.device("cpu"):  # whatever torch's default device is
        metric = FrechetInceptionDistance(feature=_AsTheyAre(real.shape[1]), **ALONE)
        metric.update(real.detach().cpu().double(), real=True)
        metric.update(generated.detach().cpu().double(), real=False)
        return float(metric.compute())


def frechet_extrapolated(
    real: Tensor, generated: Tensor, sizes: Sequence[int] | Tensor, *, generator: torch.Generator | None = None
) -> float:
    """The Frechet distance of infinitely many images: the line c/n + d through those of n and n, at 1/n = 0.

    E[FD] of n and n images is the laws' distance and c/n, up to O(1/n^2). For each n in `sizes` both sets are cut at
    random into disjoint parts of n, whose distances are averaged; d is fitted by least squares. It may be negative.
    Shapes: (N, F), (M, F); sizes: two or more, different, from 2 to the smaller of N and M.
    Source: Chong & Forsyth 2020 (who take parts of the generated set alone).
    """
    two_sets_of_features(real, generated)
    fewest = min(len(real), len(generated))
    several = indices(sizes, 2, fewest + 1, "sizes").flatten().tolist()
    if len(set(several)) < 2:
        raise ValueError(f"sizes: expected at least two different ones, got {several}")
    real, generated = (x[order(len(x), generator).to(x.device)][:fewest] for x in (real, generated))
    means = []
    for n in several:
        n_parts = fewest // n
        pairs = zip(real[: n_parts * n].split(n), generated[: n_parts * n].split(n), strict=True)
        means.append(sum(frechet_distance(*pair) for pair in pairs) / n_parts)
    value, u = (torch.tensor(v, dtype=torch.float64, device="cpu") for v in (means, [1 / n for n in several]))
    slope = ((u - u.mean()) * value).sum() / (u - u.mean()).square().sum()
    return float(value.mean() - slope * u.mean())


def inception_score(logits: Tensor, *, n_splits: int = 10, seed: int = 0) -> tuple[float, float]:
    """exp E_x KL( p(y | x) || p(y) ): the mean over n_splits random parts, and its standard deviation over them.

    Between 1 and the number of classes; it rises with sure and varied predictions and knows nothing of real images.
    By torchmetrics. Shapes: class scores (N, K), N at least n_splits. Source: Salimans et al. 2016, section 4.
    """
    floating(logits, "logits")
    finite(logits, "logits")
    n_splits = at_least(n_splits, 1, "n_splits")
    seed = at_least(seed, 0, "seed")
    if logits.ndim != 2 or len(logits) < n_splits:
        raise ValueError(f"logits: expected shape (N, K) with N at least {n_splits}, got {tuple(logits.shape)}")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.device("cpu"):
        warnings.filterwarnings("ignore", "Metric `InceptionScore` will save all extracted features", UserWarning)
        warnings.filterwarnings("ignore", r"std\(\)", UserWarning)  # of one split
        torch.manual_seed(seed)
        metric = InceptionScore(feature=_AsTheyAre(logits.shape[1]), splits=n_splits, **ALONE)
        metric.update(logits.detach().cpu().double())
        mean, deviation = metric.compute()
    return float(mean), float(deviation)


ALONE: dict[str, Any] = {
    "sync_on_compute": False
}  # every process has all the features: torchmetrics would count them several times


class _AsTheyAre(nn.Module):
    """For torchmetrics: what it is given are features already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: Tensor) -> Tensor:
        return features
