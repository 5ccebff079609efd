"""Networks: every one is a plain `torch.nn.Module`; all but the classifier return a tensor like x."""

from coursework.nn.autoencoder import Autoencoder
from coursework.nn.classifier import Classifier
from coursework.nn.controlnet import ControlNet
from coursework.nn.denoiser import Denoiser
from coursework.nn.dit import DiT
from coursework.nn.embeddings import RandomFourierEmbedding, SinusoidalEmbedding
from coursework.nn.mlp import MLP, TimeMLP
from coursework.nn.scaled import ScaledInput
from coursework.nn.text import CaptionedUNet, TextEncoder, Tokenizer
from coursework.nn.uncertainty import Uncertainty
from coursework.nn.unet import UNet

__all__ = [
    "MLP",
    "Autoencoder",
    "CaptionedUNet",
    "Classifier",
    "ControlNet",
    "Denoiser",
    "DiT",
    "RandomFourierEmbedding",
    "ScaledInput",
    "SinusoidalEmbedding",
    "TextEncoder",
    "TimeMLP",
    "Tokenizer",
    "UNet",
    "Uncertainty",
]
