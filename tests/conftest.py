import pytest

_LARGE = ("resnet18", "efficientnet")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the cases of the large networks, which take seconds to build, to `make test`."""
    for item in items:
        if any(name in item.name for name in _LARGE):
            item.add_marker(pytest.mark.slow)
