"""Which rank does what, and what is refused; tests/reference checks what ranks compute.

A single process must behave as without distributed training.
"""

from __future__ import annotations

import contextlib
import os

import pytest
import torch
from torch import distributed as processes
from torch import nn

from robustviews import stages
from robustviews.augment import Views
from robustviews.cli import main
from robustviews.machine import distributed, runtime
from robustviews.machine.batchnorm import synchronise
from robustviews.methods import METHODS, Batch, DivisionError, EmpSsl, SimClr, divide
from robustviews.pretrain import make_batch
from robustviews.regimes import Free, Standard
from robustviews.study import StudyError, load_study
from tests.unit.tiny_models import SIZE, labels_of, noise_images, note, tiny_encoder, train

STUDY = """\
study: shared
title: Shared
runtime: {{ranks: {ranks}}}
datasets:
  digits: {{kind: digits}}
runs:
  emp:
    {{datasets: [digits], method: emp_ssl, regime: standard, epochs: 1, views: {{count: 16}}}}
  simclr:
    {{datasets: [digits], method: simclr, regime: standard, epochs: 1, batch_size: 100}}
probes:
  central: {{kind: linear}}
attacks: {{}}
tables:
  cost:
    title: Cost
    columns: [digits/minutes]
    rows:
      emp: {{run: emp, probe: central}}
      simclr: {{run: simclr, probe: central}}
"""


@pytest.fixture
def study(tmp_path):
    def write(ranks):
        path = tmp_path / "params.yaml"
        path.write_text(STUDY.format(ranks=ranks), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("ranks", [1, 2, 4])
@pytest.mark.parametrize("name", METHODS)
def test_ranks_have_equal_parts_that_make_up_a_minibatch(name, ranks):
    method = METHODS[name]()
    shares = divide(method, views=4, batch_size=8, ranks=ranks)
    slots = [(view, image) for share in shares for view in share.views for image in share.images]
    assert len(slots) == len(set(slots)) == 4 * 8
    assert len({(len(share.views), len(share.images)) for share in shares}) == 1
    whole = (4, 8)[method.divided == "views"]  # each rank has all of what is not divided
    assert {(len(s.views), len(s.images))[method.divided == "views"] for s in shares} == {whole}


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (EmpSsl(), "views.count: 16 cannot be divided evenly among 3 ranks"),
        (SimClr(), "batch_size: 100 cannot be divided evenly among 3 ranks"),
    ],
)
def test_counts_that_cannot_be_divided_evenly_are_refused_by_key(method, message):
    with pytest.raises(DivisionError, match=message):
        divide(method, views=16, batch_size=100, ranks=3)


def test_a_study_names_each_run_that_its_ranks_cannot_divide(study):
    with pytest.raises(StudyError) as caught:
        load_study(study(8))
    assert "batch_size: 100 cannot be divided evenly among 8 ranks" in str(caught.value)
    assert "views.count" not in str(caught.value)
    assert "runs.simclr" in str(caught.value)
    assert load_study(study(4)).runtime.ranks == 4


def test_views_of_an_image_are_the_same_on_every_rank():
    options = {"views": Views(count=6, augmentation="emp_ssl"), "size": SIZE, "seed": 3, "epoch": 1}
    images, labels, indices = noise_images(5), labels_of(5), torch.arange(7, 12)
    whole = make_batch(images, labels, indices, **options)
    parts = [
        make_batch(images, labels, indices, **options, only=share.views)
        for share in divide(EmpSsl(), views=6, batch_size=5, ranks=3)
    ]
    assert {len(part.views) for part in parts} == {2}
    actual = torch.cat([part.views for part in parts])
    torch.testing.assert_close(actual, whole.views, rtol=0, atol=1e-6)
    some = make_batch(images[2:4], labels[2:4], indices[2:4], **options)
    torch.testing.assert_close(some.views, whole.views[:, 2:4], rtol=0, atol=1e-6)


def test_a_rank_is_given_its_share_of_every_minibatch(monkeypatch):
    _, whole = note(count=13, batch_size=4, method=SimClr())
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "ranks", lambda: 2)
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        monkeypatch.setattr("robustviews.network.synchronise", lambda _: None)
        _, own = note(count=13, batch_size=4, method=SimClr())
        for (batch, _), (all_of_it, _) in zip(own.given, whole.given, strict=True):
            part = slice(2 * rank, 2 * rank + 2)
            assert torch.equal(batch.labels, all_of_it.labels[part])
            assert torch.equal(batch.views, all_of_it.views[:, part])
            assert torch.equal(batch.images, all_of_it.images[part])


class Still:
    """A method whose adversary stays where it starts."""

    def target(self, batch):
        return batch.views[0]

    def train_loss(self, forward, batch, adversarial):
        return 0 * forward(adversarial).sum()


