"""DropAttack: masked adversarial perturbations of the input and of weights (Ni, Li and Kao 2021)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from dropattack.arguments import check_choice, check_count, check_nonnegative, check_probability
from dropattack.ascent import NormScope, bernoulli_mask, generator_on, norms, random_like, units
from dropattack.distributed import averaged, from_first
from dropattack.methods.base import Cost, Method, StepRecord
from dropattack.passes import Step, watched_gradient
from dropattack.sites import ParameterSite, Site, find_parameters, find_site, touched_rows

__all__ = ["DropAttack"]


@dataclasses.dataclass(frozen=True)
class _Attack:
    """Sites that are perturbed together, in passes of their own."""

    name: str
    sites: tuple[Site, ...]
    scope: NormScope


class DropAttack(Method):
    r"""Adds the gradients at masked, perturbed inputs and weights to the clean gradient.

    Algorithm 1 of Ni, Li and Kao, "DropAttack: a masked weight adversarial training method to improve generalization
    of neural networks" (arXiv:2108.12805), and Algorithm 2 for ``ascent_steps`` K > 1. With :math:`v` the attacked
    input or weights, :math:`g = \nabla_\theta L`, and one mask :math:`M \sim \mathrm{Bernoulli}(p)` a step:

    .. math::
        G^{(0)} = \nabla_v L(v), \quad
        r^{(t)} = \epsilon \, M \odot G^{(t)} / \lVert G^{(t)} \rVert_2, \quad
        G^{(t+1)} = G^{(t)} + \tfrac1K \nabla_v L(v + r^{(t)}),

    and ``.grad`` gains :math:`g + \sum_\text{attacks} \tfrac1K \sum_{t<K} \nabla_\theta L(v + r^{(t)})`.
    The input is one attack, all the chosen weights together are the other (eq. 5).

    Where the paper contradicts itself, this is what is done by default: the probability is that of an entry *being
    attacked*, and the clean loss has weight 1 (Algorithm 1; the printed Algorithm 2 would count it twice). The weight
    attack perturbs the weights (eq. 5 and 7; Algorithm 2 prints the input there). The clean pass is not repeated for
    each ascent step, and a perturbation replaces the one before. Norms are taken for each example of an input, which
    keeps epsilon independent of the batch size, and for each weight tensor. The other readings are options.

    Cost: ``1 + K`` forward and backward passes for each attack added to one clean pass: 2 for the input alone with
    K = 1, 3 for input and weights.

    Args:
        model: the network.
        inputs: what "the input" is: ``"input"``, the first floating-point argument of the model (pixels); a module
            name, its output (an embedding layer); a parameter name, that weight, with a norm over the tensor, as the
            authors' code attacks the embedding weight; None, no input attack.
        weights: names or ``fnmatch`` patterns of the attacked parameters; ``()`` for none. A pattern skips frozen ones.
        epsilon: norm of the input perturbation before masking; at least 0.
        epsilon_weights: the same for each weight; None: as ``epsilon``.
        attack_probability: P(an entry is attacked), in [0, 1]; 1 attacks all entries, 0 none.
        attack_probability_weights: the same for weights; None: as ``attack_probability``.
        ascent_steps: K of Algorithm 2; at least 1.
        clean_weight: weight of the clean gradient; at least 0. With 0 the gradients of ``model``'s parameters are set
            aside in the clean pass; parameters outside ``model`` keep theirs.
        mask_then_normalize: mask the gradient first, so that the perturbation keeps norm epsilon: the maximizer of the
            masked linear problem, and what eq. 12's penalty belongs to.
        accumulate: add each ascent step's perturbation to the ones before (norm up to K epsilon), as the authors' code
            does.
        input_norm: ``"example"`` or ``"tensor"`` (one norm for the batch).
        weight_norm: ``"tensor"`` or ``"global"`` (one norm for all attacked weights together).
        relative_epsilon: read epsilons as shares of the norm of what is perturbed, in the same scope.
        direction: ``"gradient"``, or ``"random"``: Gaussian directions of the same norms on the entries where the
            gradient is not zero, the control that any gain from the gradient must beat.
        reduction: ``"sum"``, or ``"mean"``: divide by ``clean_weight`` plus the number of attacks, which keeps the
            gradient's scale (it matters to SGD, clipping and weight decay; Adam is indifferent).
        reading: ``"paper"``, or ``"authors-code"``: what the authors' published notebooks mean to compute, which is
            the attack on the *weight* of the embedding that ``inputs`` names, with one norm for the whole matrix, and
            perturbations that add up over the ascent steps. (What they do compute differs again: their last backward
            pass goes through graphs whose weights have been changed in the meantime.)
        batch_dim: the dimension of the input that counts examples (1 for time-major sequences).
        sync_perturbation: average the attacked weights' gradients over the processes of the default group, so that
            all perturb alike; otherwise each perturbs by its own micro-batch.
        generator: draws the masks, on the device of the attacked tensors. None: a new one with PyTorch's fixed
            default seed (so all processes of a distributed job draw alike: seed one for each). The global random
            stream is never touched.

    Raises:
        ValueError: an unknown or frozen site, a probability outside [0, 1], a negative epsilon, an unknown option,
            nothing to attack.

    Example:
        >>> model = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
        >>> method = DropAttack(model, inputs="input", weights=("0.weight",), epsilon=0.5, attack_probability=0.7)
        >>> x, y = torch.randn(4, 2), torch.tensor([0, 1, 0, 1])
        >>> loss = method.backward(lambda: nn.functional.cross_entropy(model(x), y))
        >>> method.cost
        Cost(forwards=3, backwards=3)
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: str | None = None,
        weights: Sequence[str] = (),
        epsilon: float = 5.0,
        epsilon_weights: float | None = None,
        attack_probability: float = 0.5,
        attack_probability_weights: float | None = None,
        ascent_steps: int = 1,
        *,
        clean_weight: float = 1.0,
        mask_then_normalize: bool = False,
        accumulate: bool = False,
        input_norm: Literal["example", "tensor"] = "example",
        weight_norm: Literal["tensor", "global"] = "tensor",
        relative_epsilon: bool = False,
        direction: Literal["gradient", "random"] = "gradient",
        reduction: Literal["sum", "mean"] = "sum",
        reading: Literal["paper", "authors-code"] = "paper",
        batch_dim: int = 0,
        sync_perturbation: bool = False,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(model)
        check_choice("input_norm", input_norm, ("example", "tensor"))
        check_choice("weight_norm", weight_norm, ("tensor", "global"))
        check_choice("direction", direction, ("gradient", "random"))
        check_choice("reduction", reduction, ("sum", "mean"))
        check_choice("reading", reading, ("paper", "authors-code"))
        if reading == "authors-code":
            if mask_then_normalize or weight_norm == "global":
                raise ValueError(
                    "reading='authors-code' normalizes each tensor and then masks: drop the other switches"
                )
            accumulate = True
            inputs = None if inputs is None else _embedding_weight(self.model, inputs)
        self.epsilon = check_nonnegative("epsilon", epsilon)
        self.epsilon_weights = (
            self.epsilon if epsilon_weights is None else check_nonnegative("epsilon_weights", epsilon_weights)
        )
        self.attack_probability = check_probability("attack_probability", attack_probability)
        self.attack_probability_weights = (
            self.attack_probability
            if attack_probability_weights is None
            else check_probability("attack_probability_weights", attack_probability_weights)
        )
        self._attacks: list[_Attack] = []
        if inputs is not None:
            site = find_site(self.model, inputs)
            site.keep_value = relative_epsilon
            if isinstance(site, ParameterSite) and not site.parameter.requires_grad:
                raise ValueError(f"inputs: {inputs!r} is frozen (requires_grad=False): unfreeze it first")
            self._attacks.append(
                _Attack("inputs", (site,), "tensor" if isinstance(site, ParameterSite) else input_norm)
            )
        if sites := find_parameters(self.model, weights):
            self._attacks.append(_Attack("weights", tuple(sites), weight_norm))
        if not self._attacks:
            raise ValueError("nothing to attack: name `inputs`, `weights` or both")
        self._check_distinct()
        self.ascent_steps = check_count("ascent_steps", ascent_steps)
        self.clean_weight = check_nonnegative("clean_weight", clean_weight)
        self.mask_then_normalize = mask_then_normalize
        self.accumulate = accumulate
        self.relative_epsilon = relative_epsilon
        self.direction = direction
        self.reduction = reduction
        self.batch_dim = batch_dim
        self.sync_perturbation = sync_perturbation
        self._generator = generator

    @property
    def cost(self) -> Cost:
        """One clean pass, and K passes for each attack."""
        passes = 1 + len(self._attacks) * self.ascent_steps
        return Cost(forwards=passes, backwards=passes)

    def _step(self, step: Step) -> StepRecord:
        scale = 1.0 if self.reduction == "sum" else 1 / (self.clean_weight + len(self._attacks))
        sites = [site for attack in self._attacks for site in attack.sites]
        record = StepRecord(clean_loss=step.run(self.clean_weight * scale, watch=sites, clean=True))
        clean_scale = self.clean_weight * scale or 1.0  # what the watched gradients were multiplied by
        clean = {site: _divided(watched_gradient(site), clean_scale) for site in sites}
        for attack in self._attacks:
            ascent = [clean[site] for site in attack.sites]
            masks = [self._mask(site, gradient, attack) for site, gradient in zip(attack.sites, ascent, strict=True)]
            record.masks |= _by_name(attack.sites, masks)
            record.gradient_norms |= _by_name(attack.sites, self._norms(ascent, attack))
            lengths = self._lengths(attack)
            offsets: list[Tensor] = []
            losses = record.adversarial_losses.setdefault(attack.name, [])
            for t in range(self.ascent_steps):
                new = self._perturbations(attack, ascent, masks, lengths)
                adds_up = self.accumulate and t > 0
                offsets = [old + r for old, r in zip(offsets, new, strict=True)] if adds_up else new
                more_to_come = t + 1 < self.ascent_steps
                losses.append(
                    step.run(
                        scale / self.ascent_steps,
                        dict(zip(attack.sites, offsets, strict=True)),
                        watch=attack.sites if more_to_come else (),
                    )
                )
                if more_to_come:
                    new_gradients = [_divided(watched_gradient(site), scale) for site in attack.sites]
                    ascent = [old + new for old, new in zip(ascent, new_gradients, strict=True)]
            record.perturbations |= _by_name(attack.sites, offsets)
        return record

    def _norms(self, gradients: list[Tensor], attack: _Attack) -> list[Tensor]:
        """One norm an example, or one a tensor (also where the perturbation has a global norm)."""
        if attack.scope == "example":
            return [norm.reshape(-1) for norm in norms(gradients, "example", self.batch_dim)]
        return [norm.reshape(()) for norm in norms(gradients, "tensor")]

    def _perturbations(
        self, attack: _Attack, ascent: list[Tensor], masks: list[Tensor], lengths: list[Tensor]
    ) -> list[Tensor]:
        """Equation 6 and the mask of Algorithm 1 (or the other order)."""
        directions = [self._direction(site, gradient) for site, gradient in zip(attack.sites, ascent, strict=True)]
        if self.mask_then_normalize:
            directions = [direction * mask for direction, mask in zip(directions, masks, strict=True)]
        unit_vectors = units(directions, attack.scope, self.batch_dim)
        return [
            (unit * length * mask).to(unit.dtype)
            for unit, length, mask in zip(unit_vectors, lengths, masks, strict=True)
        ]

    def _lengths(self, attack: _Attack) -> list[Tensor]:
        """Norms of the perturbations before masking; relative ones are shares of the *clean* input or weights."""
        epsilon = self.epsilon if attack.name == "inputs" else self.epsilon_weights
        if not self.relative_epsilon:
            return [torch.tensor(epsilon, dtype=torch.float64)] * len(attack.sites)
        values = [site.value for site in attack.sites]
        return [epsilon * norm for norm in norms(values, attack.scope, self.batch_dim)]

    def _direction(self, site: Site, gradient: Tensor) -> Tensor:
        shared = self.sync_perturbation and isinstance(site, ParameterSite)
        if shared:
            gradient = averaged(gradient)
        if self.direction == "gradient":
            return gradient
        noise = random_like(gradient, self._generator_on(gradient.device))
        return from_first(noise) if shared else noise

    def _mask(self, site: Site, gradient: Tensor, attack: _Attack) -> Tensor:
        probability = self.attack_probability if attack.name == "inputs" else self.attack_probability_weights
        shared = self.sync_perturbation and isinstance(site, ParameterSite)
        # Another process may touch other rows of an embedding, so a shared mask is drawn for all of them.
        rows = None if shared else touched_rows(site, gradient)
        mask = bernoulli_mask(gradient, probability, self._generator_on(gradient.device), rows)
        return from_first(mask) if shared else mask

    def _generator_on(self, device: torch.device) -> torch.Generator:
        self._generator = generator_on(device, self._generator)
        return self._generator

    def _check_distinct(self) -> None:
        parameters = [site for attack in self._attacks for site in attack.sites if isinstance(site, ParameterSite)]
        if len({id(site.parameter) for site in parameters}) < len(parameters):
            raise ValueError(
                f"{parameters[0].name!r} is attacked both as `inputs` and as one of `weights`; name it once"
            )


def _divided(gradient: Tensor, scale: float) -> Tensor:
    return gradient if scale == 1 else gradient / scale


def _by_name(sites: Sequence[Site], values: Sequence[Tensor]) -> dict[str, Tensor]:
    return {site.name: value for site, value in zip(sites, values, strict=True)}


def _embedding_weight(model: nn.Module, name: str) -> str:
    """The parameter that the authors' code attacks in place of the output of an embedding."""
    if name in dict(model.named_parameters(remove_duplicate=False)):
        return name
    if isinstance(dict(model.named_modules()).get(name), nn.Embedding):
        return f"{name}.weight"
    raise ValueError(
        f"reading='authors-code' attacks parameters alone: expected an embedding layer or a parameter as `inputs`, got "
        f"{name!r}"
    )
