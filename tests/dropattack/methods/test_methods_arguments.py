"""Bad hyperparameters, each with its message."""

import pytest
from networks import build

from dropattack.methods import (
    ASAM,
    FGM,
    FGSM,
    GSAM,
    L1,
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
)

BAD = {
    "fgm epsilon": (lambda n: FGM(n.module, n.site, -1.0), "epsilon: expected a finite number of at least 0"),
    "fgm site": (lambda n: FGM(n.module, "embeding"), "unknown site 'embeding'; EmbeddingMLP has embedding"),
    "fgm norm": (lambda n: FGM(n.module, n.site, input_norm="global"), "input_norm: expected one of"),
    "fgsm range": (lambda n: FGSM(n.module, n.site, clip_range=(1.0, 0.0)), "clip_range: expected the lowest"),
    "pgd steps": (lambda n: PGD(n.module, n.site, ascent_steps=0), "ascent_steps: expected a whole number"),
    "pgd norm": (lambda n: PGD(n.module, n.site, norm="l1"), "norm: expected one of 'l2', 'linf', got 'l1'"),
    "sam rho": (lambda n: SAM(n.module, -0.1), "rho: expected a finite number of at least 0"),
    "sam weights": (lambda n: SAM(n.module, weights=["fc*"]), r"unknown parameter 'fc\*'"),
    "alpha": (lambda n: GradientNormPenalty(n.module, alpha=1.5), "alpha: expected a probability"),
    "asam eta": (lambda n: ASAM(n.module, eta=-1), "eta: expected a finite number of at least 0"),
    "freeat replays": (lambda n: FreeAT(n.module, n.site, 0.1, 0), "replays: expected a whole number"),
    "freelb steps": (lambda n: FreeLB(n.module, n.site, ascent_steps=1.5), "ascent_steps: expected a whole number"),
    "gsam alpha": (lambda n: GSAM(n.module, alpha=-1), "alpha: expected a finite number of at least 0"),
    "looksam every": (lambda n: LookSAM(n.module, every=0), "every: expected a whole number of at least 1"),
    "sparse sam mask": (lambda n: SparseSAM(n.module, mask="magnitude"), "mask: expected one of 'fisher', 'dynamic'"),
    "sparse sam share": (lambda n: SparseSAM(n.module, sparsity=1.2), "sparsity: expected a probability"),
    "rwp alpha": (lambda n: RWP(n.module, alpha=2.0), "alpha: expected a probability"),
    "explicit nothing": (lambda n: ExplicitPenalty(n.module), "nothing to penalize"),
    "explicit form": (lambda n: ExplicitPenalty(n.module, n.site, form="eq. 13"), "form: expected one of"),
    "vat xi": (lambda n: VAT(n.module, n.site, xi=0.0), "xi: expected a positive number"),
    "r3f noise": (lambda n: R3F(n.module, n.site, noise="cauchy"), "noise: expected one of 'uniform', 'normal'"),
    "r3f weight": (lambda n: R3F(n.module, "hidden.weight"), "got the parameter 'hidden.weight'; R3F perturbs"),
    "smart weight": (lambda n: SMART(n.module, "hidden.weight"), "got the parameter 'hidden.weight'; SMART perturbs"),
    "smart decay": (lambda n: SMART(n.module, n.site, decay=1.5), "decay: expected a probability"),
    "compose weights": (
        lambda n: Compose(n.module, FGM(n.module, n.site), FreeAT(n.module, n.site)),
        "weights: FreeAT takes several optimizer steps a batch",
    ),
    "compose model": (
        lambda n: Compose(n.module, FGM(n.module, n.site), SAM(build("mlp").module)),
        "SAM was built on another model",
    ),
    "compose weight": (
        lambda n: Compose(n.module, FGM(n.module, n.site, adversarial_weight=2.0), SAM(n.module)),
        "expected adversarial_weight=1, got 2.0",
    ),
    "scheduled model": (
        lambda n: Scheduled(n.module, SAM(build("mlp").module)),
        "SAM was built on another model",
    ),
    "scheduled name": (
        lambda n: Scheduled(n.module, SAM(n.module), warmup={"epsilon": 3}),
        "unknown hyperparameter 'epsilon'; SAM has alpha, rho",
    ),
    "scheduled steps": (
        lambda n: Scheduled(n.module, SAM(n.module), warmup={"rho": 0}),
        "warmup.rho: expected a whole number of at least 1",
    ),
    "authors' code on pixels": (
        lambda n: DropAttack(n.module, "hidden", reading="authors-code"),
        "expected an embedding layer or a parameter as `inputs`, got 'hidden'",
    ),
    "authors' code, other switches": (
        lambda n: DropAttack(n.module, n.site, reading="authors-code", mask_then_normalize=True),
        "normalizes each tensor and then masks",
    ),
    "frozen site": (
        lambda n: FGM(build("frozen_mlp").module, "embedding.weight"),
        "'embedding.weight' is frozen",
    ),
    "l1": (lambda n: L1(n.module, float("nan")), "coefficient: expected a finite number"),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD)
def test_bad_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make(build("mlp"))


def test_only_methods_that_find_one_perturbation_can_be_composed():
    network = build("mlp")
    with pytest.raises(TypeError, match=r"finds one perturbation of the input \(FGSM, FGM, PGD\), got FreeLB"):
        Compose(network.module, FreeLB(network.module, network.site), SAM(network.module))
