"""The path of a run on the plane of its principal components, over the loss surface of that plane."""

import sys
import tempfile
from pathlib import Path

import torch

import dropattack as da
import landscape as ls

torch.set_num_threads(1)
digits = da.load_dataset("mnist-5k", examples=500)
with tempfile.TemporaryDirectory() as folder:
    config = da.Config(training=da.Training(epochs=8, keep_epochs=True))
    run = da.train(config, folder, dataset=digits, progress=False)
    risk = ls.EmpiricalRisk(run.model, digits.train.batches(limit=250))
    plane = ls.trajectory(ls.load_points(sorted(Path(folder).glob("epochs/*")), risk))
with risk.at(plane.center):
    path = ls.trajectory_path(risk, plane, progress=False)
    below = ls.loss_surface(risk, plane.directions, span=plane.span(), tolerance=0.05, progress=False)
figure = ls.plots.trajectory_panels(below, path, "LeNet-5 on 500 digits, eight epochs")
ls.plots.save(figure, Path(sys.argv[1] if len(sys.argv) > 1 else "gallery") / "trajectory")
