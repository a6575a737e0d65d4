"""Our own small network: four stages of 3x3 convolutions, for laptops."""

from torch import nn

from models.layers import GlobalPool, check_choice, check_count, check_range, conv_bn_relu

STEMS = ("full", "strided")


def wafer_cnn(
    *,
    n_classes: int,
    width: int = 32,
    depth: int = 1,
    dropout: float = 0.1,
    pooling: str = "avgmax",
    stem: str = "full",
) -> nn.Sequential:
    """Build the network.

    Args:
        n_classes: K.
        width: Channels of the first stage, in [4, 256]; the stages have width, 2 width, 4 width, 4 width.
        depth: Convolutions in each of the first three stages, in [1, 4].
        dropout: Share of the pooled features dropped in training, in [0, 0.9].
        pooling: How the last feature map becomes one vector: "avg", "max" or their sum "avgmax".
        stem: First stage: "full" convolves at full size and then halves it, "strided" convolves 5x5 in steps of
            two dies. At 40 pixels on a CPU, strided took an eighth less time per training step at depth 1, a
            quarter less at depth 2.

    Raises:
        ModelError: If an option is out of range.
    """
    check_count("width", width, low=4, high=256)
    check_count("depth", depth, low=1, high=4)
    check_range("dropout", dropout, low=0, high=0.9)
    check_choice("stem", stem, known=STEMS)
    first = conv_bn_relu(2, width) if stem == "full" else conv_bn_relu(2, width, kernel=5, stride=2)
    layers: list[nn.Module] = [first, *(conv_bn_relu(width, width) for _ in range(depth - 1))]
    if stem == "full":
        layers.append(nn.MaxPool2d(2))
    channels = width
    for wider in (2 * width, 4 * width):
        layers += [conv_bn_relu(channels, wider), *(conv_bn_relu(wider, wider) for _ in range(depth - 1))]
        layers.append(nn.MaxPool2d(2))
        channels = wider
    layers += [conv_bn_relu(channels, channels), GlobalPool(pooling), nn.Dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(channels, n_classes))
