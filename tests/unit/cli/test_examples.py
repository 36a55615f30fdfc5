"""The verb `examples`: which networks its pictures show."""

from __future__ import annotations

from types import SimpleNamespace

from robustviews import artifacts
from robustviews.cli import examples
from robustviews.reporting import figures
from robustviews.study import load_study

STUDY = """
study: scenes
title: Scenes
datasets: {digits: {kind: digits, size: 16}, scenes: {kind: scenes_segmentation}}
runs:
  simclr: {method: simclr, regime: standard, datasets: [digits], epochs: 1}
probes:
  frozen: {kind: segmentation}
  tuned: {kind: segmentation, tuned: true}
attacks: {pixels: {kind: segmentation_pgd, eps: [8]}}
tables:
  masks:
    title: Masks
    columns: [scenes/pixels/8]
    rows:
      frozen: {run: simclr, probe: frozen, pretrained_on: digits}
      tuned: {run: simclr, probe: tuned, pretrained_on: digits}
"""


def test_two_uses_of_one_encoder_are_two_lines_of_a_picture(monkeypatch, tmp_path):
    file = tmp_path / "scenes.yaml"
    file.write_text(STUDY, encoding="utf-8")
    study = load_study(file)
    drawn = {}
    monkeypatch.setattr(examples, "_views", lambda *_: None)
    monkeypatch.setattr(examples, "_attacked", lambda _, cell, __: SimpleNamespace(names=[cell]))
    monkeypatch.setattr(examples, "_answered", lambda pairs, _: [pairs.names[0].probe])
    monkeypatch.setattr(figures, "dense_images", lambda rows, *_, **__: drawn.update(rows))
    for name in ("to_svg", "to_png"):
        monkeypatch.setattr(figures, name, lambda _: b"")
    monkeypatch.setattr(artifacts, "write_bytes", lambda *_: None)
    examples._draw(study, None)
    assert drawn == {"simclr (frozen)": ["frozen"], "simclr (tuned)": ["tuned"]}
