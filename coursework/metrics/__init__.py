"""How far one set of samples is from another: points by distances, images by a classifier's features (lesson 16)."""

from coursework.metrics.classification import classifier_two_sample
from coursework.metrics.errors import paired_difference, standard_error
from coursework.metrics.images import frechet_distance, frechet_extrapolated, image_features, inception_score
from coursework.metrics.kernels import kernel_distance, mmd
from coursework.metrics.neighbours import density_coverage, memorisation, nearest_distances, precision_recall
from coursework.metrics.points import energy_distance, energy_test, sliced_wasserstein

__all__ = [
    "classifier_two_sample",
    "density_coverage",
    "energy_distance",
    "energy_test",
    "frechet_distance",
    "frechet_extrapolated",
    "image_features",
    "inception_score",
    "kernel_distance",
    "memorisation",
    "mmd",
    "nearest_distances",
    "paired_difference",
    "precision_recall",
    "sliced_wasserstein",
    "standard_error",
]
