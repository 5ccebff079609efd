"""Written derivations of lessons whose exercises have the old form. This file goes with the last of them."""

from coursework.exercises.mistakes import Derivation

DERIVATIONS = (
    Derivation(
        "6.2",
        "Derive the overlap of two neighbouring noise levels, and say how the number of levels must grow with the dimension.",
        (
            (
                0.3,
                "The narrow level's radius is $\\mathcal N(\\sqrt D\\sigma,\\sigma^2/2)$; so is the wide one's with $\\gamma\\sigma$.",
            ),
            (0.4, "Standardised edges $\\sqrt{2D}(\\gamma-1)\\pm3\\gamma$; $\\sigma$ cancels."),
            (
                0.3,
                "A fixed overlap needs $\\gamma-1$ of order $1/\\sqrt D$, so the number of levels grows like $\\sqrt D$.",
            ),
        ),
    ),
)
