"""Train neural networks with DropAttack and the methods it is compared to.

Nothing is imported before it is used, so that ``dropattack --help`` need not wait for PyTorch. The table of contents is
in ``__init__.pyi``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
