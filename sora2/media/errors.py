"""The error of everything that reads or writes media files."""

from __future__ import annotations

from sora2.errors import UserError


class MediaError(UserError):
    """A file that cannot be read or written as asked. The message names the file and the remedy."""
