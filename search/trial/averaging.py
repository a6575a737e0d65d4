"""A running average of the weights, which is judged and kept in their place."""

import copy
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a model's weights and buffers.

    The average is smoother than the weights of the last step, above all before the learning rate has come down: trials
    can then be compared early. At first it spans only what there is, so that it never holds on to the initial weights.

    Args:
        model: What is averaged.
        horizon: Steps over which the average reaches back, above 0.

    Source:
        Tarvainen and Valpola 2017, Mean teachers, arXiv:1703.01780; the growing span as in TensorFlow's
        ExponentialMovingAverage with num_updates.
    """

    def __init__(self, model: nn.Module, *, horizon: float) -> None:
        self.model = copy.deepcopy(model).eval()
        self._decay = math.exp(-1 / horizon)
        self._n_steps = 0
        pairs = list(zip(_changing(self.model), _changing(model), strict=True))
        self._averaged = [(mine, theirs) for mine, theirs in pairs if mine.is_floating_point()]
        self._copied = [(mine, theirs) for mine, theirs in pairs if not mine.is_floating_point()]
        self.model.requires_grad_(False)

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights after one more step."""
        self._n_steps += 1
        share = 1 - min(self._decay, self._n_steps / (self._n_steps + 9))
        torch._foreach_lerp_([mine for mine, _ in self._averaged], [theirs for _, theirs in self._averaged], share)
        for mine, theirs in self._copied:
            mine.copy_(theirs)

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"n_steps": self._n_steps, "model": self.model.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue where `state_dict` was taken."""
        self._n_steps = state["n_steps"]
        self.model.load_state_dict(state["model"])


def _changing(model: nn.Module) -> list[Tensor]:
    """All that training changes: no weight, nor statistic of BatchNorm, of a frozen backbone."""
    tensors = []
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if not own or any(parameter.requires_grad for parameter in own):
            tensors += [parameter.detach() for parameter in own] + list(module.buffers(recurse=False))
    return tensors
