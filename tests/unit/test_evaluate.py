"""Evaluation: flags that depend only on the model, and no trust in an attack."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from robustviews.attacks import ATTACKS, AutoAttack, PgdAttack, WorstOf
from robustviews.augment import Views
from robustviews.evaluate import Classifier, choose_images, evaluate
from robustviews.probe import LinearProbe, NcropProbe, OwnHead
from tests.unit.test_pretrain import InterruptedTraining, Memory
from tests.unit.tiny_models import (
    CLASSES,
    HIDDEN,
    SIZE,
    Pixels,
    inventory,
    labels_of,
    noise_images,
    tiny_encoder,
)

PGD = PgdAttack(eps=(4.0, 16.0), steps=3, step_size=6)
APGD = AutoAttack(eps=(4.0, 16.0), version="custom", attacks=("apgd-ce", "apgd-t"), apgd_steps=5)
COUNT = 24


def network(probe=None):
    """Return a tiny network with a random head whose logits are all zero on the mean feature."""
    encoder = tiny_encoder()
    images = noise_images(40) / 255
    encoder(images)  # statistics of batch norms
    encoder.eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        head = nn.Linear(HIDDEN, CLASSES)
        head.bias.copy_(-head.weight @ encoder.represent(images).mean(dim=0))
    return Classifier(encoder, head, probe or LinearProbe())


def own_labels(classifier, images):
    """Return the predictions of a network as labels, so that all predictions are correct."""
    with torch.no_grad():
        return classifier.eval()(images / 255).argmax(dim=1)


def run(classifier, attack, images, labels, *, size=SIZE, **options):
    settings = {"views": Views(), "size": size, "seed": 0} | options
    return evaluate(classifier, attack, images, labels, **settings)


def accuracies(flags):
    return {k: v.double().mean().item() for k, v in flags.items() if k not in ("index", "labels")}


# A linear model with a known robust accuracy


def linear_model(size=4):
    """Return a classifier of two classes whose logits are small, so that no gradient vanishes."""
    encoder = Pixels(size)
    head = nn.Linear(encoder.features, 2)
    generator = torch.Generator().manual_seed(0)
    nn.init.normal_(head.weight, std=0.5, generator=generator)
    nn.init.zeros_(head.bias)
    return Classifier(encoder, head, LinearProbe())


def exact_robust_accuracy(classifier, images, labels, eps):
    """Return how many predictions no perturbation in the ball and [0, 1] changes, in float64."""
    weight = (classifier.head.weight[1] - classifier.head.weight[0]).double().detach()
    x = images.flatten(1).double() / 255
    sign = (2 * labels - 1).double()
    direction = -sign.unsqueeze(1) * weight.sign()
    worst = (x + eps * direction).clamp(0, 1)
    margin = sign * ((worst - 0.5) @ weight)
    return (margin > 0).double().mean().item()


@pytest.mark.parametrize("attack", [PgdAttack, AutoAttack], ids=["pgd", "autoattack"])
def test_robust_accuracy_of_a_linear_model_is_the_exact_one_at_every_radius(attack):
    radii = (1.0, 2.0, 4.0, 8.0, 16.0)
    if attack is PgdAttack:
        attack = PgdAttack(eps=radii, steps=8, step_size=2.55)
    else:
        attack = AutoAttack(eps=radii, version="custom", attacks=("apgd-ce",), apgd_steps=10)
    images, model = noise_images(200, size=4), linear_model()
    labels = own_labels(model, images)
    labels[:20] = 1 - labels[:20]
    actual = accuracies(run(model, attack, images, labels, size=4))
    expected = {
        f"eps_{eps:g}": exact_robust_accuracy(model, images, labels, eps / 255) for eps in radii
    }
    assert actual == pytest.approx({"clean": 0.9} | expected)
    fractions = list(expected.values())
    assert 0.9 > fractions[0] > fractions[2] > fractions[4] > 0


# What comes out


@pytest.mark.parametrize("attack", [PGD, APGD], ids=["pgd", "autoattack"])
def test_flags_are_bytes_for_each_attacked_image_in_the_order_of_the_test_set(attack):
    images, model = noise_images(COUNT), network()
    labels = own_labels(model, images)
    labels[::3] = (labels[::3] + 1) % CLASSES
    flags = run(model, attack, images, labels)
    assert set(flags) == {"index", "labels", "clean", "eps_4", "eps_16"}
    assert {flags[name].dtype for name in ("clean", "eps_4", "eps_16")} == {torch.uint8}
    assert {flags[name].dtype for name in ("index", "labels")} == {torch.int64}
    assert torch.equal(flags["index"], torch.arange(COUNT))
    assert torch.equal(flags["labels"], labels)
    assert torch.equal(flags["clean"], (torch.arange(COUNT) % 3 != 0).to(torch.uint8))
    assert all(len(value) == COUNT for value in flags.values())


def test_radii_are_named_as_the_study_writes_them():
    attack = PgdAttack(eps=(0.5, 8.0), steps=1)
    flags = run(network(), attack, noise_images(4), labels_of(4))
    assert list(flags)[2:] == ["clean", "eps_0.5", "eps_8"]


@pytest.mark.parametrize("attack", [PGD, APGD], ids=["pgd", "autoattack"])
def test_a_ball_of_almost_nothing_is_clean_accuracy(attack):
    images, model = noise_images(COUNT), network()
    flags = run(model, replace(attack, eps=(1e-5,)), images, labels_of(COUNT))
    assert torch.equal(flags["eps_1e-05"], flags["clean"])
    assert 0 < flags["clean"].sum() < COUNT


def test_autoattack_never_turns_a_wrong_prediction_into_a_right_one():
    images, model = noise_images(COUNT), network()
    labels = own_labels(model, images)
    labels[::2] = (labels[::2] + 1) % CLASSES
    flags = run(model, APGD, images, labels)
    assert flags["clean"].sum() == COUNT // 2
    for name in ("eps_4", "eps_16"):
        assert (flags[name] <= flags["clean"]).all()
    assert flags["eps_16"].sum() < flags["clean"].sum()


def test_each_radius_is_attacked_from_the_clean_image():
    images, model = noise_images(COUNT), network()
    labels = own_labels(model, images)
    both = run(model, PGD, images, labels)
    alone = run(model, replace(PGD, eps=(16.0,)), images, labels)
    assert torch.equal(both["eps_16"], alone["eps_16"])
    assert both["eps_16"].sum() < both["clean"].sum()


# Which images


def test_a_choice_of_images_never_changes_and_has_no_image_twice():
    chosen = choose_images(100, 30)
    assert torch.equal(chosen, choose_images(100, 30))
    assert torch.equal(chosen, chosen.unique())
    assert len(chosen) == 30
    assert chosen.max() < 100
    assert not torch.equal(chosen, torch.arange(30))
    assert torch.equal(choose_images(100, None), torch.arange(100))
    assert torch.equal(choose_images(100, 100), torch.arange(100))


def test_a_smaller_choice_is_part_of_a_larger_one():
    assert set(choose_images(100, 10).tolist()) < set(choose_images(100, 30).tolist())


def test_the_choice_is_the_same_for_every_attack_and_seed():
    images, model = noise_images(COUNT), network()
    labels = own_labels(model, images)
    index = [
        run(model, attack, images, labels, seed=seed)["index"]
        for attack in (replace(PGD, images=7), replace(APGD, images=7))
        for seed in (0, 1)
    ]
    assert all(torch.equal(positions, index[0]) for positions in index)


def test_chosen_images_have_the_flags_that_they_have_among_all():
    images, model = noise_images(COUNT), network()
    labels = own_labels(model, images)
    some = run(model, replace(PGD, images=7), images, labels)
    everything = run(model, PGD, images, labels)
    for name in ("labels", "clean", "eps_4", "eps_16"):
        assert torch.equal(some[name], everything[name][some["index"]])


def test_more_images_than_there_are_is_refused():
    with pytest.raises(ValueError, match="images: 25 is more than the 24 test images; lower"):
        run(network(), replace(PGD, images=25), noise_images(COUNT), labels_of(COUNT))


@pytest.mark.parametrize("attack", [PGD, APGD], ids=["pgd", "apgd"])
@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_examples_have_a_precision_of_their_own_and_scores_are_float32(
    attack, precision, monkeypatch
):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    images, model, seen = noise_images(COUNT), network(), []
    labels = own_labels(model, images)
    conv = model.encoder.backbone.layer1[0].conv1
    conv.register_forward_hook(
        lambda *call: seen.append((call[-1].dtype, torch.backends.cudnn.allow_tf32))
    )
    model.head.register_forward_hook(lambda *call: seen.append(call[-1].dtype))
    run(model, replace(attack, craft_precision=precision, eps=(8.0,)), images, labels)
    kinds, heads = seen[::2], seen[1::2]
    crafted = torch.bfloat16 if precision == "bf16" else torch.float32, precision == "tf32"
    assert (kinds[0], kinds[-1]) == ((torch.float32, False),) * 2  # clean, and the result
    assert set(kinds[1:-1]) == {crafted}
    assert set(heads) == {torch.float32}


@pytest.mark.parametrize("batch", [1, 5, 1000])
def test_the_batch_size_decides_nothing_in_pgd(batch):
    images, model = noise_images(COUNT), network()
    labels = own_labels(model, images)
    together, apart = (run(model, PGD, images, labels, batch=size) for size in (COUNT, batch))
    assert all(torch.equal(together[name], apart[name]) for name in together)
    assert 0 < together["eps_4"].sum() < COUNT


def test_the_order_of_the_test_set_decides_nothing_in_pgd():
    images, model = noise_images(COUNT), network()
    labels = own_labels(model, images)
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(0))
    flags = run(model, PGD, images, labels, batch=7)
    shuffled = run(model, PGD, images[order], labels[order], batch=7)
    for name in ("clean", "eps_4", "eps_16"):
        assert torch.equal(shuffled[name], flags[name][order])


def test_a_random_start_follows_the_seed():
    images, model = noise_images(COUNT), linear_model(SIZE)
    labels = own_labels(model, images)
    attack = PgdAttack(eps=(16.0,), steps=1, step_size=0.1, random_start=True)
    starts = []
    for seed in (0, 0, 1):
        model.encoder.seen.clear()
        run(model, attack, images, labels, seed=seed)
        starts.append(model.encoder.seen[1])
    assert torch.equal(starts[0], starts[1])
    assert not torch.equal(starts[0], starts[2])


def test_minibatches_have_different_random_starts():
    images, model = noise_images(6).clone(), linear_model(SIZE)
    images[3:] = images[:3]
    attack = PgdAttack(eps=(16.0,), steps=1, step_size=0.1, random_start=True)
    run(model, attack, images, own_labels(model, images), batch=3)
    first, second = model.encoder.seen[-5], model.encoder.seen[-2]  # clean, step, final
    assert not torch.equal(first, second)


# Interruptions

RANDOM = PgdAttack(eps=(16.0, 4.0), steps=2, step_size=6, random_start=True)
INTERRUPTED = {  # attack, probe, batches of the 24 images or of the chosen ones
    "pgd": (RANDOM, LinearProbe(), 5),
    "pgd, restarts": (replace(RANDOM, restarts=2), LinearProbe(), 5),
    "pgd, L2": (replace(RANDOM, norm="l2"), LinearProbe(), 5),
    "chosen": (replace(RANDOM, images=11), LinearProbe(), 3),
    "autoattack": (replace(APGD, eps=(16.0,), images=11), LinearProbe(), 3),
    "n crops": (replace(RANDOM, images=11), NcropProbe(n=2), 6),
}


def test_every_kind_of_attack_is_interrupted_except_those_without_batches():
    interrupted = {type(attack) for attack, *_ in INTERRUPTED.values()}
    dense = {cls for cls in ATTACKS.values() if hasattr(cls, "task")}  # by test_dense
    assert set(ATTACKS.values()) == interrupted | {WorstOf} | dense


@pytest.mark.parametrize("name", INTERRUPTED)
def test_an_evaluation_resumes_from_any_batch_as_if_never_interrupted(name):
    attack, probe, count = INTERRUPTED[name]
    images, model = noise_images(COUNT), network(probe)
    labels = labels_of(COUNT)

    def found(checkpoint=None):
        return run(model, attack, images, labels, batch=5, checkpoint=checkpoint)

    undisturbed, memory = found(), Memory()
    same_flags(found(memory), undisturbed)
    assert len(memory.saved) == count
    for done in range(1, count + 1):
        again = Memory()
        again.saved = memory.saved[:done]
        same_flags(found(again), undisturbed)
        assert again.minibatches == count - done


def test_an_evaluation_that_is_interrupted_repeatedly_has_the_same_result(caplog):
    caplog.set_level("INFO")
    images, model, labels = noise_images(COUNT), network(), labels_of(COUNT)
    undisturbed, memory = run(model, RANDOM, images, labels, batch=5), Memory(every=2)
    for dies_after in (1, 3, 3):  # with nothing saved, two batches, four
        memory.minibatches, memory.dies_after = 0, dies_after
        with pytest.raises(InterruptedTraining):
            run(model, RANDOM, images, labels, batch=5, checkpoint=memory)
    memory.minibatches, memory.dies_after = 0, None
    same_flags(run(model, RANDOM, images, labels, batch=5, checkpoint=memory), undisturbed)
    assert [line for line in caplog.messages if "resumed" in line] == [
        "attack=attack resumed after batch 2",
        "attack=attack resumed after batch 4",
    ]


def same_flags(actual, expected):
    """Compare flags, including their order and type."""
    assert list(actual) == list(expected)
    for name, flags in expected.items():
        assert actual[name].dtype == flags.dtype
        assert torch.equal(actual[name], flags), name


# The n-crop probe


def test_an_n_crop_classifier_reads_stacks_and_no_more_views_than_a_batch():
    model = Classifier(Pixels(), nn.Linear(3 * SIZE**2, CLASSES), NcropProbe(n=4))
    run(model, replace(PGD, eps=(4.0,), steps=1), noise_images(6), labels_of(6), batch=9)
    assert [len(views) for views in model.encoder.seen] == [
        8
    ] * 9  # two images per batch, three passes


def test_views_of_a_test_image_are_the_same_in_every_evaluation():
    model = Classifier(Pixels(), nn.Linear(3 * SIZE**2, CLASSES), NcropProbe(n=2))
    clean = []
    for images, batch in ((noise_images(6), 12), (noise_images(6), 2)):
        model.encoder.seen.clear()
        run(model, replace(PGD, eps=(4.0,), steps=1), images, labels_of(6), batch=batch)
        clean.append(torch.cat(model.encoder.seen[::3]))
    assert torch.equal(*clean)


def test_autoattack_refuses_an_n_crop_probe_with_a_fix():
    with pytest.raises(ValueError, match="whole images; attack an n-crop probe with kind: pgd"):
        run(network(NcropProbe(n=2)), APGD, noise_images(4), labels_of(4))


# The model is not changed


@pytest.mark.parametrize("attack", [PGD, APGD], ids=["pgd", "autoattack"])
@pytest.mark.parametrize("failing", [False, True])
def test_an_evaluation_sets_eval_mode_and_changes_nothing_else_of_a_model(attack, failing):
    model, images = network(), noise_images(COUNT)
    labels = own_labels(model, images)
    model.eval()
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.ones_like(parameter)
        parameter.requires_grad_(number % 2 == 0)
    before = inventory(model)
    model.train()
    if failing:
        with pytest.raises(ValueError, match="left its ball"):
            run(model, Cheat("far"), images, labels)
    else:
        run(model, attack, images, labels)
    assert inventory(model) == before


@pytest.mark.parametrize("attack", [PGD, APGD], ids=["pgd", "autoattack"])
def test_an_evaluation_changes_neither_images_nor_the_global_generator(attack):
    model, images = network(), noise_images(COUNT)
    state = torch.get_rng_state()
    run(model, attack, images, labels_of(COUNT))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, noise_images(COUNT))


@pytest.mark.parametrize("attack", [PGD, APGD], ids=["pgd", "autoattack"])
def test_the_same_seed_gives_the_same_flags(attack):
    images, model = noise_images(COUNT), network()
    labels = own_labels(model, images)
    first, second = (run(model, attack, images, labels, seed=2) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_supervised_network_is_evaluated_with_its_own_classifier():
    encoder = tiny_encoder(supervised=True).eval()
    images = noise_images(COUNT)
    labels = encoder(images / 255).argmax(dim=1)
    flags = run(Classifier(encoder, encoder.classifier, OwnHead()), PGD, images, labels)
    assert flags["clean"].sum() == COUNT


def test_an_attack_on_features_is_evaluated_by_the_head():
    encoder, images = tiny_encoder(supervised=True).eval(), noise_images(COUNT)
    classifier = Classifier(encoder, encoder.classifier, OwnHead())
    labels = own_labels(classifier, images)
    attack = PgdAttack(
        eps=(128.0,), steps=5, relative_step=0.4, loss="feature_mse", random_start=True
    )
    flags = run(classifier, attack, images, labels)
    assert flags["clean"].all()
    assert flags["eps_128"].sum() < COUNT


# Attacks that misbehave


@dataclass(frozen=True)
class Cheat:
    """An attack that breaks the rules in some way."""

    way: str
    eps: tuple[float, ...] = (8.0,)
    norm: str = "linf"
    images: int | None = None
    craft_precision: str = "fp32"

    def perturb(self, model, images, labels, *, eps, seed):
        if self.way == "far":
            return (images + 1.01 * eps).clamp(0, 1)
        if self.way == "white":
            return images + eps  # white pixels become whiter
        if self.way == "black":
            return images - eps
        if self.way == "nan":
            return torch.full_like(images, torch.nan)
        if self.way == "one nan":
            images = images.clone()
            images[0, 0, 0, 0] = torch.nan
            return images
        if self.way == "in place":
            return images.fill_(0.5)
        assert self.way == "one image"
        return images[:1]


@pytest.mark.parametrize(
    "way", ["far", "white", "black", "nan", "one nan", "in place", "one image"]
)
def test_an_attack_that_leaves_its_ball_or_the_range_of_pixels_is_refused(way):
    with pytest.raises(ValueError, match=r"the attack at eps 8/255 left its ball: .* expected at"):
        run(network(), Cheat(way), noise_images(COUNT), labels_of(COUNT))


class Sloppy(PgdAttack):
    """An attack that also computes gradients of parameters."""

    def perturb(self, model, images, labels, *, eps, seed):
        images = images.requires_grad_()
        nn.functional.cross_entropy(model(images), labels).backward()
        return (images + eps * images.grad.sign()).clamp(0, 1).detach()


def test_gradients_of_an_attack_reach_no_parameter():
    model, images = network(), noise_images(COUNT)
    labels = own_labels(model, images)
    before = inventory(model.eval())
    flags = run(model, Sloppy(eps=(16.0,)), images, labels)
    assert inventory(model) == before
    assert flags["eps_16"].sum() < COUNT
