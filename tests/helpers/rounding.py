"""Arithmetic as another processor may do it: `pytest --rounding`.

How MKL and PyTorch round depends on the processor's vector units, on the number of threads and on the shape of a batch.
Here every product, sum and transcendental function is off in its last bit, up or down by the operation, the shape and
the place in it: what asserts equality to the last bit of anything that was rounded fails at once, on any machine.
"""

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

# Off by the last bit of the terms' sizes, not of their sum, in which they may cancel; those of integers are exact.
SUMS = """
addbmm addcdiv addcmul addmm addmv addr avg_pool2d baddbmm bmm convolution cumsum dot lerp
linalg_vector_norm mean mm mv norm sum trace vdot
""".split()  # noqa: SIM905
# Off by the last bit of their value, unless it is 0 or 1: exp(0) is 1 everywhere.
FUNCTIONS = """
_cdist_forward _linalg_det _linalg_eigh _linalg_solve_ex _linalg_svd _log_softmax
_log_softmax_backward_data _pdist_forward _safe_softmax _scaled_dot_product_flash_attention_for_cpu
_softmax _softmax_backward_data atan2 avg_pool2d_backward convolution_backward cos cumprod
embedding_dense_backward erf erfc erfinv exp expm1 gelu gelu_backward hypot linalg_cholesky_ex
linalg_inv_ex linalg_lstsq linalg_solve_triangular log log10 log1p log2 logspace logsumexp native_batch_norm
native_group_norm native_group_norm_backward native_layer_norm native_layer_norm_backward pow prod
rsqrt scatter_add sigmoid sigmoid_backward silu silu_backward sin softplus softplus_backward special_ndtr std tan
tanh tanh_backward upsample_nearest2d_backward var
""".split()  # noqa: SIM905
EXACT_POWERS = (-1, 0, 0.5, 1, 2)


def _rounded(value: object) -> bool:
    if not isinstance(value, Tensor) or value.is_meta:
        return False
    return value.dtype in (torch.float32, torch.float64) and value.numel() > 0


def _sizes(arguments: object) -> object:
    return tree_map(lambda value: value.abs() if _rounded(value) else value, arguments)


def _nudge(out: Tensor, size: Tensor, name: str) -> None:
    place = torch.arange(out.numel(), device=out.device) + sum(map(ord, name)) + sum(out.shape)
    sign = (place * 2654435761 >> 9) % 2 * 2 - 1
    out.add_(sign.view(out.shape).to(out.dtype) * torch.finfo(out.dtype).eps * size)


class Rounding(TorchDispatchMode):
    """Within it the results of SUMS and FUNCTIONS are off by one unit in the last place."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        """The operation's result, nudged."""
        kwargs = kwargs or {}
        name = operation._schema.name.removeprefix("aten::")
        if name in SUMS and not all(
            bool((value == value.round()).all()) for value in tree_leaves(args) if _rounded(value)
        ):
            size = operation(*_sizes(args), **_sizes(kwargs))
            out = operation(*args, **kwargs)
            if _rounded(out):
                _nudge(out, size, name)
            return out
        out = operation(*args, **kwargs)
        if name.removesuffix("_") in FUNCTIONS and not _exact(name, args):
            for value in filter(_rounded, tree_leaves(out)):
                _nudge(value, value.abs() * ((value != 0) & (value.abs() != 1)), name)
        return out


def _exact(name: str, args: tuple[object, ...]) -> bool:
    """Whether a function is a power that every processor rounds alike."""
    return name.startswith("pow") and not isinstance(args[1], Tensor) and args[1] in EXACT_POWERS
