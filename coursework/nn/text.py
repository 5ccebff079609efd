"""Text for networks (lesson 19): words to numbers, numbers to vectors, and a U-Net that looks at them."""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from coursework._arguments import at_least, indices
from coursework.latents import attention
from coursework.nn.blocks import GROUPS
from coursework.nn.unet import UNet, resolutions

PADDING, START, UNKNOWN = 0, 1, 2


def split(text: str) -> list[str]:
    """The words of a text, in small letters; marks are words too."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


class Tokenizer:
    """Words to integers and back; the words of the given texts, in alphabetical order, are known, all others are one.

    Tokens 0, 1, 2 are padding, start and unknown. Every text begins with the start token, so that the empty text has
    one token too. length: tokens of the longest text.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        words = sorted({word for text in texts for word in split(text)})
        self.words = ("<padding>", "<start>", "<unknown>", *words)
        self.numbers = {word: i for i, word in enumerate(self.words)}
        self.length = 1 + max((len(split(text)) for text in texts), default=0)

    def encode(self, texts: Sequence[str]) -> Tensor:
        """The tokens of each text, (N, length), padded at the end. Raises ValueError for a text that is too long."""
        if isinstance(texts, str):
            raise TypeError("texts: expected a list of texts, got one text")
        rows = [[START, *(self.numbers.get(word, UNKNOWN) for word in split(text))] for text in texts]
        for text, row in zip(texts, rows, strict=True):
            if len(row) > self.length:
                raise ValueError(f"texts: expected at most {self.length - 1} words, got {text!r}")
        padded = [row + [PADDING] * (self.length - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.long, device="cpu").reshape(len(rows), self.length)

    def decode(self, tokens: Tensor) -> list[str]:
        """The text of each row of tokens; start and padding are left out."""
        tokens = indices(tokens, 0, len(self.words), "tokens")
        return [" ".join(self.words[i] for i in row if i not in (PADDING, START)) for row in tokens.tolist()]


class TextEncoder(nn.Module):
    """Tokens to a vector for each: its word's and its place's, then self-attention and an MLP, each added.

    Padding is looked at by nobody. Shapes: tokens, long (B, L) -> (B, L, features).
    """

    def __init__(self, n_words: int, length: int, features: int = 64, heads: int = 4) -> None:
        super().__init__()
        for value, name in ((n_words, "n_words"), (length, "length"), (heads, "heads")):
            at_least(value, 1, name)
        if features < 1 or features % heads:
            raise ValueError(f"features: expected a positive multiple of heads={heads}, got {features}")
        self.word = nn.Embedding(n_words, features)
        self.place = nn.Parameter(0.02 * torch.randn(length, features))
        self.first, self.second, self.last = (nn.LayerNorm(features) for _ in range(3))
        self.look = nn.MultiheadAttention(features, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(features, 2 * features), nn.GELU(), nn.Linear(2 * features, features))

    def forward(self, tokens: Tensor) -> Tensor:
        """The vectors of a text's words."""
        h = self.word(tokens) + self.place
        seen = self.first(h)
        h = h + self.look(seen, seen, seen, key_padding_mask=tokens == PADDING, need_weights=False)[0]
        return self.last(h + self.mlp(self.second(h)))


class CrossAttention(nn.Module):
    """h + W attention(q, k, v): every pixel looks at the words; q is linear in norm(h), k and v in the words.

    W starts at zero: at first nothing is added. Shapes: h (B, C, H, W), words (B, L, F), tokens (B, L) -> like h.
    Source: Rombach et al. 2022, section 3.3.
    """

    def __init__(self, channels: int, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(GROUPS, channels)
        self.query = nn.Conv2d(channels, channels, 1, bias=False)
        self.key_value = nn.Linear(features, 2 * channels, bias=False)
        self.out = nn.Conv2d(channels, channels, 1)
        for parameter in self.out.parameters():
            nn.init.zeros_(parameter)

    def look(self, h: Tensor, words: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """What the pixels read, like h, and the weights of the words, (B, heads, H W, L): each row sums to 1."""
        q = self.query(self.norm(h)).flatten(2).transpose(1, 2).unflatten(2, (self.heads, -1)).transpose(1, 2)
        k, v = self.key_value(words).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        hidden = torch.zeros_like(tokens, dtype=h.dtype).masked_fill(tokens == PADDING, -torch.inf)
        read, weights = attention(q, k, v, bias=hidden[:, None, None])
        return read.transpose(-1, -2).reshape(h.shape), weights

    def forward(self, h: Tensor, words: Tensor, tokens: Tensor) -> Tensor:
        """h and what its pixels read."""
        return h + self.out(self.look(h, words, tokens)[0])


class ReadingLevel(nn.Module):
    """A level of the U-Net, then cross-attention, if any. Condition: (vector, words, tokens)."""

    def __init__(self, level: nn.Module, read: CrossAttention | None) -> None:
        super().__init__()
        self.level, self.read = level, read

    def forward(self, h: Tensor, condition: Any) -> Tensor:
        """The features that the next block gets."""
        vector, words, tokens = condition
        h = self.level(h, vector)
        return h if self.read is None else self.read(h, words, tokens)


class CaptionedUNet(UNet):
    """A U-Net that is told by text what to draw: at every resolution in `attention_at`, pixels look at the words.

    captions: the texts whose words it knows. label: the number of a caption, integers, one or (B,); -1, or None, is the
    empty text; or tokens (B, L) of `tokenizer`, so any text of the known words can be asked for. The other arguments
    are `UNet`'s, but for n_classes. Raises ValueError as `UNet` does, without captions, and for a label that is none.
    """

    table: Tensor

    def __init__(
        self, image_size: int, channels: int = 1, *, captions: Sequence[str], word_features: int = 64, **options: Any
    ) -> None:
        if options.get("n_classes") is not None:
            raise ValueError(f"n_classes: expected None where captions are read, got {options['n_classes']}")
        if not captions:
            raise ValueError("captions: expected at least one")
        super().__init__(image_size, channels, **options)
        heads, at = self.configuration["heads"], self.configuration["attention_at"]
        self.configuration |= {"captions": tuple(captions), "word_features": word_features}
        self.tokenizer = Tokenizer(captions)
        self.words = TextEncoder(len(self.tokenizer.words), self.tokenizer.length, word_features)
        self.register_buffer("table", self.tokenizer.encode([*captions, ""]), persistent=False)

        def reading(level: nn.Module, i: int) -> ReadingLevel:
            width = self.configuration["widths"][i]
            reads = resolutions(image_size, i + 1)[-1] in at
            return ReadingLevel(level, CrossAttention(width, word_features, heads) if reads else None)

        self.descent, self.ascent = (
            nn.ModuleList(nn.ModuleList(reading(level, i) for level in levels) for i, levels in enumerate(half))
            for half in (self.descent, self.ascent)
        )
        self.middle = reading(self.middle, len(self.descent) - 1)

    def condition(self, x: Tensor, t: Tensor, label: Tensor | None = None, s: Tensor | None = None) -> Any:
        """What every block is told: time, (B, features); the words' vectors, (B, L, word_features); their tokens."""
        tokens = self.tokens(label, x)
        return super().condition(x, t, s=s), self.words(tokens), tokens

    def tokens(self, label: Tensor | None, x: Tensor) -> Tensor:
        """The tokens that a batch like x is told, (B, L)."""
        label = indices(-1 if label is None else label, -1, None, "label").to(x.device)
        if label.ndim == 2:
            if label.shape != (len(x), self.tokenizer.length):
                raise ValueError(
                    f"label: expected tokens ({len(x)}, {self.tokenizer.length}), got {tuple(label.shape)}"
                )
            return indices(label, 0, len(self.tokenizer.words), "label")
        if label.shape not in ((), x.shape[:1]):
            raise ValueError(f"label: expected one or ({len(x)},), got {tuple(label.shape)}")
        return self.table[indices(label, -1, len(self.table) - 1, "label").expand(len(x))]  # -1: the last, empty one
