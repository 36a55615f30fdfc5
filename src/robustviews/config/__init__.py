"""A study file, read and checked whole before anything runs."""

from robustviews.config.load import load_study
from robustviews.config.problems import Problem, StudyError
from robustviews.config.schema import Encoder, Figure, Optimizer, Row, Run, Runtime, Study, Table

__all__ = [
    "Encoder",
    "Figure",
    "Optimizer",
    "Problem",
    "Row",
    "Run",
    "Runtime",
    "Study",
    "StudyError",
    "Table",
    "load_study",
]
