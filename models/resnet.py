"""torchvision's ResNet-18 with a stem for small maps."""

from torch import nn
from torchvision.models import resnet18 as torchvision_resnet18

from models.layers import check_range


def resnet18(*, n_classes: int, dropout: float = 0.0) -> nn.Module:
    """Build ResNet-18 with a 3x3 stem and no max-pool, as is usual for pictures of 32 to 64 pixels.

    Args:
        n_classes: K.
        dropout: Share of the pooled features dropped in training, in [0, 0.9].

    Raises:
        ModelError: If dropout is out of range.

    Source:
        He et al. 2015, Deep Residual Learning for Image Recognition, arXiv:1512.03385: the network is table 1's,
        the stem section 4.2's.
    """
    check_range("dropout", dropout, low=0, high=0.9)
    model = torchvision_resnet18(weights=None)
    model.conv1 = nn.Conv2d(2, 64, 3, padding=1, bias=False)
    # As torchvision initialises every other convolution; it has not seen this one.
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    model.fc = nn.Sequential(nn.Dropout(dropout), nn.Linear(model.fc.in_features, n_classes))
    return model  # type: ignore[no-any-return]
