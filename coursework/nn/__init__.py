"""Networks: every one is a plain `torch.nn.Module` that takes x, or x and t, and returns a tensor like x."""

from coursework.nn.denoiser import Denoiser
from coursework.nn.embeddings import SinusoidalEmbedding
from coursework.nn.mlp import MLP, TimeMLP

__all__ = ["MLP", "Denoiser", "SinusoidalEmbedding", "TimeMLP"]
