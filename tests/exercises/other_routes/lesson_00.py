"""Other right answers to the exercise of lesson 00."""

import torch

ROUTES = {"0.1": [lambda x: (x @ x.T).diagonal(), lambda x: torch.linalg.vector_norm(x, dim=1) ** 2]}
