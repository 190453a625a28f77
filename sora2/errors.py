"""The one base class of errors meant for a person: shown without a traceback by the command line."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input. The message names the file, key or value that is wrong, and the remedy."""