def test_each_rank_draws_its_own_start_of_a_perturbation_and_sends_nothing(monkeypatch):
    def start(batch):
        regime, net = Free(replays=1, delta_start="uniform"), nn.Flatten()
        numbers = torch.Generator().manual_seed(0)
        _, delta = regime.train_batch(net, Still(), batch, None, lambda: None, numbers)
        return delta

    grey = Batch(*(torch.full((*some, 3, 2, 2), 0.5) for some in ((4,), (1, 4))), labels_of(4))
    whole = start(grey)
    assert whole.unique().numel() == whole.numel()
    monkeypatch.setattr(distributed, "_several", lambda: True)
    monkeypatch.setattr(distributed, "ranks", lambda: 2)
    for rank in (0, 1):
        own = slice(2 * rank, 2 * rank + 2)
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        share = Batch(grey.images[own], grey.views[:, own], grey.labels[own])
        assert torch.equal(start(share), whole[own])


@pytest.mark.parametrize(("device", "sharers"), [("cpu", 2), ("meta", 1)])
def test_ranks_that_share_memory_count_the_needs_of_all_of_them(
    device, sharers, study, tmp_path, monkeypatch
):
    class Enough(Exception):  # noqa: N818  # it is no error
        pass

    def choose(images, _, *, needed):
        raise Enough(images.nbytes, needed)

    monkeypatch.chdir(tmp_path)
    assert main(["data", "--study", str(study(2)), "--dataset", "digits"]) == 0
    for module in (distributed, stages.distributed):
        monkeypatch.setattr(module, "ranks", lambda: 2)
    monkeypatch.setattr(runtime, "choose_device", lambda _: torch.device(device))
    monkeypatch.setattr(stages.step, "step_bytes", lambda *_, **__: 1000)
    monkeypatch.setattr(stages.step, "check_step", lambda needed, *_, **__: checked.append(needed))
    monkeypatch.setattr(stages.feed, "choose", choose)
    monkeypatch.setattr(stages.runtime, "native_bf16", lambda _: True)
    checked: list[int] = []
    with pytest.raises(Enough) as caught:
        main(["pretrain", "--study", str(study(2)), "--run", "simclr-digits-s0"])
    images, needed = caught.value.args
    assert checked == [sharers * 1000]
    assert needed == sharers * 1000 + (sharers - 1) * images


def test_a_single_process_gets_its_inputs_back():
    x = torch.ones(3)
    for function in (
        distributed.total,
        distributed.mean,
        distributed.gather,
        distributed.part,
        distributed.share,
    ):
        assert function(x) is x
    assert (distributed.ranks(), distributed.rank(), distributed.broadcast_first(5)) == (1, 0, 5)
    distributed.check_same(5, "minibatches")
    encoder = tiny_encoder()
    kinds = [type(module) for module in encoder.modules()]
    synchronise(encoder)
    assert [type(module) for module in encoder.modules()] == kinds
    done = train(encoder, method=EmpSsl(), regime=Standard(), epochs=1)
    assert done.update == 3
    with distributed.joined("cuda:1") as device:
        assert device == "cuda:1"


@pytest.fixture
def torchrun(monkeypatch):
    """Set the environment of one of two processes that torchrun started."""
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


@pytest.mark.usefixtures("torchrun")
def test_ranks_choose_their_gpus_themselves():
    with (
        pytest.raises(distributed.RankError, match=r"--device cuda:1: each rank .* --device cuda"),
        distributed.joined("cuda:1"),
    ):
        pass


def test_a_rank_without_a_gpu_of_its_own_reports_how_many_there_are(torchrun):
    torchrun.setattr(torch.cuda, "device_count", lambda: 1)
    with (
        pytest.raises(
            distributed.RankError, match=r"rank 1 has no GPU .* sees 1 here; .*runtime.ranks"
        ),
        distributed.joined("cuda"),
    ):
        pass


@pytest.mark.parametrize(
    "error", [None, ValueError("no"), RuntimeError("no"), KeyboardInterrupt("no")]
)
def test_a_rank_that_fails_does_not_wait_for_others(error, torchrun):
    done = []
    torchrun.setattr(processes, "init_process_group", lambda _: done.append("joined"))
    torchrun.setattr(processes, "destroy_process_group", lambda: done.append("left together"))
    torchrun.setattr(distributed.atexit, "register", lambda *arguments: done.append(arguments))
    with (
        contextlib.nullcontext() if error is None else pytest.raises(type(error), match=str(error)),
        distributed.joined("cpu"),
    ):
        if error is not None:
            raise error
    assert done == ["joined", "left together" if error is None else (os._exit, 1)]


@pytest.mark.usefixtures("torchrun")
def test_other_verbs_than_pretrain_refuse_to_run_several_times_at_once(study, capsys):
    assert main(["examples", "--study", str(study(1))]) == 2
    assert "only the verb pretrain runs under torchrun; run examples" in capsys.readouterr().err
