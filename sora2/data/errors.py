"""The error of the data path."""

from __future__ import annotations

from sora2.errors import UserError


class DataError(UserError):
    """A shard, index, sidecar or data configuration that cannot be used. Names the file and the remedy."""
