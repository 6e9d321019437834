"""What the relatives of DropAttack promise over several steps: what they carry, save, refresh, and refuse."""

import dataclasses

import pytest
import relatives
import torch
from networks import WIDTH, build
from points import SITE, clean_point, gradient, trained
from test_backward_contract import gradients
from torch import nn
from torch.testing import assert_close
from torch.utils.checkpoint import checkpoint

from dropattack.methods import (
    AWP,
    FGM,
    GSAM,
    PGD,
    R3F,
    RWP,
    SAM,
    SMART,
    VAT,
    Compose,
    DropAttack,
    FreeAT,
    LookSAM,
    Scheduled,
    SparseSAM,
    Standard,
    build_method,
)

EXACT = {"rtol": 0, "atol": 1e-10}


def batches(network, count):
    """The same module, on other inputs and targets each time."""
    return [
        dataclasses.replace(network, inputs=network.inputs.roll(i, 0), targets=network.targets.roll(2 * i))
        for i in range(count)
    ]


def take_step(network, size=0.1):
    """Move the weights as plain gradient descent does."""
    with torch.no_grad():
        for parameter in network.module.parameters():
            if parameter.grad is not None:
                parameter.sub_(size * parameter.grad)
    network.module.zero_grad()


@pytest.mark.parametrize("name", ["mlp", "lstm", "cnn"])
def test_looksam_follows_its_reference_over_many_steps_and_saves_passes(name):
    network = build(name)
    method = LookSAM(network.module, 0.3, 0.7, every=3)
    history, actual, passes = [], [], []
    for batch in batches(network, 7):
        history.append((batch, clean_point(batch)))
        passes.append(method.cost.forwards)
        method.backward(batch.closure)
        actual.append({n: g.clone() for n, g in gradients(network.module).items()})
        take_step(network)
    assert passes == [2, 1, 1, 2, 1, 1, 2]
    # The reference evaluates each step at the weights that were recorded for it.
    expected = relatives.looksam(history, 0.3, 0.7, 3)
    for one, other in zip(actual, expected, strict=True):
        assert_close(one, {n: other[n] for n in one}, **EXACT)


def test_gsam_leaves_the_rise_uphill_alone():
    # g_p - (GSAM's gradient) is alpha times a vector orthogonal to g_p.
    network, plain = build("lstm"), build("lstm")
    GSAM(network.module, 0.3, 0.5).backward(network.closure)
    SAM(plain.module, 0.3).backward(plain.closure)
    uphill, combined = gradients(plain.module), gradients(network.module)
    inner = sum(((uphill[n] - combined[n]) * uphill[n]).sum() for n in uphill)
    assert abs(float(inner)) < 1e-12
    assert any((uphill[n] - combined[n]).norm() > 1e-3 for n in uphill)


@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_sparse_sam_takes_the_fisher_of_single_examples(name):
    network = build(name)
    point = clean_point(network)

    def examples():
        for index in range(len(network.targets)):
            alone, _ = relatives.example(network, point, index)
            yield alone.closure

    method = SparseSAM(network.module, 0.3, 0.8, examples=examples, fisher_examples=len(network.targets))
    method.backward(network.closure)
    expected = relatives.fisher_masks_of_examples(network, point, 0.8)
    for site, mask in method.last.masks.items():
        assert torch.equal(mask, expected[site].bool()), site
    reference = relatives.sparse_sam(network, point, 0.3, expected)
    assert_close(gradients(network.module), {n: reference[n] for n in gradients(network.module)}, **EXACT)


def test_the_fisher_is_taken_in_evaluation_mode_and_of_as_many_examples_as_asked():
    network = build("cnn")
    seen = []

    def closure():
        seen.append([module.training for module in network.module.modules()])
        return network.closure()

    def examples():
        while True:
            yield closure

    before = {name: value.clone() for name, value in network.module.state_dict().items()}
    network.module.decoder.eval()
    method = SparseSAM(network.module, 0.0, examples=examples, fisher_examples=3, refresh_every=2)
    for _ in range(3):  # the first and the third step refresh
        method.backward(network.closure)
    assert seen == [[False] * 4] * 6
    assert [module.training for module in network.module.modules()] == [True, True, True, False]
    assert network.module.norm.num_batches_tracked == 3  # of the three clean passes
    assert torch.equal(network.module.state_dict()["conv.weight"], before["conv.weight"])


