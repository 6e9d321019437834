"""One of two processes: each library's data-parallel training on its own shard, the gradients saved for the tests."""

import os
import pathlib
import tempfile

import torch
from by_hand import EPSILON, gradients, loss_on, make_batches, make_model, weights

from dropattack.methods import FGM, DropAttack

PROCESSES = 2

METHODS = {
    "fgm": lambda model: FGM(model, "embedding", epsilon=EPSILON),
    "dropattack": lambda model: DropAttack(model, "embedding", ("hidden.weight",), epsilon=EPSILON, ascent_steps=2),
}


def shard(rank):
    """The two micro-batches of a process."""
    return make_batches(2, seed=10 + rank)


class Reductions:
    """Counts the all-reductions of a ``DistributedDataParallel`` model, and makes them as it would."""

    def __init__(self, ddp):
        self.count = 0
        ddp.register_comm_hook(None, self.reduce)

    def reduce(self, state, bucket):
        self.count += 1
        reduced = torch.distributed.all_reduce(bucket.buffer().div_(PROCESSES), async_op=True).get_future()
        return reduced.then(lambda future: future.value()[0])


def with_accelerate(name, rank):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = accelerator.prepare(make_model())
    reductions = Reductions(model)
    method = METHODS[name](model)
    for batch in shard(rank):
        with accelerator.accumulate(model):
            method.backward(
                lambda batch=batch: loss_on(model, batch),
                backward=accelerator.backward,
                no_sync=lambda: accelerator.no_sync(model),
            )
    return gradients(method.model), reductions.count


def with_fabric(name, rank):
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=PROCESSES, strategy="ddp")
    fabric.launch()
    raw = make_model()
    model = fabric.setup(raw)
    reductions = Reductions(model._forward_module)
    method = METHODS[name](raw)
    for index, batch in enumerate(shard(rank)):
        with fabric.no_backward_sync(model, enabled=index == 0):
            method.backward(
                lambda batch=batch: loss_on(model, batch),
                backward=lambda loss: fabric.backward(loss / 2),
                no_sync=lambda: fabric.no_backward_sync(model),
            )
    return gradients(raw), reductions.count


def with_transformers(name, rank):
    """One optimizer step of plain gradient descent at rate 1: the weights move by minus the gradient."""
    from test_transformers import Labeled, arguments, as_dataset
    from transformers import TrainerCallback

    from dropattack.adapters.transformers import MethodTrainer

    model = Labeled(make_model())
    before = weights(model.classifier)
    # The sampler of each process takes every other batch.
    both = [batch for pair in zip(*(shard(other) for other in range(PROCESSES)), strict=True) for batch in pair]
    with tempfile.TemporaryDirectory() as folder:
        trainer = MethodTrainer(
            model,
            arguments(folder, gradient_accumulation_steps=2, max_grad_norm=0.0),
            train_dataset=as_dataset(both),
            optimizers=(torch.optim.SGD(model.parameters(), lr=1.0), None),
            make_method=lambda model: METHODS[name](model.classifier),
        )
        counts = []

        class Count(TrainerCallback):
            def on_train_begin(self, *_, **__):
                counts.append(Reductions(trainer.model_wrapped))

        trainer.add_callback(Count)
        trainer.train()
    after = weights(model.classifier)
    return {key: before[key] - after[key] for key in before}, counts[0].count


def refusal_of_lightning():
    """What Lightning's Trainer is told with a method in its module."""
    from test_lightning import Standard, fit, with_method

    try:
        fit(with_method(Standard)(), devices=PROCESSES, strategy="ddp")
    except RuntimeError as error:
        return str(error)
    return ""


LIBRARIES = {"accelerate": with_accelerate, "fabric": with_fabric, "transformers": with_transformers}


def process(rank, folder):
    torch.set_num_threads(1)
    ranks = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": PROCESSES, "LOCAL_WORLD_SIZE": PROCESSES, "NODE_RANK": 0}
    os.environ |= {key: str(value) for key, value in ranks.items()}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "0"}  # asked for, not used: the store is a file
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=PROCESSES)
    results = {(library, name): run(name, rank) for library, run in LIBRARIES.items() for name in METHODS}
    results["lightning"] = refusal_of_lightning()
    torch.save(results, pathlib.Path(folder) / f"{rank}.pt")
    torch.distributed.destroy_process_group()
