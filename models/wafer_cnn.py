"""Our own small network: four stages of 3x3 convolutions, for laptops."""

from functools import partial

from torch import nn

from models.layers import GlobalPool, check_count, check_range, conv_norm_relu, make_squeeze, make_stem


def wafer_cnn(
    *,
    n_classes: int,
    width: int = 32,
    depth: int = 1,
    dropout: float = 0.1,
    pooling: str = "avgmax",
    stem: str = "full",
    norm: str = "batch",
    squeeze: bool = False,
    mask_channel: bool = False,
) -> nn.Sequential:
    """Build the network.

    Args:
        n_classes: K.
        width: Channels of the first stage, in [4, 256]; the stages have width, 2 width, 4 width, 4 width.
        depth: Convolutions in each of the first three stages, in [1, 4].
        dropout: Share of the pooled features dropped in training, in [0, 0.9].
        pooling: How the last feature map becomes one vector: "avg", "max", their sum "avgmax", or "gem", a mean
            between them whose exponent is learned.
        stem: First stage: "full" convolves at full size and then halves it, "strided" convolves 5x5 in steps of
            two dies, which takes a tenth less time per training step on a CPU.
        norm: What follows each convolution: "batch" (BatchNorm), "group" (GroupNorm) or "none".
        squeeze: Whether each stage ends with squeeze-and-excitation, which weighs its channels.
        mask_channel: Whether the network sees the share of no die as a third channel.

    Raises:
        ModelError: If an option is out of range.
    """
    check_count("width", width, low=4, high=256)
    check_count("depth", depth, low=1, high=4)
    check_range("dropout", dropout, low=0, high=0.9)
    conv = partial(conv_norm_relu, norm=norm)
    gate = partial(make_squeeze, wanted=squeeze)
    full = stem == "full"
    layers = make_stem(stem, width, norm=norm, mask_channel=mask_channel, halve=full and depth == 1)
    layers += [conv(width, width, halve=full and i == depth - 2) for i in range(depth - 1)]
    layers += gate(width)
    channels = width
    for wider in (2 * width, 4 * width):
        layers += [conv(channels if i == 0 else wider, wider, halve=i == depth - 1) for i in range(depth)]
        layers += gate(wider)
        channels = wider
    layers += [conv(channels, channels), *gate(channels), GlobalPool(pooling), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(channels, n_classes))
