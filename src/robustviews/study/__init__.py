"""A study file, read and checked whole before anything runs."""

from robustviews.study.load import load_study
from robustviews.study.problems import Problem, StudyError
from robustviews.study.schema import Encoder, Figure, Optimizer, Row, Run, Runtime, Study, Table

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
