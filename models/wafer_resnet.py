"""Our own narrow residual network."""

from torch import Tensor, nn

from models.layers import GlobalPool, check_count, check_range, conv_bn_relu


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions added to their input.

    Where the block is strided or widens, the input passes a 1x1 convolution first.

    Source:
        He et al. 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385.
    """

    def __init__(self, n_in: int, n_out: int, *, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn_relu(n_in, n_out, stride=stride),
            nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride=stride, bias=False), nn.BatchNorm2d(n_out))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_in, H, W) to (N, n_out, H / stride, W / stride), rounded up."""
        out: Tensor = self.relu(self.body(x) + self.shortcut(x))
        return out


def wafer_resnet(
    *, n_classes: int, width: int = 24, depth: int = 1, dropout: float = 0.1, pooling: str = "avgmax"
) -> nn.Sequential:
    """Build the network: a strided 5x5 stem, then three stages of residual blocks.

    The stem, the second and the third stage each halve the map.

    Args:
        n_classes: K.
        width: Channels of the first stage, in [4, 256]; the stages have width, 2 width, 4 width.
        depth: Residual blocks per stage, in [1, 4].
        dropout: Share of the pooled features dropped in training, in [0, 0.9].
        pooling: How the last feature map becomes one vector: "avg", "max" or their sum "avgmax".

    Raises:
        ModelError: If an option is out of range.
    """
    check_count("width", width, low=4, high=256)
    check_count("depth", depth, low=1, high=4)
    check_range("dropout", dropout, low=0, high=0.9)
    layers: list[nn.Module] = [conv_bn_relu(2, width, kernel=5, stride=2)]
    channels = width
    for stage, wider in enumerate((width, 2 * width, 4 * width)):
        layers.append(ResidualBlock(channels, wider, stride=1 if stage == 0 else 2))
        layers += [ResidualBlock(wider, wider, stride=1) for _ in range(depth - 1)]
        channels = wider
    return nn.Sequential(*layers, GlobalPool(pooling), nn.Dropout(dropout), nn.Linear(channels, n_classes))
