"""One row for each setting that is tested: its key in METHODS, how it is built, and its reference.

Whatever is drawn at random is drawn a second time for the reference, from a generator in the same state.
"""

import math

import attacks
import relatives
import torch
from points import SITE, gradient, trained

from dropattack.methods import (
    ASAM,
    AWP,
    FGM,
    FGSM,
    GSAM,
    L1,
    L2,
    PGD,
    R3F,
    RWP,
    SAM,
    SMART,
    VAT,
    Compose,
    DropAttack,
    ExplicitPenalty,
    FreeAT,
    FreeLB,
    GradientNormPenalty,
    LookSAM,
    Scheduled,
    SparseSAM,
    Standard,
)


def normal(like):
    return torch.empty_like(like).normal_(generator=torch.Generator())


def uniform(like, low, high):
    return torch.empty_like(like).uniform_(low, high, generator=torch.Generator())


def freelb_start(network, point):
    """Uniform in a cube, 0.1 over the root of the number of entries of an example."""
    value = point[SITE]
    half_width = 0.1 / (value.numel() / value.shape[network.batch_dim]) ** 0.5
    return uniform(value, -half_width, half_width)


def l2_start(network, point, epsilon):
    """A uniform direction, and a uniform share of the radius: two draws."""
    generator = torch.Generator()
    direction = attacks.normalized(network, torch.empty_like(point[SITE]).normal_(generator=generator))
    share = torch.empty_like(attacks.sizes(network, point)).uniform_(0, 1, generator=generator)
    return epsilon * share * direction


