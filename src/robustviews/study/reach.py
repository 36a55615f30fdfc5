"""Checks that the steps of an attack suit the radius of its ball."""

from __future__ import annotations

import math

from robustviews.attacks import fraction
from robustviews.sanity import Stepwise, leapt, unreached
from robustviews.study.imported import Add
from robustviews.study.located import LocatedDict


def check_reach(options: Stepwise, node: LocatedDict, add: Add) -> None:
    """Report steps that do not suit the radius of a ball, unless a reason is given."""
    if {"step_size", "relative_step"} <= set(node):
        add(node.at["relative_step"], "replaces step_size; remove one of both")
    if options.weak:
        return
    norm = getattr(options, "norm", "linf")
    absolute = options.step_size
    relative = getattr(options, "relative_step", None) or 0.0
    size = f"{relative:g} eps" if absolute is None else fraction(absolute, norm)
    missed, small = unreached(options), leapt(options)
    if missed:
        steps = f"{options.steps} steps of {size}"
        text = f"{steps} cannot reach {', '.join(fraction(eps, norm) for eps in missed)}"
        far = 1 if absolute is None else max(missed)
        least = math.ceil(100 * far / options.steps - 1e-6) / 100
        key = "relative_step" if absolute is None else "step_size"
        fix = f'set {key} to {least:g} or more, or write why: weak: "..."'
        add(node.at.get("steps", node.at.get(key, node.place)), f"{text}; {fix}")
    if small:
        text = f"a step of {size} is more than twice the radius {fraction(min(small), norm)}"
        fix = 'write relative_step: 0.1 in place of step_size, or write why: weak: "..."'
        add(node.at.get("step_size", node.at.get("eps", node.place)), f"{text}; {fix}")
