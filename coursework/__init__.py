"""A course on score-based generative models: reference implementations, exercises and their checks."""