def bernoulli(shape, probability, generator):
    """True where 32 random bits, read as a number in [0, 1), lie below the probability."""
    count = math.prod(shape)
    words = torch.empty((count + 1) // 2, dtype=torch.int64).random_(-(2**63), None, generator=generator)
    return (words.view(torch.int32)[:count].double() / 2**32 + 0.5 < probability).view(shape)


def masks(network, point, probability, names=None):
    """Bernoulli masks, drawn tensor by tensor; of an embedding, for the rows that have a gradient."""
    generator = torch.Generator()
    drawn = {}
    for name in trained(network) if names is None else names:
        mask = torch.zeros(point[name].shape, dtype=torch.bool)
        rows = slice(None)
        if name == "embedding.weight":
            rows = (gradient(network, point)[name] != 0).any(1)
        mask[rows] = bernoulli(mask[rows].shape, probability, generator)
        drawn[name] = mask
    return drawn


def all_normal(network, point):
    generator = torch.Generator()
    return {n: torch.empty_like(point[n]).normal_(generator=generator) for n in trained(network)}


def first_dynamic_masks(network, point, sparsity):
    generator = torch.Generator()
    noise = {n: torch.rand(point[n].shape, generator=generator) for n in trained(network)}
    return relatives.largest(network, noise, sparsity)


def random_mask_sam(network, point):
    return relatives.sparse_sam(network, point, 0.3, masks(network, point, 0.5))


def explicit(network, point, form):
    sites = [SITE, *(name for name in trained(network) if name in network.weights)]  # in the order of the model
    return relatives.explicit_penalty(
        network, point, True, network.weights, 0.3, 0.2, masks(network, point, 0.5, sites), form, 2.0
    )


def explicit_method(network, form):
    return ExplicitPenalty(
        network.module,
        network.site,
        network.weights,
        0.3,
        0.2,
        0.5,
        form=form,
        loss_weight=2.0,
        batch_dim=network.batch_dim,
    )


def fgm_offset(network, point):
    return 0.4 * attacks.normalized(network, gradient(network, point)[SITE])


CASES = {
    "standard": ("standard", lambda n: Standard(n.module), gradient),
    "l1": ("l1", lambda n: L1(n.module, 0.3), lambda n, p: attacks.penalty(n, p, lambda w: 0.3 * torch.sign(w))),
    "l2": ("l2", lambda n: L2(n.module, 0.3), lambda n, p: attacks.penalty(n, p, lambda w: 0.3 * w)),
    "fgsm": (
        "fgsm",
        lambda n: FGSM(n.module, n.site, 0.2),
        lambda n, p: attacks.one_step(n, p, lambda g: 0.2 * torch.sign(g)),
    ),
    "fgsm, relative": (
        "fgsm",
        lambda n: FGSM(n.module, n.site, 0.2, relative_epsilon=True, batch_dim=n.batch_dim),
        lambda n, p: attacks.one_step(n, p, lambda g: 0.2 * attacks.sizes(n, p, linf=True) * torch.sign(g)),
    ),
    "fgm": (
        "fgm",
        lambda n: FGM(n.module, n.site, 0.7, batch_dim=n.batch_dim),
        lambda n, p: attacks.one_step(n, p, lambda g: 0.7 * attacks.normalized(n, g)),
    ),
    "fgm, relative": (
        "fgm",
        lambda n: FGM(n.module, n.site, 0.3, relative_epsilon=True, batch_dim=n.batch_dim),
        lambda n, p: attacks.one_step(n, p, lambda g: 0.3 * attacks.sizes(n, p) * attacks.normalized(n, g)),
    ),
    "fgm, adversarial loss alone": (
        "fgm",
        lambda n: FGM(n.module, n.site, 0.7, clean_weight=0, batch_dim=n.batch_dim),
        lambda n, p: attacks.one_step(n, p, lambda g: 0.7 * attacks.normalized(n, g), clean_weight=0),
    ),
    "pgd": (
        "pgd",
        lambda n: PGD(n.module, n.site, 0.5, batch_dim=n.batch_dim),
        lambda n, p: attacks.pgd(n, p, 0.5, 0.25, 3),
    ),
    "pgd with the clean gradient": (
        "pgd",
        lambda n: PGD(n.module, n.site, 0.5, 0.4, 2, clean_weight=1, batch_dim=n.batch_dim),
        lambda n, p: attacks.pgd(n, p, 0.5, 0.4, 2, clean_weight=1),
    ),
    "pgd, largest entry": (
        "pgd",
        lambda n: PGD(n.module, n.site, 0.1, 0.07, 3, norm="linf"),
        lambda n, p: attacks.pgd(n, p, 0.1, 0.07, 3, linf=True),
    ),
    "pgd, relative": (
        "pgd",
        lambda n: PGD(n.module, n.site, 0.2, 0.15, 2, relative_epsilon=True, batch_dim=n.batch_dim),
        lambda n, p: attacks.pgd(n, p, 0.2 * attacks.sizes(n, p), 0.15 * attacks.sizes(n, p), 2),
    ),
    "pgd from a start": (
        "pgd",
        lambda n: PGD(n.module, n.site, 0.1, 0.07, 2, norm="linf", random_start=True),
        lambda n, p: attacks.pgd(n, p, 0.1, 0.07, 2, linf=True, start=0.1 * uniform(p[SITE], -1, 1)),
    ),
    "pgd from a start with the clean gradient": (
        "pgd",
        lambda n: PGD(n.module, n.site, 0.3, 0.2, 2, random_start=True, clean_weight=2, batch_dim=n.batch_dim),
        lambda n, p: attacks.pgd(n, p, 0.3, 0.2, 2, clean_weight=2, start=l2_start(n, p, 0.3)),
    ),
    "freeat, first replay": ("freeat", lambda n: FreeAT(n.module, n.site, 0.2, 3), gradient),
    "freelb": (
        "freelb",
        lambda n: FreeLB(n.module, n.site, 0.3, 0.2, 3, batch_dim=n.batch_dim),
        lambda n, p: attacks.freelb(n, p, 0.3, 0.2, 3, freelb_start(n, p)),
    ),
    "freelb without a ball": (
        "freelb",
        lambda n: FreeLB(n.module, n.site, None, 0.2, 2, batch_dim=n.batch_dim),
        lambda n, p: attacks.freelb(n, p, None, 0.2, 2, freelb_start(n, p)),
    ),
    "asam": ("asam", lambda n: ASAM(n.module, 0.5, 0.02), lambda n, p: attacks.asam(n, p, 0.5, 0.02)),
    "awp": ("awp", lambda n: AWP(n.module, 0.2), lambda n, p: attacks.awp(n, p, 0.2)),
    "sam": ("sam", lambda n: SAM(n.module, 0.3), lambda n, p: attacks.uphill(n, p, 0.3, 1.0)),
    "sam, relative": (
        "sam",
        lambda n: SAM(n.module, 0.05, relative_rho=True),
        lambda n, p: attacks.uphill(n, p, 0.05 * attacks.weight_norm(n, p), 1.0),
    ),
    "gradient norm penalty": (
        "gradient-norm-penalty",
        lambda n: GradientNormPenalty(n.module, 0.3, 0.7),
        lambda n, p: attacks.uphill(n, p, 0.3, 0.7),
    ),
    "sparse sam, random": (
        "sparse-sam",
        lambda n: SparseSAM(n.module, 0.3, 0.5, "random"),
        random_mask_sam,
    ),
    "sparse sam, fisher of the batch": (
        "sparse-sam",
        lambda n: SparseSAM(n.module, 0.3, 0.8),
        lambda n, p: relatives.sparse_sam(n, p, 0.3, relatives.fisher_masks(n, p, 0.8)),
    ),
    "sparse sam, dynamic": (
        "sparse-sam",
        lambda n: SparseSAM(n.module, 0.3, 0.4, "dynamic"),
        lambda n, p: relatives.sparse_sam(n, p, 0.3, first_dynamic_masks(n, p, 0.4)),
    ),
    "gsam": ("gsam", lambda n: GSAM(n.module, 0.3, 0.4), lambda n, p: relatives.gsam(n, p, 0.3, 0.4)),
    "looksam, first step": (
        "looksam",
        lambda n: LookSAM(n.module, 0.3, 0.7, 3),
        lambda n, p: relatives.looksam([(n, p)], 0.3, 0.7, 3)[0],
    ),
    "rwp": (
        "rwp",
        lambda n: RWP(n.module, 0.2),
        lambda n, p: relatives.rwp(n, p, 0.2, all_normal(n, p), 1.0),
    ),
    "rwp, mixed": (
        "rwp",
        lambda n: RWP(n.module, 0.2, 0.5),
        lambda n, p: relatives.rwp(n, p, 0.2, all_normal(n, p), 0.5),
    ),
    "explicit penalty, first order": (
        "explicit-penalty",
        lambda n: explicit_method(n, "first-order"),
        lambda n, p: explicit(n, p, "first-order"),
    ),
    "explicit penalty, masked norm": (
        "explicit-penalty",
        lambda n: explicit_method(n, "masked-norm"),
        lambda n, p: explicit(n, p, "masked-norm"),
    ),
    "vat": (
        "vat",
        lambda n: VAT(n.module, n.site, 0.8, 1.5, power_iterations=2, xi=1e-2, batch_dim=n.batch_dim),
        lambda n, p: relatives.vat(n, p, 0.8, 1e-2, 2, 1.5, normal(p[SITE])),
    ),
    "r3f": (
        "r3f",
        lambda n: R3F(n.module, n.site, 0.4, 1.5, batch_dim=n.batch_dim),
        lambda n, p: relatives.r3f(n, p, 1.5, 0.4 * uniform(p[SITE], -1, 1)),
    ),
    "r3f, normal": (
        "r3f",
        lambda n: R3F(n.module, n.site, 0.4, 1.5, noise="normal", batch_dim=n.batch_dim),
        lambda n, p: relatives.r3f(n, p, 1.5, 0.4 * normal(p[SITE])),
    ),
    "smart, first step": (
        "smart",
        lambda n: SMART(n.module, n.site, 0.3, 0.2, 2, 1.5, start=0.1, batch_dim=n.batch_dim),
        lambda n, p: relatives.smart(n, p, 0.3, 0.2, 2, 1.5, 0.1 * normal(p[SITE])),
    ),
    "awp on pgd": (
        "compose",
        lambda n: Compose(n.module, PGD(n.module, n.site, 0.4, 0.3, 2, batch_dim=n.batch_dim), AWP(n.module, 0.2)),
        lambda n, p: relatives.composed(
            n, p, lambda n, p: attacks.pgd_offset(n, p, 0.4, 0.3, 2), lambda n, p: attacks.awp(n, p, 0.2), 0.0
        ),
    ),
    "sam on fgm with the clean gradient": (
        "compose",
        lambda n: Compose(n.module, FGM(n.module, n.site, 0.4, batch_dim=n.batch_dim), SAM(n.module, 0.3)),
        lambda n, p: relatives.composed(n, p, fgm_offset, lambda n, p: attacks.uphill(n, p, 0.3, 1.0), 1.0),
    ),
    "gsam on fgm": (
        "compose",
        lambda n: Compose(
            n.module, FGM(n.module, n.site, 0.4, clean_weight=0, batch_dim=n.batch_dim), GSAM(n.module, 0.3, 0.4)
        ),
        lambda n, p: relatives.composed(n, p, fgm_offset, lambda n, p: relatives.gsam(n, p, 0.3, 0.4), 0.0),
    ),
    "scheduled sam, first step of a warm-up": (
        "scheduled",
        lambda n: Scheduled(n.module, SAM(n.module, 0.8), warmup={"rho": 4}, every=2),
        lambda n, p: attacks.uphill(n, p, 0.2, 1.0),
    ),
}

# DropAttack has references of its own, in a file of its own, and is held to the same laws.
EVERY = {name: make for name, (_, make, _) in CASES.items()} | {
    "dropattack": lambda n: DropAttack(n.module, n.site, n.weights, 0.5, batch_dim=n.batch_dim)
}


def starts_off_the_clean_point(method):
    """No pass is made at the clean weights and input, so the loss and the running statistics are others."""
    return (
        isinstance(method, FreeLB)
        or (isinstance(method, PGD) and method.random_start and not method.clean_weight)
        or (isinstance(method, RWP) and method.alpha == 1)
    )
