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
    Derivation(
        "13.1",
        "Derive the law of $x_t$ given $y$ for Gaussian data, and its score. Say what is wrong with the score of the prior plus "
        "$\\nabla\\log p(y\\mid\\hat x_0)$ with the measurement's noise alone.",
        (
            (0.3, "$x_0\\mid y\\sim\\mathcal N(m,P)$, used or derived."),
            (
                0.3,
                "$x_t\\mid y\\sim\\mathcal N(\\alpha m,\\alpha^2P+\\sigma^2I)$: noise and $y$ are independent given $x_0$.",
            ),
            (0.2, "The score $-(\\alpha^2P+\\sigma^2I)^{-1}(x_t-\\alpha m)$."),
            (0.2, "$\\hat x_0$ is uncertain: $p_t(y\\mid x_t)$ is wider than the measurement's noise."),
        ),
    ),
)
