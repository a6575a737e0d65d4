"""Where on a wafer a call comes from: which failing dies speak for it, and which against it."""

from collections.abc import Sequence

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from search.views.figures.canvas import drawn

_STEPS = 32


def attribute(model: nn.Module, picture: Tensor, called: int, *, steps: int = _STEPS) -> Tensor:
    """Divide the log probability of a class among the pixels, against the same wafer without a fail.

    Args:
        model: Maps (N, 2, S, S), shares of passing and failing dies, to logits (N, K).
        picture: Shape (2, S, S), on the model's device.
        called: Index of the class.
        steps: On the way from no fail to the wafer, at least 1.

    Returns:
        Shape (S, S); positive where fails speak for the class. The sum is, but for the steps, the log probability with
        the wafer's fails minus that without any.

    Source:
        Sundararajan et al. 2017, Axiomatic Attribution for Deep Networks, arXiv:1703.01365.
    """
    clean = torch.stack([picture.sum(0), torch.zeros_like(picture[0])])
    shares = (torch.arange(steps, device=picture.device) + 0.5) / steps
    points = (clean + shares[:, None, None, None] * (picture - clean)).requires_grad_(True)
    [gradients] = torch.autograd.grad(model(points).log_softmax(1)[:, called].sum(), points)
    return ((picture - clean) * gradients.mean(0)).sum(0)


@drawn
def draw_saliency(cells: NDArray[np.uint8], saliency: NDArray[np.float32], *, titles: Sequence[str]) -> Figure:
    """Draw a map, and beside it what speaks for the call (blue) and against it (vermillion).

    Args:
        cells: Die codes, shape (H, W).
        saliency: Shape (S, S).
        titles: Of the two pictures.
    """
    figure = Figure(figsize=(6.4, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.imshow(
        np.where(cells == 0, np.nan, cells), cmap="OrRd", vmin=0, vmax=2.4, aspect="auto", interpolation="nearest"
    )
    most = max(float(np.abs(saliency).max()), 1e-9)
    shown = right.imshow(saliency, cmap="RdBu", vmin=-most, vmax=most, aspect="auto", interpolation="nearest")
    figure.colorbar(shown, ax=right, label="log probability", shrink=0.8)
    for axis, title in zip((left, right), titles, strict=True):
        axis.set_title(title)
        axis.set_box_aspect(1)
        axis.axis("off")
    return figure
