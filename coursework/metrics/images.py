"""Quality and variety of generated images, seen by a classifier of the course (lesson 06 and `coursework evaluate`).

The published scores use Inception-v3's features of 299 x 299 colour images; ours use those of the classifier that comes
with the package, so numbers compare only with one another, best beside the floor that real images reach.
"""

import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.inception import InceptionScore

from coursework._arguments import at_least, batch, finite, floating, like, wide
from coursework.metrics.distances import CHUNK, distances, nearest
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
    real, generated = _features(real, generated)
    with torch.device("cpu"):  # whatever torch's default device is
        metric = FrechetInceptionDistance(feature=_AsTheyAre(real.shape[1]), **ALONE)
        metric.update(real.detach().cpu().double(), real=True)
        metric.update(generated.detach().cpu().double(), real=False)
        return float(metric.compute())


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


def precision_recall(real: Tensor, generated: Tensor, *, k: int = 3) -> tuple[float, float]:
    """Precision, the share of generated points inside the real set, and recall, of real ones inside the generated set.

    A point is inside a set if it is at most as far from one of its points as that point's k-th nearest neighbour in the
    set is. Low precision: bad samples; low recall: missing ones. The fewer points a set has, the more room it takes:
    compare equally many. Shapes: features (N, F), (M, F), N, M > k.
    Source: Kynkaanniemi et al. 2019, eq. 1 and 2.
    """
    k = at_least(k, 1, "k")
    real, generated = _features(real, generated)
    fewest = min(len(real), len(generated))
    if fewest <= k:
        raise ValueError(f"k: expected less than {fewest}, the smaller set's size, got {k}")
    return _share_inside(generated, real, k), _share_inside(real, generated, k)


def nearest_distances(x: Tensor, reference: Tensor) -> Tensor:
    """The Euclidean distance of each x to the nearest point of the reference. Shapes: (N, *S), (M, *S) -> (N,).

    Samples that are nearer to the training set than held-out data are may be copies of it.
    """
    for value, name in ((x, "x"), (reference, "reference")):
        batch(value, name)
    if x.shape[1:] != reference.shape[1:]:
        raise ValueError(f"reference: expected points of shape {tuple(x.shape[1:])}, got {tuple(reference.shape[1:])}")
    like(reference[:0], x[:0], "reference", "x")
    if not len(reference):
        raise ValueError("reference: expected at least one point")
    return nearest(wide(x).flatten(1), wide(reference).flatten(1)).to(x.dtype)


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


def _features(real: Tensor, generated: Tensor) -> tuple[Tensor, Tensor]:
    """Both sets after a check, half precision in float32."""
    for value, name in ((real, "real"), (generated, "generated")):
        floating(value, name)
        finite(value, name)
        if value.ndim != 2 or len(value) < 2:
            raise ValueError(f"{name}: expected features of at least two images (N, F), got {tuple(value.shape)}")
    like(generated[:1], real[:1], "generated", "real")
    return wide(real), wide(generated)


def _share_inside(x: Tensor, points: Tensor, k: int) -> float:
    """The share of x inside the set of points."""
    # the nearest of all is the point itself
    radii = torch.cat([distances(part, points).kthvalue(k + 1).values for part in points.split(CHUNK)])
    inside = [(distances(part, points) <= radii).any(1) for part in x.split(CHUNK)]
    return float(torch.cat(inside).double().mean())
