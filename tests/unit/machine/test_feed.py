"""Feeds: the same bytes from memory and from a file, and a thread that ends with its loop."""

from __future__ import annotations

import contextlib
import logging
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from robustviews.attacks import PgdAttack
from robustviews.augment import Views
from robustviews.evaluate import Classifier, evaluate
from robustviews.machine import feed, memory
from robustviews.machine.feed import Mapped, Resident
from robustviews.machine.mapping import Shards
from robustviews.methods import EmpSsl
from robustviews.probe import LinearProbe, NcropProbe, RobustLinearProbe
from robustviews.probe.heads import new_head
from robustviews.regimes import Free
from tests.unit.test_pretrain import InterruptedTraining, Memory
from tests.unit.tiny_models import (
    SIZE,
    labels_of,
    noise_images,
    probe_task,
    tiny_encoder,
    train,
    weights_of,
)

CPU = torch.device("cpu")
COUNT = 12


def saved(images, folder, shards):
    """Return images that are mapped from a file, or from three."""
    if not shards:
        np.save(folder / "images.npy", images)
        return np.load(folder / "images.npy", mmap_mode="r")
    files, in_file = [folder / f"{number}.npy" for number in range(3)], len(images) // 3 + 1
    for number, file in enumerate(files):
        np.save(file, images[in_file * number : in_file * (number + 1)])
    return Shards(files, images.shape, in_file)


@pytest.fixture(params=[False, True], ids=["file", "shards"])
def mapped(tmp_path, request):
    """Return noise images, mapped from a file or from three."""
    return saved(noise_images(COUNT).numpy(), tmp_path, request.param)


@pytest.fixture(params=["resident", "mapped"])
def either(request, mapped):
    return Resident(noise_images(COUNT)) if request.param == "resident" else Mapped(mapped, CPU)


def threads_of_feeds():
    return [thread for thread in threading.enumerate() if thread.name.startswith("feed")]


# Both kinds


def test_rows_come_in_the_requested_order_including_repeats(either):
    orders = [torch.tensor([5, 0, 11]), torch.tensor([3, 3]), torch.arange(COUNT).flip(0)]
    batches = list(either.batches(orders))
    assert len(either) == COUNT
    assert len(batches) == 3
    for order, (index, rows) in zip(orders, batches, strict=True):
        assert torch.equal(index, order)
        assert rows.dtype == torch.uint8
        assert torch.equal(rows, noise_images(COUNT)[order])


def test_minibatches_do_not_change_after_they_are_yielded(either):
    orders = [torch.tensor([number]) for number in range(COUNT)]
    kept = [rows for _, rows in either.batches(orders)]
    assert torch.equal(torch.cat(kept), noise_images(COUNT))


def test_no_orders_give_no_minibatches(either):
    assert list(either.batches([])) == []


def test_a_tensor_is_accepted_in_place_of_a_feed(either):
    assert feed.of(either, CPU) is either
    ((_, rows),) = feed.of(noise_images(), CPU).batches([torch.tensor([2])])
    assert torch.equal(rows, noise_images()[2:3])


# The reading thread


def test_reading_keeps_a_few_minibatches_ahead_and_no_more(mapped):
    asked = []

    def orders():
        for number in range(10):
            asked.append(number)
            yield torch.tensor([number])

    with contextlib.closing(Mapped(mapped, CPU, depth=2).batches(orders())) as batches:
        next(batches)
        assert asked == [0, 1, 2]
        next(batches)
        assert asked == [0, 1, 2, 3]


def test_reading_continues_while_a_minibatch_is_used(mapped, monkeypatch):
    read, all_read = [], threading.Event()
    of_mapped = Mapped._read

    def noting(self, order):
        read.append(order.tolist())
        if len(read) == 3:
            all_read.set()
        return of_mapped(self, order)

    monkeypatch.setattr(Mapped, "_read", noting)
    orders = [torch.tensor([number]) for number in range(3)]
    with contextlib.closing(Mapped(mapped, CPU, depth=2).batches(orders)) as batches:
        next(batches)
        assert all_read.wait(10)  # the others are not requested yet