def test_the_fisher_mask_stays_between_refreshes():
    network = build("lstm")
    method = SparseSAM(network.module, 0.3, 0.7, refresh_every=2)
    masks = []
    for batch in batches(network, 4):
        method.backward(batch.closure)
        masks.append(torch.cat([mask.flatten() for mask in method.last.masks.values()]))
    assert torch.equal(masks[0], masks[1])
    assert torch.equal(masks[2], masks[3])
    assert not torch.equal(masks[0], masks[2])
    total = masks[0].numel()
    assert all(int(mask.sum()) == int(round(0.3 * total, 6)) for mask in masks)


def test_the_dynamic_mask_drops_the_smallest_gradients_and_grows_others():
    network = build("lstm")
    method = SparseSAM(network.module, 0.3, 0.5, "dynamic", refresh_every=1, drop_rate=0.4, refreshes=4)
    masks, sizes = [], []
    for batch in batches(network, 6):
        slopes = gradient(batch, clean_point(batch))
        sizes.append(torch.cat([slopes[n].abs().flatten() for n in trained(network)]))
        method.backward(batch.closure)
        masks.append(torch.cat([mask.flatten() for mask in method.last.masks.values()]))
    kept = int(masks[0].sum())
    changed = []
    for before, after, size in zip(masks, masks[1:], sizes[1:], strict=False):
        dropped, stayed, grown = before & ~after, before & after, after & ~before
        assert int(after.sum()) == kept
        assert int(dropped.sum()) == int(grown.sum())
        if dropped.any():
            assert size[dropped].max() <= size[stayed].min()
        changed.append(int(grown.sum()))
    # The share falls along a cosine: 0.4 (1 + cos(pi t / 4)) / 2 for t = 1, 2, 3, 4, 4.
    shares = [0.4 * (1 + torch.cos(torch.tensor(torch.pi * t / 4)).item()) / 2 for t in (1, 2, 3, 4, 4)]
    assert changed == [int(share * kept) for share in shares]
    assert changed[0] > changed[-1] == 0


@pytest.mark.parametrize("name", ["mlp", "lstm", "time_major_gru"])
def test_smart_stays_near_the_average_of_the_weights(name):
    network = build(name)
    method = SMART(
        network.module, network.site, 0.3, 0.2, 1, 1.5, start=0.1, proximal_weight=2.0, decay=0.6,
        batch_dim=network.batch_dim,
    )  # fmt: skip
    generator, average = torch.Generator(), None
    for batch in batches(network, 3):
        point = clean_point(batch)
        weights = {n: point[n] for n in trained(network)}
        average = weights if average is None else {n: 0.6 * average[n] + 0.4 * weights[n] for n in weights}
        start = 0.1 * torch.empty_like(point[SITE]).normal_(generator=generator)
        expected = relatives.smart(batch, point, 0.3, 0.2, 1, 1.5, start, average, 2.0)
        method.backward(batch.closure)
        actual = gradients(network.module)
        assert_close(actual, {n: expected[n] for n in actual}, **EXACT)
        take_step(network, 0.5)


def test_vat_finds_the_direction_that_changes_the_prediction_most():
    network = build("lstm")
    point = clean_point(network)
    method = VAT(network.module, network.site, 1.0, power_iterations=40, xi=1e-2)
    method.backward(network.closure)
    found = method.last.perturbations[network.site]
    logits = relatives.logits_at(network, point)
    rise = relatives.kl(logits, relatives.logits_at(network, point, 0.05 * found))
    generator = torch.Generator().manual_seed(1)
    for _ in range(200):
        direction = relatives.unit(network, torch.empty_like(found).normal_(generator=generator))
        assert relatives.kl(logits, relatives.logits_at(network, point, 0.05 * direction)) < rise


