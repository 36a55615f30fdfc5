"""Interrupted fits of heads: they resume, and end with the bytes of uninterrupted fits."""

from __future__ import annotations

import functools

import pytest

from robustviews import probe
from robustviews.probe import (
    DetectionProbe,
    FinetuneProbe,
    LinearProbe,
    NcropProbe,
    RobustLinearProbe,
    SegmentationProbe,
)
from tests.unit.test_pretrain import InterruptedTraining, Memory
from tests.unit.tiny_models import labels_of, noise_images, probe_task, tiny_encoder, weights_of

# Three minibatches per epoch, the last of two images.
PROBES = {
    "linear": LinearProbe(epochs=2, batch_size=5, lr=0.01),
    "robust": RobustLinearProbe(epochs=2, batch_size=5, lr=0.01, steps=2),
    "robust, then standard": RobustLinearProbe(
        epochs=1, batch_size=5, lr=0.01, steps=2, rle_trailing_standard=1
    ),
    "n crops": NcropProbe(n=2, epochs=2, batch_size=5),
    "n crops, no momentum": NcropProbe(n=2, epochs=2, batch_size=5, momentum=0.0),
}
MINIBATCHES = 6
probes = pytest.mark.parametrize("name", PROBES)


def fitted(name, checkpoint=None):
    """Return a head's bytes and its history."""
    task = probe_task(noise_images(), labels_of(), checkpoint=checkpoint)
    head, history = PROBES[name].train(tiny_encoder().eval(), task)
    return weights_of(head), history


@pytest.fixture(scope="module")
def undisturbed():
    """Return the result of a probe that was neither interrupted nor saved."""
    return functools.cache(fitted)


@probes
def test_a_fit_resumes_from_any_minibatch_as_if_never_interrupted(name, undisturbed):
    memory = Memory()
    assert fitted(name, memory) == undisturbed(name)
    assert len(memory.saved) == MINIBATCHES
    for done in range(1, MINIBATCHES + 1):
        again = Memory()
        again.saved = memory.saved[:done]
        assert fitted(name, again) == undisturbed(name)
        assert again.minibatches == MINIBATCHES - done


@pytest.mark.parametrize("kind", probe.PROBES)
def test_a_probe_of_any_kind_resumes_or_saves_nothing(kind):
    elsewhere = {FinetuneProbe, SegmentationProbe, DetectionProbe}  # by test_finetune, test_dense
    covered = {type(case) for case in PROBES.values()} | elsewhere
    if probe.PROBES[kind] in covered:
        return
    memory = Memory()
    task = probe_task(noise_images(), labels_of(), checkpoint=memory)
    probe.PROBES[kind]().train(tiny_encoder(supervised=kind == "own").eval(), task)
    assert not memory.saved


@probes
def test_a_fit_that_is_interrupted_repeatedly_has_the_same_result(name, undisturbed):
    memory = Memory(every=2)
    for dies_after in (1, 3, 4):  # resumed with nothing saved, after two minibatches, after four
        memory.minibatches, memory.dies_after = 0, dies_after
        with pytest.raises(InterruptedTraining):
            fitted(name, memory)
    memory.minibatches, memory.dies_after = 0, None
    assert fitted(name, memory) == undisturbed(name)
    assert memory.minibatches == 2


def test_a_log_line_names_where_a_fit_resumes(caplog):
    caplog.set_level("INFO")
    memory = Memory(dies_after=5)
    with pytest.raises(InterruptedTraining):
        fitted("robust", memory)
    memory.dies_after = None
    fitted("robust", memory)
    lines = [line.partition(" loss")[0] for line in caplog.messages]
    assert lines == [
        "probe=probe epoch=1",
        "probe=probe resumed after epoch 1, minibatch 1",
        "probe=probe epoch=2",
    ]
