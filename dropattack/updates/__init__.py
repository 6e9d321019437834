"""The update: what a method adds to ``.grad``, collected without changing anything, and compared with another's."""

from dropattack.updates.collect import update_of
from dropattack.updates.compare import compare_updates
from dropattack.updates.masks import mask_effects
from dropattack.updates.penalty import explicit_against_implicit
from dropattack.updates.readings import reading_effects

__all__ = [
    # one method's
    "update_of",
    # of several methods, of one method's readings, of its masks
    "compare_updates",
    "explicit_against_implicit",
    "mask_effects",
    "reading_effects",
]
