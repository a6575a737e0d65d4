"""A trial's share of a GPU is read from NVIDIA's tool, less what stays free."""

import pytest
import torch

from search.execution.device import Share, find_shares
from search.execution.packing import Node, Packing, Slice


@pytest.fixture
def nvidia_smi(tmp_path, monkeypatch):
    """Stand in for NVIDIA's tool: says what it is told to, and is not there before."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def say(*gpus):
        tool = tmp_path / "nvidia-smi"
        tool.write_text("\n".join(["#!/bin/sh", *(f"echo '{gpu}'" for gpu in gpus)]))
        tool.chmod(0o755)

    return say


def share_of(gpus):
    packing = Packing(nodes=(Node("a", 8, 8),), slices={"wafer_cnn": Slice(1, gpus)})
    return find_shares(packing)["wafer_cnn"]


@pytest.mark.parametrize(("gpus", "usable_mib"), [(1, 8704), (4, 8704), (0.5, 4096), (0.05, 0)])
def test_a_tenth_and_half_a_gib_of_a_share_of_the_smallest_gpu_stay_free(nvidia_smi, gpus, usable_mib):
    nvidia_smi("81920, 9.0", "10240, 8.6")

    share = share_of(gpus)

    assert share.usable == pytest.approx(usable_mib * 2**20, abs=1)


@pytest.mark.parametrize(("capability", "auto"), [("8.0", torch.bfloat16), ("7.5", torch.float32)])
def test_auto_precision_is_that_of_the_gpu(nvidia_smi, capability, auto):
    nvidia_smi(f"10240, {capability}")

    assert share_of(1).auto is auto


def test_without_the_tool_the_share_is_unknown(nvidia_smi):
    assert share_of(1) == Share(usable=None, auto=torch.float32)


def test_an_answer_that_is_none_leaves_the_share_unknown(nvidia_smi):
    nvidia_smi("No devices were found")

    assert share_of(1).usable is None
