"""Our own narrow residual network."""

from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from models.layers import GlobalPool, check_count, check_range, conv_norm, conv_norm_relu, make_squeeze, make_stem


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions added to their input.

    Where the block is strided or widens, the input passes a 1x1 convolution first. In training the convolutions
    are left out for a share `drop_path` of the wafers.

    Source:
        He et al. 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385.
    """

    def __init__(
        self, n_in: int, n_out: int, *, stride: int, norm: str = "batch", squeeze: bool = False, drop_path: float = 0.0
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_norm_relu(n_in, n_out, norm=norm, stride=stride),
            *conv_norm(n_out, n_out, norm=norm),
            *make_squeeze(n_out, wanted=squeeze),
            StochasticDepth(drop_path, mode="row"),
        )
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or n_in != n_out:
            self.shortcut = nn.Sequential(*conv_norm(n_in, n_out, norm=norm, kernel=1))
        # The steps of the 1x1 convolution, before it: with them, and fewer than eight channels, oneDNN writes past
        # its memory on processors without AVX-512, and crashes or learns nonsense (uxlfoundation/oneDNN#6035).
        self.step = nn.AvgPool2d(1, stride) if stride > 1 else nn.Identity()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        """Map (N, n_in, H, W) to (N, n_out, H / stride, W / stride), rounded up."""
        out: Tensor = self.relu(self.body(x) + self.shortcut(self.step(x)))
        return out


def wafer_resnet(
    *,
    n_classes: int,
    width: int = 24,
    depth: int = 1,
    dropout: float = 0.1,
    pooling: str = "avgmax",
    stem: str = "strided",
    norm: str = "batch",
    squeeze: bool = False,
    mask_channel: bool = False,
    drop_path: float = 0.0,
) -> nn.Sequential:
    """Build the network: a stem of one convolution, then three stages of residual blocks.

    The first stage works on half the size of the maps, the second and the third each halve it again.

    Args:
        n_classes: K.
        width: Channels of the first stage, in [4, 256]; the stages have width, 2 width, 4 width.
        depth: Residual blocks per stage, in [1, 4].
        dropout: Share of the pooled features dropped in training, in [0, 0.9].
        pooling: How the last feature map becomes one vector: "avg", "max", their sum "avgmax", or "gem", a mean
            between them whose exponent is learned.
        stem: "strided" convolves 5x5 in steps of two dies, "full" convolves 3x3 at full size and leaves the halving
            to the first block.
        norm: What follows each convolution: "batch" (BatchNorm), "group" (GroupNorm) or "none".
        squeeze: Whether each block ends with squeeze-and-excitation, which weighs its channels.
        mask_channel: Whether the network sees the share of no die as a third channel.
        drop_path: Share of the wafers for which the last block is left out in training, in [0, 0.5]; it grows
            linearly from 0 in the first block (stochastic depth).

    Raises:
        ModelError: If an option is out of range.

    Source:
        Huang et al. 2016, Deep Networks with Stochastic Depth, arXiv:1603.09382: drop_path, per wafer and not per
        batch.
    """
    check_count("width", width, low=4, high=256)
    check_count("depth", depth, low=1, high=4)
    check_range("dropout", dropout, low=0, high=0.9)
    check_range("drop_path", drop_path, low=0, high=0.5)
    layers = make_stem(stem, width, norm=norm, mask_channel=mask_channel)
    channels, last = width, 3 * depth - 1
    for index in range(last + 1):
        stage, place = divmod(index, depth)
        halves = place == 0 and (stage > 0 or stem == "full")
        wider = width * 2**stage
        rate = drop_path * index / last
        layers.append(
            ResidualBlock(channels, wider, stride=2 if halves else 1, norm=norm, squeeze=squeeze, drop_path=rate)
        )
        channels = wider
    return nn.Sequential(*layers, GlobalPool(pooling), nn.Dropout(dropout), nn.Linear(channels, n_classes))