def test_minibatches_that_several_threads_read_come_in_order(mapped, monkeypatch):
    together, of_mapped = threading.Barrier(3), Mapped._read

    def slowly(self, order):
        together.wait(10)  # three threads read at the same time, or this raises
        time.sleep(0.01 * (3 - int(order[0]) % 3))  # the first is the last to end
        return of_mapped(self, order)

    monkeypatch.setattr(Mapped, "_read", slowly)
    reader = Mapped(mapped, CPU)
    reader.readers = 3
    orders = [torch.tensor([number]) for number in range(COUNT)]
    assert torch.equal(torch.cat([rows for _, rows in reader.batches(orders)]), noise_images(COUNT))


def test_a_file_is_read_from_front_to_back_within_a_minibatch(mapped):
    class Noting(np.ndarray):
        keys: list[int] = []  # noqa: RUF012  # one list for all views of it

        def __getitem__(self, key):
            Noting.keys.append(int(key))
            return super().__getitem__(key)

    reader = Mapped(mapped[:].view(Noting), CPU)
    (_, batch), *_ = reader.batches([torch.tensor([9, 1, 4])])
    assert Noting.keys == [1, 4, 9]
    assert torch.equal(batch, noise_images(COUNT)[[9, 1, 4]])


def test_an_error_of_the_thread_reaches_the_caller_as_itself(mapped):
    batches = Mapped(mapped, CPU).batches([torch.tensor([1]), torch.tensor([COUNT])])
    _, rows = next(batches)
    assert torch.equal(rows, noise_images(COUNT)[1:2])  # the minibatches before it are complete
    with pytest.raises(IndexError, match=f"index {COUNT} is out of bounds"):
        next(batches)
    assert threads_of_feeds() == []


def test_an_error_of_the_orders_reaches_the_caller_as_itself(either):
    def orders():
        yield torch.tensor([0])
        raise InterruptedTraining

    with pytest.raises(InterruptedTraining):
        list(either.batches(orders()))
    assert threads_of_feeds() == []


@pytest.mark.parametrize("taken", [0, 1, 5, COUNT])
def test_the_thread_ends_with_the_loop(mapped, taken):
    orders = [torch.tensor([number]) for number in range(COUNT)]
    with contextlib.closing(Mapped(mapped, CPU).batches(orders)) as batches:
        for _ in range(taken):
            next(batches)
    assert threads_of_feeds() == []


def test_minibatches_are_not_read_after_the_feed_is_closed(mapped, monkeypatch):
    read, of_mapped = [], Mapped._read

    def slow(self, order):
        read.append(order.tolist())
        time.sleep(0.05)
        return of_mapped(self, order)

    monkeypatch.setattr(Mapped, "_read", slow)
    orders = [torch.tensor([number]) for number in range(COUNT)]
    with contextlib.closing(Mapped(mapped, CPU, depth=8).batches(orders)) as batches:
        next(batches)
    assert len(read) <= 3


@pytest.mark.skipif(sys.platform != "linux", reason="reads a process's memory from /proc")
@pytest.mark.parametrize("shards", [False, True])
def test_pages_read_from_a_file_do_not_count_as_memory_of_the_process(shards, tmp_path):
    def of_files():
        status = Path("/proc/self/status").read_text().split()
        return int(status[status.index("RssFile:") + 1]) * 1024

    images = saved(np.zeros((4000, 3, 64, 64), np.uint8), tmp_path, shards)
    before, most = of_files(), 0
    for _ in Mapped(images, CPU).batches(torch.arange(4000).split(100)):
        most = max(most, of_files() - before)
    assert images.nbytes > 49e6
    assert most < 10e6


# What is computed with them


