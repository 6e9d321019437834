"""One thread a process: the networks are tiny, and test workers share the cores."""

import torch

torch.set_num_threads(1)
