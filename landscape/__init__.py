"""Look at the minima that training finds: loss surfaces, curvature, flatness, gradient norms, for any PyTorch model.

Nothing is imported before it is used, so that ``landscape --help`` need not wait for PyTorch. The table of contents is
in ``__init__.pyi``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
