"""A GPU that is made up: its tensors say that they lie on it, are computed on the CPU, and refuse what a GPU's refuse.

It finds what no test on a CPU can: a tensor forgotten on the other device, NumPy asked for one on the GPU, a call that
wants a numbered device. Of speed, memory, precision and chance on a real one it says nothing.
"""

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

GPU = torch.device("cuda", 0)
_aten = torch.ops.aten
_INDEXED = (
    _aten.index.Tensor, _aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default,
)  # fmt: skip


class OnGpu(Tensor):
    """A tensor of the made-up GPU. Torch itself takes it for one of the CPU; what Python sees says otherwise."""

    @staticmethod
    def __new__(cls, content):
        tensor = Tensor._make_wrapper_subclass(
            cls, content.size(), strides=content.stride(), storage_offset=content.storage_offset(), dtype=content.dtype
        )
        tensor.content = content
        return tensor

    def __repr__(self):
        return f"OnGpu({self.content})"

    def __reduce_ex__(self, protocol):
        return self.content.detach().__reduce_ex__(protocol)  # files are read to the CPU

    def __deepcopy__(self, memo):
        copy = OnGpu(self.content.detach().clone())
        if isinstance(self, nn.Parameter):
            copy = nn.Parameter(copy, requires_grad=self.requires_grad)
        memo[id(self)] = copy
        return copy

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        if func in _ATTRIBUTES:
            return _ATTRIBUTES[func]
        if func in (Tensor.numpy, Tensor.__array__):
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        with torch._C.DisableTorchFunctionSubclass():
            if func is Tensor.tolist:
                return args[0].content.tolist()
            if func is Tensor.cpu:
                return _move(args[0], "cpu")
            if func is Tensor.to:
                return _move(*args, **(kwargs or {}))
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


_ATTRIBUTES = {
    Tensor.device.__get__: GPU,
    Tensor.is_cuda.__get__: True,
    Tensor.is_cpu.__get__: False,
    Tensor.get_device: 0,
}


class _OnEveryCall(TorchFunctionMode):
    """Makes tensors on the GPU, and moves them there, without asking torch's own CUDA."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is Tensor.to and not isinstance(args[0], OnGpu):
            return _move(*args, **kwargs)
        if func is not Tensor.to and _is_gpu(kwargs.get("device")):
            made = func(*args, **(kwargs | {"device": torch.device("cpu")}))
            return made if isinstance(made, OnGpu) else OnGpu(made)
        return func(*args, **kwargs)


class _OnEveryOperation(TorchDispatchMode):
    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return _compute(func, args, kwargs or {})


class _Crossing(torch.autograd.Function):
    """A copy on the other side; its gradient comes back the same way."""

    @staticmethod
    def forward(ctx, tensor):
        return tensor.content.detach().clone() if isinstance(tensor, OnGpu) else OnGpu(tensor.detach().clone())

    @staticmethod
    def backward(ctx, gradient):
        return gradient.content if isinstance(gradient, OnGpu) else OnGpu(gradient)


def _move(tensor, *wanted, device=None, **how):
    """Do as Tensor.to, whose arguments may be a device, a dtype or a tensor that has both."""
    kinds = []
    for each in wanted:
        if isinstance(each, Tensor):
            device = each.device
            kinds.append(each.dtype)
        elif isinstance(each, str | torch.device):
            device = each
        elif isinstance(each, torch.dtype):
            kinds.append(each)
    if device is not None and _is_gpu(device) != isinstance(tensor, OnGpu):
        tensor = _Crossing.apply(tensor)
    return tensor.to(*kinds, **how) if kinds or how else tensor


def _is_gpu(device):
    return device is not None and torch.device(device).type == "cuda"


def _compute(func, args, kwargs):
    """Run one operation on the contents; fail if it mixes devices in a way that a GPU refuses."""
    tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
    is_there = any(isinstance(each, OnGpu) for each in tensors)
    is_here = any(not isinstance(each, OnGpu) and each.ndim > 0 for each in tensors)
    may_mix = func is _aten.copy_.default or (func in _INDEXED and isinstance(args[0], OnGpu))
    if is_there and is_here and not may_mix:
        raise RuntimeError(f"Expected all tensors to be on the same device, but {func} got cuda:0 and cpu")
    outer = {}

    def open_up(each):
        if not isinstance(each, OnGpu):
            return each
        outer[id(each.content)] = each
        return each.content

    found = func(*tree_map(open_up, args), **tree_map(open_up, kwargs))
    if func is _aten.copy_.default:
        return args[0]

    def close(each):
        if not isinstance(each, Tensor):
            return each
        return outer[id(each)] if id(each) in outer else OnGpu(each)

    return tree_map(close, found) if is_there else found


_change_module = nn.Module.to


def _move_module(module, *wanted, **how):
    """Do as Module.to: in its own way, torch would make new parameters each time, which no optimizer knows."""
    device = next((each for each in (*wanted, *how.values()) if isinstance(each, str | torch.device)), None)
    if device is None:
        return _change_module(module, *wanted, **how)
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None and isinstance(parameter, OnGpu) != _is_gpu(device):
                moved = _move(parameter.detach(), device)
                part._parameters[name] = nn.Parameter(moved, requires_grad=parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = _move(buffer, device)
    return module


def plug_in():
    """Let all of this process's torch find one GPU of 80 GiB, from now on and in this thread."""
    torch.inference_mode = lambda mode=True: torch.no_grad()  # no tensor as ours can be made in it
    nn.Module.to = _move_module
    torch.cuda.memory._lazy_init = lambda: None
    torch._C._cuda_setMemoryFraction = lambda share, device: None
    for name in ("_accelerator_graph_capture_health_check", "_cuda_graph_capture_health_check"):  # by torch's version
        setattr(torch.optim.Optimizer, name, lambda optimizer: None)
    random = torch.zeros(16, dtype=torch.uint8)
    for name, stand_in in {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "mem_get_info": lambda device=None: (70 * 2**30, 80 * 2**30),
        "max_memory_allocated": lambda device=None: 2**30,
        "reset_peak_memory_stats": lambda device=None: None,
        "empty_cache": lambda: None,
        "manual_seed": lambda seed: None,
        "get_rng_state": lambda device="cuda": random,
        "set_rng_state": lambda state, device="cuda": None,
        "get_device_name": lambda device=None: "made-up GPU",
        "is_bf16_supported": lambda including_emulation=True: False,
    }.items():
        setattr(torch.cuda, name, stand_in)
    _OnEveryCall().__enter__()
    _OnEveryOperation().__enter__()
