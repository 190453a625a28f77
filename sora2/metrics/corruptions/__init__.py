"""Controlled damage, from none to gross: what every metric is tested against.

    from sora2.metrics.corruptions import all_corruptions, Subject
    worse = all_corruptions()["blur"].apply(Subject.of(clip), 2.0)

A corruption is one function in a module of this folder, decorated with `@corruption`; modules are found by themselves.
"""

from sora2.metrics.corruptions.registry import (
    Corrupted,
    Corruption,
    Subject,
    all_corruptions,
    select_corruptions,
)

__all__ = ["Corrupted", "Corruption", "Subject", "all_corruptions", "select_corruptions"]
