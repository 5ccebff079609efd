"""A vector for each label, and one for none."""

import torch
from torch import Tensor, nn

from coursework._arguments import at_least, indices


def label_table(n_classes: int | None, features: int) -> nn.Embedding | None:
    """The vectors of n_classes labels and, in the last row, of none; None for a network without classes."""
    return None if n_classes is None else nn.Embedding(at_least(n_classes, 1, "n_classes") + 1, features)


def label_features(table: nn.Embedding | None, label: Tensor | None, x: Tensor) -> Tensor | float:
    """The vector of each label, (B, F): label -1, or None, is the null label; 0 for a network without classes.

    Raises ValueError for a label that there is no vector for.
    """
    if table is None:
        if label is not None:
            raise ValueError("label: this network was made without classes (n_classes=None)")
        return 0.0
    null = table.num_embeddings - 1
    if label is None:
        return table.weight[null].expand(len(x), -1)
    label = indices(label, -1, null, "label").to(x.device)
    if label.shape not in ((), x.shape[:1]):
        raise ValueError(f"label: expected one or ({len(x)},), got {tuple(label.shape)}")
    beyond = torch.where(label == null, null + 1, label)  # where values cannot be looked at
    return table(torch.where(label == -1, null, beyond).expand(len(x)))