def trained_weights(images, checkpoint=None):
    encoder = tiny_encoder()
    train(encoder, method=EmpSsl(), regime=Free(replays=2), images=images, checkpoint=checkpoint)
    return weights_of(encoder)


def test_a_training_ends_in_the_same_bytes_from_memory_and_from_a_file(mapped):
    assert trained_weights(Mapped(mapped, CPU)) == trained_weights(Resident(noise_images()))


def test_a_training_resumes_with_either_feed_as_if_never_interrupted(mapped):
    uninterrupted = trained_weights(noise_images())
    state = Memory(dies_after=2)
    for images in (Mapped(mapped, CPU), Resident(noise_images())):
        with pytest.raises(InterruptedTraining):
            trained_weights(images, state)
        assert threads_of_feeds() == []
        state.minibatches = 0
    state.dies_after = None
    assert trained_weights(Mapped(mapped, CPU), state) == uninterrupted


@pytest.mark.parametrize(
    "probe",
    [
        LinearProbe(epochs=2, batch_size=5),
        RobustLinearProbe(epochs=2, batch_size=5, steps=1, rle_trailing_standard=1),
        NcropProbe(n=2, epochs=1, batch_size=5),
    ],
    ids=["linear", "robust_linear", "ncrop"],
)
def test_a_probe_ends_in_the_same_bytes_from_memory_and_from_a_file(probe, mapped):
    encoder = tiny_encoder().eval()
    heads = []
    for images in (noise_images(), Mapped(mapped, CPU)):
        task = replace(probe_task(noise_images(), labels_of(), batch=5), images=images)
        heads.append(weights_of(probe.train(encoder, task)[0]))
    assert heads[0] == heads[1]
    assert threads_of_feeds() == []


@pytest.mark.parametrize("count", [None, 7])
def test_flags_are_the_same_from_memory_and_from_a_file(count, mapped):
    encoder, probe = tiny_encoder().eval(), LinearProbe()
    head = new_head(encoder, "prefeature", probe_task(noise_images(), labels_of()))
    attack = PgdAttack(eps=(4.0,), steps=2, images=count)
    flags = [
        evaluate(
            Classifier(encoder, head, probe),
            attack,
            images,
            labels_of(),
            views=Views(),
            size=SIZE,
            seed=0,
            batch=5,
        )
        for images in (noise_images(), Mapped(mapped, CPU))
    ]
    assert flags[0].keys() == flags[1].keys()
    assert all(torch.equal(flags[0][name], flags[1][name]) for name in flags[0])


# Which one


@pytest.mark.parametrize(
    ("free", "needed", "kind"),
    [(2304 / 0.6 + 1, 0, Resident), (2304 / 0.6 - 1, 0, Mapped), (10_000, 8000, Mapped)],
)
def test_images_are_on_the_device_if_they_take_no_more_than_their_share(
    free, needed, kind, mapped, monkeypatch
):
    assert mapped.nbytes == 2304
    monkeypatch.setattr(memory, "available", lambda _: int(free))
    chosen = feed.choose(mapped, CPU, needed=needed)
    assert type(chosen) is kind
    ((_, rows),) = chosen.batches([torch.arange(COUNT)])
    assert torch.equal(rows, noise_images(COUNT))


def test_images_are_copied_in_pieces(mapped, monkeypatch):
    monkeypatch.setattr(feed, "_PIECE", 5 * 192 + 1)
    assert torch.equal(feed.choose(mapped, CPU).rows, noise_images(COUNT))


def test_a_log_line_names_the_chosen_feed_and_the_reason(mapped, monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    feed.choose(mapped, CPU)
    monkeypatch.setattr(memory, "available", lambda _: 12 * 2**30)
    huge = np.broadcast_to(np.zeros((1, 3, 224, 224), np.uint8), (131_000, 3, 224, 224))
    assert isinstance(feed.choose(huge, CPU), Mapped)
    assert caplog.messages == ["images=resident 0.1 MiB", "images=mapped 18.4 GiB of 12.0 GiB free"]
