"""Files that would unfold beyond reason are refused before they do."""

from pathlib import Path

from data_pipeline.errors import DataError

_RATIO = 200  # WM-811K's maps shrink to a tenth in npz; runs of equal cells to a thousandth at most
_HARMLESS = 256 << 20  # bytes; below, any ratio will do


def refuse_bomb(unpacked: int, *, packed: int, path: Path, what: str = "bytes") -> None:
    """Refuse a file that unpacks to far more than its size.

    Args:
        unpacked: Bytes that it unpacks to, as far as is known.
        packed: Bytes that it has.
        path: The file, for the message.
        what: What the unpacked bytes are.

    Raises:
        DataError: If they are more than 200 times as many, and more than 256 MiB.
    """
    if unpacked > max(_HARMLESS, _RATIO * packed):
        raise DataError(
            f"{path}: must not unpack to more than {_RATIO} times its size; got {unpacked:,} {what} from {packed:,} "
            "bytes; refused, unpack it yourself if you trust it"
        )
