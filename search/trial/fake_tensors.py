"""Networks of fake tensors, shapes without content, and how many bytes they would hold if they were real."""

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from models import MODELS
from search.trial.vocabulary import Scalar


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors that operations have made and that are still there."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known: WeakKeyDictionary[torch.UntypedStorage, int] = WeakKeyDictionary()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and take note of what it made."""
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._known:  # a view, or written in place
            return
        size = self._known[storage] = storage.nbytes()
        self.now += size
        self.peak = max(self.peak, self.now)
        finalize(storage, self._drop, size).atexit = False

    def _drop(self, size: int) -> None:
        self.now -= size


def build_skeleton(name: str, options: Mapping[str, Scalar], *, n_classes: int) -> nn.Module:
    """Build a network on the meta device, without its weights' file but frozen as asked."""
    chosen: dict[str, Any] = dict(options)
    is_frozen = chosen.get("freeze") == "backbone"
    without_file = {"weights": "none", "freeze": "none"}
    with torch.device("meta"):
        model = MODELS[name].build(n_classes=n_classes, **{k: without_file.get(k, v) for k, v in chosen.items()})
    if is_frozen:
        backbone: Any = model
        backbone.frozen = True  # its train() leaves the backbone in evaluation then
        backbone.features.requires_grad_(False)
    return model


def fill_with_fakes(model: nn.Module) -> nn.Module:
    """Put tensors of the mode at hand in the place of those on the meta device, as `build_model` lays them out."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            setattr(module, name, nn.Parameter(_like(parameter), requires_grad=parameter.requires_grad))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, _like(buffer))
    return model


def _like(tensor: Tensor) -> Tensor:
    order = torch.channels_last if tensor.ndim == 4 else torch.contiguous_format
    return torch.empty(tensor.shape, dtype=tensor.dtype, device=torch.device("cpu"), memory_format=order)


def normalise_groups_in_float32(model: nn.Module) -> None:
    """Do as autocast does on GPUs; on the CPU, where the fake tensors are, it leaves bfloat16."""
    for module in model.modules():
        if isinstance(module, nn.GroupNorm):
            module.register_forward_pre_hook(lambda _, inputs: (inputs[0].float(),))
