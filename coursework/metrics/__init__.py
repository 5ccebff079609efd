"""How far one set of samples is from another: points by distances, images by a classifier's features."""

from coursework.metrics.images import (
    frechet_distance,
    image_features,
    inception_score,
    nearest_distances,
    precision_recall,
)
from coursework.metrics.points import energy_distance, energy_test, sliced_wasserstein

__all__ = [
    "energy_distance",
    "energy_test",
    "frechet_distance",
    "image_features",
    "inception_score",
    "nearest_distances",
    "precision_recall",
    "sliced_wasserstein",
]
