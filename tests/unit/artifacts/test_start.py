"""When a job began."""

from __future__ import annotations

from robustviews.artifacts.start import Start, time


def test_durations_do_not_follow_the_clock(monkeypatch):
    start = Start()
    monkeypatch.setattr(time, "time", lambda: start.clock - 7200)
    assert 0 <= start.elapsed() < 60