@pytest.mark.parametrize("make", [VAT, R3F, SMART])
def test_logits_may_be_those_of_a_module(make):
    # The model returns probabilities; its logits are the decoder's output.
    class Probabilities(type(build("lstm").module)):
        def forward(self, tokens):
            return super().forward(tokens).softmax(-1)

    plain, named = build("lstm"), build("lstm")
    named.module.__class__ = Probabilities
    make(plain.module, plain.site, 0.5).backward(plain.closure)
    method = make(named.module, named.site, 0.5, logits="decoder")
    method.backward(lambda: nn.functional.nll_loss(named.module(named.inputs).log(), named.targets))
    assert_close(gradients(named.module), gradients(plain.module), **EXACT)


class OneLogit(nn.Module):
    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(WIDTH, 1)

    def forward(self, x):
        return self.decoder(x)


class Record(nn.Module):
    """Returns a dictionary, as many libraries do."""

    def __init__(self):
        super().__init__()
        self.decoder = nn.Linear(WIDTH, 3)

    def forward(self, x):
        return {"logits": self.decoder(x)}


@pytest.mark.parametrize("make", [VAT, R3F, SMART])
def test_logits_that_cannot_be_used_are_refused(make):
    x = torch.randn(5, WIDTH)
    model = OneLogit()
    with pytest.raises(ValueError, match=r"logits: expected shape \(…, classes\) with two or more classes"):
        make(model, "input").backward(lambda: model(x).mean())
    record = Record()
    with pytest.raises(TypeError, match="site 'output': expected the module to return a floating-point tensor"):
        make(record, "input").backward(lambda: record(x)["logits"].mean())
    make(record, "input", logits="decoder").backward(lambda: record(x)["logits"].square().mean())
    with pytest.raises(ValueError, match="unknown module 'decodr'; Record has decoder"):
        make(record, "input", logits="decodr")


class Checkpointed(nn.Module):
    def __init__(self, use_reentrant):
        super().__init__()
        self.use_reentrant = use_reentrant
        self.embedding = nn.Linear(WIDTH, WIDTH)
        self.decoder = nn.Linear(WIDTH, 3)

    def forward(self, x):
        return self.decoder(checkpoint(self.embedding, torch.tanh(x), use_reentrant=self.use_reentrant))


@pytest.mark.parametrize("make", [R3F, SMART])
def test_a_checkpointed_site_is_refused_where_two_graphs_are_kept(make):
    model, x, y = Checkpointed(False), torch.randn(5, WIDTH), torch.randint(3, (5,))
    method = make(model, "embedding", epsilon=0.5)
    with pytest.raises(RuntimeError, match="site 'embedding' was run again by activation checkpointing"):
        method.backward(lambda: nn.functional.cross_entropy(model(x), y))
    assert not any("forward" in module.__dict__ for module in model.modules())


def test_masks_are_drawn_for_the_touched_rows_of_an_embedding_alone():
    # The same three words in a vocabulary of 7 and of 500: the same masks, as nothing is drawn for other rows.
    masks = []
    for vocabulary in (7, 500):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Embedding(vocabulary, WIDTH), nn.Flatten(), nn.Linear(3 * WIDTH, 3))
        tokens = torch.tensor([[1, 2, 5], [5, 1, 2]])
        method = DropAttack(model, "0.weight", epsilon=0.5, generator=torch.Generator().manual_seed(3))
        method.backward(lambda model=model, tokens=tokens: model(tokens).square().mean())
        mask = method.last.masks["0.weight"]
        assert not mask[[i for i in range(vocabulary) if i not in (1, 2, 5)]].any()
        masks.append(mask[[1, 2, 5]])
    assert torch.equal(*masks)
    assert 0 < masks[0].float().mean() < 1


def test_scheduled_warms_up_what_it_is_told_to():
    network = build("lstm")
    attack = DropAttack(network.module, network.site, network.weights, 0.8, 0.4, 0.6)
    method = Scheduled(network.module, attack, warmup={"epsilon": 4, "attack_probability": 2})
    seen = []
    for _ in range(6):
        method.backward(network.closure)
        seen.append((attack.epsilon, attack.epsilon_weights, attack.attack_probability))
    expected = [(0.2, 0.4, 0.3), (0.4, 0.4, 0.6), (0.6, 0.4, 0.6), (0.8, 0.4, 0.6), (0.8, 0.4, 0.6), (0.8, 0.4, 0.6)]
    assert seen == [pytest.approx(row) for row in expected]


