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
    Derivation(
        "10.3",
        "Show that the flow of a Gaussian has the velocity $\\frac{V'}{2V}x$, and derive the log-density that the model gives "
        "a point. Check it where the prior is the exact law.",
        (
            (0.2, "Velocity: $fx+\\frac{g^2}{2V}x$ and $V'=2fV+g^2$."),
            (0.2, "$x_T=\\sqrt{V_T/V}\\,x$."),
            (
                0.3,
                "$\\int\\nabla\\cdot v\\,dt=\\frac D2\\ln(V_T/V)$, added to $\\log\\mathcal N(x_T;0,\\text{prior\\_std}^2I)$.",
            ),
            (0.3, "With prior\\_std$^2=V_T$ it is $\\log\\mathcal N(x;0,VI)$."),
        ),
    ),
)
