"""The paper's claims, by the names that this product gives them."""

from __future__ import annotations

from pathlib import Path

from dropattack.claims import accuracy, arithmetic, minima
from dropattack.claims.accuracy import MARGIN
from dropattack.claims.verdicts import Claim, Finding

__all__ = ["CLAIMS"]

_PAIRED = "paired over training seeds, Student's t interval of the mean difference"


def _flat_and_low(results: Path) -> list[Finding]:
    return [*minima.flatter(results), *minima.lower(results)]


def _slower_and_closer(results: Path) -> list[Finding]:
    return [*minima.slower_at_first(results), *minima.smaller_gap(results)]


CLAIMS: dict[str, Claim] = {
    "C1": Claim(
        "DropAttack has the best accuracy of all methods, on all five data sets.",
        "Abstract; section 4.3; Table 2",
        "On every data set, DropAttack-(I&W) beats the best other row, and the interval excludes zero.",
        f"Test accuracy minus that of the other row that is best on validation data; {_PAIRED}.",
        accuracy.best_of_all,
    ),
    "C2": Claim(
        "Attacking weights as well as inputs is better than attacking inputs alone, on all five data sets.",
        "Section 4.3; Table 2",
        "On every data set, (I&W) minus (I) is positive, and the interval excludes zero.",
        f"Test accuracy of (I&W) minus (I), each tuned by as many trials; {_PAIRED}.",
        accuracy.input_and_weights_over_input,
        arithmetic.printed_input_and_weights,
    ),
    "C3": Claim(
        "With DropAttack, half of the training data is enough.",
        "Section 4.3; Table 3",
        "At every size, DropAttack on half of the data beats standard training on all of it.",
        f"Test accuracy on IMDB, as many steps at every size; {_PAIRED}.",
        accuracy.half_of_the_data,
        arithmetic.printed_half,
    ),
    "C4": Claim(
        "DropAttack gains more than two points at every size of the training data.",
        "Section 4.3; Table 3",
        "At every size the interval of the gain lies above two points.",
        f"Test accuracy on IMDB minus standard training's; {_PAIRED}.",
        accuracy.more_than_two_points,
        arithmetic.printed_gains,
    ),
    "C5": Claim(
        "More ascent steps (K > 1) improve DropAttack further.",
        "Section 4.4; Table 4",
        "K = 2 and K = 3 beat K = 1, and the intervals exclude zero.",
        f"Test accuracy on MNIST at epsilon 5, p 0.5; {_PAIRED}.",
        accuracy.more_ascent_steps,
        arithmetic.printed_ascent_steps,
    ),
    "C6": Claim(
        "An attack probability of 0.5 to 0.7 is best.",
        "Section 4.5; Table 10; Figure 5",
        "p of 0.5 and 0.7 together beat both smaller and larger ones, and the intervals exclude zero.",
        f"Test accuracy on MNIST at epsilon 5; {_PAIRED}.",
        accuracy.best_probability,
        arithmetic.printed_probability,
    ),
    "C7": Claim(
        "Layers near the input are better to attack.",
        "Appendix A; Tables 5 to 9",
        "Accuracy rises with every step towards the input, and the interval of the slope excludes zero.",
        "Slope of test accuracy over the five weights of LeNet-5 on MNIST, attacked alone; interval over seeds.",
        accuracy.layers_near_the_input,
        arithmetic.printed_depth,
    ),
    "C8": Claim(
        "DropAttack regularizes the gradient: it finds minima where the gradient at what it attacks is smaller.",
        "Section 3.3; equations 8 to 13",
        "The gradient norm at the input is lower than after standard training, and the interval excludes zero.",
        f"Mean norm over examples of each one's own gradient, on training data; {_PAIRED}.",
        minima.smaller_gradients,
    ),
    "C8b": Claim(
        "What DropAttack adds to the loss is the penalty of equation 12, ε times the norm of the masked gradient.",
        "Equations 8 to 13",
        "The printed term describes the measured rise within a tenth at the paper's epsilon, 5.",
        "Measured rise under masked perturbations beside the term, for epsilon from 0.001 to 10.",
        minima.penalty_at_epsilon,
    ),
    "C9": Claim(
        "DropAttack ends in a lower and flatter region of the loss landscape.",
        "Section 4.6; Figures 3, 4, 6 and 7",
        "The training loss rises less along filter-normalized directions, also at matched training loss, and the test "
        "loss is lower; the intervals exclude zero.",
        f"Filter-normalized rise and test loss, minus standard training's; {_PAIRED}.",
        _flat_and_low,
    ),
    "C10": Claim(
        "DropAttack converges more slowly at first, and closes the gap between training and validation accuracy.",
        "Section 4.4; Figure 2",
        "At epsilon 5, validation accuracy after one epoch is lower, the gap at the selected epoch smaller; the "
        "intervals exclude zero.",
        f"Curves of Table 2's runs; {_PAIRED}.",
        _slower_and_closer,
    ),
    "C11": Claim(
        "One back-propagation for the attack is enough: no more steps are needed to do as well as methods of several.",
        "Sections 1 and 3; Algorithm 1",
        f"DropAttack-(I&W) is less than {MARGIN:g} points worse than FreeLB, PGD and standard training of as many "
        "passes; the interval lies above that.",
        f"Test accuracy minus theirs; {_PAIRED}.",
        accuracy.one_back_propagation,
    ),
    "A1": Claim(
        "The printed accuracies are means over several runs.",
        "Tables 2 and 4 say five; the others say nothing",
        "Every number can be such a mean, and last digits are even as often as those of such means.",
        "Granularity test (Brown and Heathers 2017), and an exact binomial test of even last digits.",
        lambda _results: arithmetic.means_of_five_runs(),
    ),
    "A2": Claim(
        "The attack probability matters to IMDB's accuracy.",
        "Table 10",
        "Its F test rejects at 5 %.",
        "Two-way analysis of variance without repetition, rows p > 0, columns epsilon.",
        lambda _results: arithmetic.effect_of_probability(),
    ),
    "A3": Claim(
        "Epsilon matters to IMDB's accuracy.",
        "Table 10; Figure 5",
        "Its F test rejects at 5 %.",
        "The same analysis.",
        lambda _results: arithmetic.effect_of_epsilon(),
    ),
}