def test_scheduled_reaches_the_parts_of_a_composition():
    network = build("lstm")
    parts = Compose(network.module, PGD(network.module, network.site, 0.8), SAM(network.module, 0.4))
    method = Scheduled(network.module, parts, warmup={"inputs.epsilon": 4, "weights.rho": 2})
    seen = []
    for _ in range(3):
        method.backward(network.closure)
        seen.append((parts.inputs.epsilon, parts.weights.rho))
    assert seen == [pytest.approx(row) for row in [(0.2, 0.2), (0.4, 0.4), (0.6, 0.4)]]


def test_a_warm_up_may_change_the_number_of_passes():
    # RWP with alpha below 1 is mixed RWP, of two passes; with all of its alpha it is RWP, of one.
    network = build("lstm")
    method = Scheduled(network.module, RWP(network.module, 0.1), warmup={"alpha": 3})
    passes = []
    for _ in range(4):
        passes.append(method.cost.forwards)
        method.backward(network.closure)
    assert passes == [2, 2, 1, 1]


def test_a_weight_held_away_under_two_graphs_is_refused():
    network = build("lstm")
    moved = FGM(network.module, "embedding.weight", 0.5)
    method = Compose(network.module, moved, R3F(network.module, "embedding"))
    with pytest.raises(ValueError, match="a perturbed weight is restored before its graph is used"):
        method.backward(network.closure)


def test_scheduled_attacks_every_nth_step_and_trains_as_usual_in_between():
    network, plain = build("lstm"), build("lstm")
    method = Scheduled(network.module, FGM(network.module, network.site, 0.7), every=3)
    passes = []
    for index in range(5):
        network.module.zero_grad()
        plain.module.zero_grad()
        passes.append(method.cost.forwards)
        method.backward(network.closure)
        expected = Standard(plain.module) if index % 3 else FGM(plain.module, plain.site, 0.7)
        expected.backward(plain.closure)
        assert_close(gradients(network.module), gradients(plain.module), **EXACT)
    assert passes == [2, 1, 1, 2, 1]


def test_scheduled_keeps_the_replays_of_the_method():
    network = build("mlp")
    method = Scheduled(network.module, FreeAT(network.module, network.site, 0.3, 3, carry=False))
    assert len(list(method.steps(network.closure))) == 3


def test_composition_counts_the_passes_of_its_parts():
    network = build("lstm")
    pgd = PGD(network.module, network.site, 0.5, ascent_steps=4)
    assert Compose(network.module, pgd, AWP(network.module)).cost.forwards == 4 + 2  # K + 2


def test_composition_perturbs_inputs_and_weights_in_the_last_pass():
    network = build("lstm")
    method = Compose(network.module, PGD(network.module, network.site, 0.5), SAM(network.module, 0.3))
    method.backward(network.closure)
    record = method.last
    assert {network.site, "lstm.weight_ih_l0", "decoder.bias"} <= set(record.perturbations)
    assert len(record.adversarial_losses["inputs"]) == 4  # three ascent steps, and where they led
    assert len(record.adversarial_losses["weights"]) == 1
    losses = [record.clean_loss, record.adversarial_losses["inputs"][-1], record.adversarial_losses["weights"][0]]
    assert losses == sorted(losses)


def test_methods_are_built_of_tables():
    network = build("lstm")
    generator = torch.Generator()
    method = build_method(
        "scheduled",
        network.module,
        every=2,
        generator=generator,
        method={
            "name": "compose",
            "inputs": {"name": "pgd", "inputs": "embedding", "random_start": True},
            "weights": {"name": "dropattack", "weights": ["lstm.*"]},
        },
    )
    assert isinstance(method.method.inputs, PGD)
    assert method.method.inputs._generator is method.method.weights._generator is generator
    with pytest.raises(ValueError, match="unknown hyperparameter 'rhoo'; sam has rho"):
        build_method("scheduled", network.module, method={"name": "sam", "rhoo": 0.1})
