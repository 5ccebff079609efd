"""Data for the lessons: toy laws in the plane, small image sets, and batches of them."""

from coursework.data.images import ImageData, available, batches, default_images, load
from coursework.data.points import checkerboard, rings, spirals, swiss_roll, two_moons

__all__ = [
    "ImageData",
    "available",
    "batches",
    "checkerboard",
    "default_images",
    "load",
    "rings",
    "spirals",
    "swiss_roll",
    "two_moons",
]
