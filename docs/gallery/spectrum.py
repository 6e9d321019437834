"""The spectral density of the Hessian and of the Gauss-Newton matrix, early in training."""

import sys
import tempfile
from pathlib import Path

import torch

import dropattack as da
import landscape as ls

torch.set_num_threads(1)
digits = da.load_dataset("mnist-5k", examples=500)
with tempfile.TemporaryDirectory() as folder:
    run = da.train(da.Config(training=da.Training(epochs=5)), folder, dataset=digits, progress=False)
risk = ls.EmpiricalRisk(run.model, digits.train.batches(limit=250))
density = {"five epochs": ls.spectral_density(risk, seed=0)}
figure = ls.plots.spectrum_panels(density, heading="LeNet-5 on 250 digits")
ls.plots.save(figure, Path(sys.argv[1] if len(sys.argv) > 1 else "gallery") / "spectrum")
