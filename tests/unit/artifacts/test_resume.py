"""Saved state: loaded by the same job only, complete, and with the work of earlier processes."""

from __future__ import annotations

import pytest
import torch

from robustviews import artifacts
from robustviews.artifacts import resume as resuming
from robustviews.artifacts.resume import Resume
from robustviews.artifacts.start import Start


def resume(folder, spec=None, inputs=(), minutes=10.0, started=None, **environment) -> Resume:
    begin, spec, started = folder / "state" / "run", spec or {"epochs": 3}, started or Start()
    return Resume(begin, spec, list(inputs), minutes, environment=environment, started=started)


def test_a_training_resumes_from_its_own_saved_state(tmp_path):
    assert resume(tmp_path).load() is None
    resume(tmp_path).save({"weight": torch.ones(2)}, {"epoch": 1, "history": [{"loss": 0.1}]})
    resume(tmp_path).save({"weight": torch.zeros(2)}, {"epoch": 2, "history": [{"loss": 0.3}]})
    saved, position = resume(tmp_path).load()
    assert torch.equal(saved["weight"], torch.zeros(2))
    assert position == {"epoch": 2, "history": [{"loss": 0.3}]}


def test_state_of_another_spec_or_of_other_inputs_is_not_loaded(tmp_path):
    data = tmp_path / "data.npy"
    data.write_text("one")
    resume(tmp_path, inputs=[data]).save({"weight": torch.ones(2)}, {})
    assert resume(tmp_path, {"epochs": 4}, [data]).load() is None
    assert resume(tmp_path).load() is None
    assert resume(tmp_path, {"epochs": 3}, [data]).load() is not None
    data.write_text("two")
    assert resume(tmp_path, inputs=[data]).load() is None


def test_the_order_of_a_spec_does_not_matter(tmp_path):
    resume(tmp_path, {"a": 1, "b": 2}).save({"weight": torch.ones(2)}, {})
    assert resume(tmp_path, {"b": 2, "a": 1}).load() is not None


def test_the_order_of_inputs_does_not_matter(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_text("1")
    two.write_text("2")
    resume(tmp_path, inputs=[one, two]).save({"weight": torch.ones(2)}, {})
    assert resume(tmp_path, inputs=[two, one]).load() is not None


def test_the_work_of_processes_that_saved_is_added_up(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(resuming.time, "monotonic", lambda: now)
    first = resume(tmp_path, started=Start(ticks=990.0))
    assert (first.load(), first.resumed, first.seconds()) == (None, 0, 10.0)
    now += 5
    first.save({"weight": torch.ones(2)}, {})
    now += 100  # work until it was killed is lost
    lost = resume(tmp_path, started=Start(ticks=now))
    lost.load()
    now += 7
    assert (lost.resumed, lost.seconds()) == (1, 22.0)  # it saves nothing
    second = resume(tmp_path, started=Start(ticks=now))
    second.load()
    now += 2
    second.save({"weight": torch.ones(2)}, {})
    third = resume(tmp_path, started=Start(ticks=now - 1))
    third.load()
    assert (third.resumed, third.seconds()) == (2, 18.0)


def test_the_state_of_a_finished_training_is_removed(tmp_path):
    other = resume(tmp_path, {"epochs": 4})
    other.save({"weight": torch.ones(2)}, {})
    state = resume(tmp_path)
    state.save({"weight": torch.ones(2)}, {})
    state.discard()
    state.discard()
    assert state.load() is None
    assert other.load() is not None


def test_saving_is_due_after_some_minutes(tmp_path, monkeypatch):
    now = 1000.0
    monkeypatch.setattr(resuming.time, "monotonic", lambda: now)
    state, always = resume(tmp_path, minutes=2), resume(tmp_path, minutes=0)
    assert (state.due(), always.due()) == (False, True)
    now += 120
    assert state.due()
    state.save({"weight": torch.ones(2)}, {})
    assert not state.due()


def test_a_save_that_fails_leaves_the_state_before_it(tmp_path):
    state = resume(tmp_path)
    state.save({"weight": torch.ones(2)}, {"epoch": 1})
    shared = torch.zeros(2)
    with pytest.raises(RuntimeError, match="share memory"):
        state.save({"weight": shared, "other": shared}, {"epoch": 2})
    saved, position = state.load()
    assert position == {"epoch": 1}
    assert saved["weight"].sum() == 2
    assert list(state.folder.iterdir()) == [state.path]


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, "no position", "cut", "torn"])
def test_a_job_starts_anew_and_says_so_where_its_state_is_damaged(content, tmp_path, caplog):
    state = resume(tmp_path)
    state.save({"weight": torch.ones(2)}, {})
    if content == "no position":
        artifacts.write_tensors(state.path, {"weight": torch.ones(2)})
    elif content == "torn":  # whole for its header, but a block of it never reached the disk
        state.path.write_bytes(state.path.read_bytes()[:-8] + 8 * b"\x00")
    else:
        state.path.write_bytes(state.path.read_bytes()[:100] if content == "cut" else content)
    assert state.load() is None
    assert state.resumed == 0
    assert f"{state.path}: damaged (" in caplog.text
    state.save({"weight": torch.zeros(2)}, {"epoch": 1})
    assert resume(tmp_path).load()[1] == {"epoch": 1}


def test_no_job_resumes_from_the_state_of_another_environment(tmp_path, caplog):
    one = resume(tmp_path, threads=1, device="cpu: a")
    one.save({"weight": torch.ones(2)}, {"epoch": 1})
    two = resume(tmp_path, threads=2, device="cpu: a")
    assert two.load() is None
    assert two.resumed == 0
    assert f"{one.path}: not resumed, because it was computed with threads 1" in caplog.text
    assert "and here is threads 2" in caplog.text
    assert "run it again with threads 1." in caplog.text
    assert "cpu: a" not in caplog.text


def test_each_environment_resumes_from_its_own_state_until_the_job_finishes(tmp_path):
    for epoch, device in enumerate(["A100", "H100"]):
        resume(tmp_path, device=device).save({"weight": torch.ones(2)}, {"epoch": epoch})
    first, second = resume(tmp_path, device="A100"), resume(tmp_path, device="H100")
    assert first.load()[1] == {"epoch": 0}
    assert second.load()[1] == {"epoch": 1}
    second.discard()
    assert first.load() is None
    assert not list((tmp_path / "state").iterdir())


@pytest.mark.parametrize("name", ["state.safetensors", "state-0.safetensors"])
def test_a_state_that_does_not_say_its_environment_is_not_resumed(name, tmp_path, caplog):
    state = resume(tmp_path, threads=1)
    artifacts.write_tensors(state.folder / name, {"weight": torch.ones(2)}, {"position": "{}"})
    assert state.load() is None
    assert "computed with threads unknown" in caplog.text
