"""Methods inside other libraries' training loops.

Each adapter is imported by its own name, because each needs a library that is not required otherwise:

- :mod:`dropattack.adapters.transformers`: the ``Trainer`` of Hugging Face (``pip install 'dropattack[transformers]'``);
- :mod:`dropattack.adapters.lightning`: a ``LightningModule`` (``pip install 'dropattack[lightning]'``);
- :mod:`dropattack.adapters.closures`: optimizers that evaluate the loss themselves, such as LBFGS (PyTorch alone).

Accelerate and Lightning Fabric need no adapter, as they leave the loop to the user::

    method.backward(closure, backward=accelerator.backward, no_sync=lambda: accelerator.no_sync(model))
    method.backward(closure, backward=fabric.backward, no_sync=lambda: fabric.no_backward_sync(model))
"""
