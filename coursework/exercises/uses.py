"""What answers to several exercises may use of the package, for `Exercise.uses`."""

COEFFICIENTS = (
    "coursework.sdes.SDE.alpha",
    "coursework.sdes.SDE.sigma",
    "coursework.sdes.SDE.drift_coefficient",
    "coursework.sdes.SDE.diffusion",
    "coursework.sdes.SDE.drift",
    "coursework.sdes.SDE.log_snr",
    "coursework.sdes.VPSDE.beta",
    "coursework.sdes.VPSDE.integrated_beta",
)
