"""Ablations as data: a study is a YAML file of cells, `sora2 study NAME` trains and measures them, a notebook reads the
record.
"""

from sora2.studies.analysis import Difference, Study, differences, load_study, sentence
from sora2.studies.config import StudyConfig, read_study

__all__ = ["Difference", "Study", "StudyConfig", "differences", "load_study", "read_study", "sentence"]
