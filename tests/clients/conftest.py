"""The small bundles that the router's tests serve."""

from tests.router.conftest import models

__all__ = ["models"]
