"""A LightningModule with a method in it, compared with the stock module and with loops written out."""

import copy

import pytest
import torch
from by_hand import CLASSES, EPSILON, backward_fgm, loss_on, make_batches, make_model, weights
from lightning import LightningModule, Trainer
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassAUROC

from dropattack.adapters.lightning import MethodMixin
from dropattack.methods import FGM, L2, DropAttack, FreeAT, Scheduled, Standard

# Lightning advises workers for the data loader and a shorter logging interval, neither of which matters here, and it
# calls what PyTorch has deprecated.
pytestmark = [
    pytest.mark.filterwarnings(r"ignore:`isinstance\(treespec, LeafSpec\)` is deprecated:FutureWarning"),
    pytest.mark.filterwarnings(r"ignore:.*does not have many workers"),
    pytest.mark.filterwarnings(r"ignore:The number of training batches .* is smaller than the logging interval"),
]

BATCHES = make_batches(5)
RATE = 0.3


class Stock(LightningModule):
    """Written without a thought of methods."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.net = make_model(dropout)

    def training_step(self, batch, batch_idx):
        loss = loss_on(self.net, batch)
        self.log("loss", loss, on_step=False, on_epoch=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=RATE, momentum=0.5)


def fgm(module):
    return FGM(module, "net.embedding", epsilon=EPSILON)


def with_method(make_method, base=Stock, **attributes):
    def configure_method(self):
        return make_method(self)

    return type("WithMethod", (MethodMixin, base), {"configure_method": configure_method, **attributes})


def fit(module, batches=BATCHES, checkpoint=None, **options):
    """Train for one epoch.

    Returns:
        The trainer.
    """
    defaults = {
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(**(defaults | options))
    torch.manual_seed(1)
    trainer.fit(module, DataLoader(batches, batch_size=None), ckpt_path=checkpoint)
    return trainer


class Halves(MixedPrecision):
    """Loss scaling, which Lightning itself offers on CUDA alone."""

    def __init__(self):
        super().__init__("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=2.0**10))


OPTIONS = {
    "plain": dict,
    "accumulation": lambda: {"accumulate_grad_batches": 2},
    "clipping": lambda: {"gradient_clip_val": 0.1},
    "clipping by value": lambda: {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    "all": lambda: {"accumulate_grad_batches": 3, "gradient_clip_val": 0.1, "max_epochs": 2},
    "bfloat16": lambda: {"precision": "bf16-mixed", "accumulate_grad_batches": 2},
    "float16 with loss scaling": lambda: {"plugins": [Halves()], "gradient_clip_val": 0.1},
    "float64": lambda: {"precision": "64-true"},
}


@pytest.mark.parametrize("options", OPTIONS)
def test_standard_is_the_stock_module(options):
    trained = []
    for make in (Stock, with_method(Standard)):
        module = make(dropout=0.3)
        trainer = fit(module, **OPTIONS[options]())
        trained.append((weights(module), dict(trainer.callback_metrics)))
    assert_close(trained[1], trained[0], rtol=0, atol=0)
    assert (trained[0][0]["net.hidden.weight"] != make_model().hidden.weight).any()


class InFullPrecision(Stock):
    """One layer opts out of low precision; its backward pass must not be pulled back in."""

    def training_step(self, batch, batch_idx):
        tokens, targets = batch
        embedded = self.net.embedding(tokens)
        with torch.autocast("cpu", enabled=False):
            hidden = torch.tanh(self.net.hidden(embedded.float()))
        return nn.functional.cross_entropy(self.net.decoder(hidden).mean(1), targets)


def test_the_backward_pass_lies_outside_autocast():
    trained = []
    for make in (InFullPrecision, with_method(Standard, InFullPrecision)):
        module = make()
        fit(module, precision="bf16-mixed")
        trained.append(weights(module))
    assert_close(trained[1], trained[0], rtol=0, atol=0)


def train_by_hand(accumulate=1, clip=None):
    """FGM with plain hooks; Lightning divides by ``accumulate`` also in the last, shorter optimizer step."""
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=0.5)
    for number, batch in enumerate(BATCHES, start=1):
        backward_fgm(model.embedding, lambda batch=batch: loss_on(model, batch), scale=1 / accumulate)
        if number % accumulate == 0 or number == len(BATCHES):
            if clip is not None:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            optimizer.step()
            optimizer.zero_grad()
    return weights(model)


@pytest.mark.parametrize("clip", [None, 0.2])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_fgm_is_the_loop_written_out(accumulate, clip):
    module = with_method(fgm)()
    fit(module, accumulate_grad_batches=accumulate, gradient_clip_val=clip)
    assert_close(weights(module.net), train_by_hand(accumulate, clip))


def test_loss_scaling_leaves_the_gradient_of_fgm_alone():
    scaled, plain = with_method(fgm)(), with_method(fgm)()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    precision = MixedPrecision("16-mixed", "cpu", scaler=scaler)
    fit(scaled, plugins=[precision])
    fit(plain, precision="bf16-mixed")
    for name, weight in weights(scaled).items():
        change = weights(plain)[name] - weights(Stock())[name]
        assert (weight - weights(plain)[name]).norm() < 0.1 * change.norm(), name


def test_a_penalty_is_divided_like_the_loss():
    trained = []
    for accumulate, batches in ((1, [tuple(map(torch.cat, zip(*BATCHES[:2], strict=True)))]), (2, BATCHES[:2])):
        module = with_method(lambda module: L2(module, 0.1))()
        fit(module, batches, accumulate_grad_batches=accumulate)
        trained.append(weights(module))
    assert_close(trained[1], trained[0])


class Observed(Stock):
    """Notes what Lightning calls, and what it is told."""

    def __init__(self):
        super().__init__()
        self.calls, self.outputs = [], []
        self.accuracy = MulticlassAccuracy(CLASSES)
        self.curves = MetricCollection(
            {"auroc": MulticlassAUROC(CLASSES), "top2": MulticlassAccuracy(CLASSES, top_k=2)}
        )

    def training_step(self, batch, batch_idx):
        self.calls.append("training_step")
        tokens, targets = batch
        logits = self.net(tokens)
        loss = nn.functional.cross_entropy(logits, targets)
        self.accuracy(logits, targets)
        self.log("accuracy", self.accuracy, on_step=False, on_epoch=True)
        self.log_dict(self.curves, on_step=False, on_epoch=True)
        self.curves.update(logits, targets)
        self.log_dict({"loss": loss, "batches": 1.0}, on_step=False, on_epoch=True, reduce_fx="sum")
        return {"loss": loss, "logits": logits.detach(), "batch": batch_idx}

    def on_before_zero_grad(self, optimizer):
        self.calls.append("zero_grad")

    def on_before_backward(self, loss):
        self.calls.append("before_backward")

    def on_after_backward(self):
        self.calls.append("after_backward")
        self.gradient = self.net.hidden.weight.grad.clone()

    def on_before_optimizer_step(self, optimizer):
        self.calls.append("optimizer_step")

    def on_train_batch_end(self, outputs, batch, batch_idx):
        self.outputs.append(outputs)


def test_hooks_logs_metrics_and_outputs_are_those_of_the_clean_pass():
    # At rate 0 the weights stay, so that the clean passes of both runs are the same.
    still = {"configure_optimizers": lambda self: torch.optim.SGD(self.parameters(), lr=0.0)}
    stock, module = type("Still", (Observed,), still)(), with_method(fgm, Observed, **still)()
    expected = fit(stock, accumulate_grad_batches=2).callback_metrics
    actual = fit(module, accumulate_grad_batches=2).callback_metrics
    assert set(actual) == {"accuracy", "auroc", "top2", "loss", "batches"}
    assert_close(dict(actual), dict(expected), rtol=0, atol=0)
    assert actual["batches"] == len(BATCHES)
    assert_close(module.outputs, stock.outputs, rtol=0, atol=0)
    forwards = [call for call in module.calls if call == "training_step"]
    assert len(forwards) == 2 * len(BATCHES)  # FGM's cost, and not one more
    assert [call for call in module.calls if call != "training_step"] == [
        call for call in stock.calls if call != "training_step"
    ]


def test_after_backward_sees_the_whole_gradient():
    module = with_method(fgm, Observed)()
    fit(module, BATCHES[:1])
    model = make_model()
    backward_fgm(model.embedding, lambda: loss_on(model, BATCHES[0]))
    assert_close(module.gradient, model.hidden.weight.grad)


class Skipping(Stock):
    def training_step(self, batch, batch_idx):
        return None if batch_idx == 1 else super().training_step(batch, batch_idx)


@pytest.mark.filterwarnings("ignore:`training_step` returned `None`")  # on purpose; Lightning says so once a process
def test_a_batch_can_be_left_out():
    trained = []
    for make in (Skipping, with_method(Standard, Skipping)):
        module = make(dropout=0.3)
        fit(module)
        trained.append(weights(module))
    assert_close(trained[1], trained[0], rtol=0, atol=0)


def test_method_built_by_the_constructor():
    class WithMethod(MethodMixin, Stock):
        def __init__(self):
            super().__init__()
            self.method = FGM(self.net, "embedding", epsilon=EPSILON)

    module = WithMethod()
    fit(module)
    assert_close(weights(module.net), train_by_hand())


def test_training_steps_that_call_each_other_run_the_method_once():
    class Inner(MethodMixin, Stock):
        def configure_method(self):
            return fgm(self)

    class Outer(Inner):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx)

    module = Outer()
    fit(module)
    assert_close(weights(module.net), train_by_hand())


def test_outside_the_training_loop_the_training_step_is_the_modules_own():
    module = with_method(fgm)()
    module.log = lambda *args, **kwargs: None  # there is no Trainer to log to
    loss = module.training_step(BATCHES[0], 0)
    assert loss.requires_grad
    module.backward(loss)
    expected = make_model()
    loss_on(expected, BATCHES[0]).backward()
    assert_close(module.net.hidden.weight.grad, expected.hidden.weight.grad)


def test_a_copy_trains_like_the_original():
    module = with_method(lambda module: DropAttack(module, "net.embedding", ("net.hidden.weight",)), Observed)()
    twin = copy.deepcopy(module)
    fit(module)
    fit(twin)
    assert_close(weights(twin), weights(module), rtol=0, atol=0)


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    # The plain gradient at every other step, counted through the checkpoint; five batches an epoch.
    def every_other(module):
        return Scheduled(module, fgm(module), every=2)

    straight, resumed = with_method(every_other)(), with_method(every_other)()
    fit(straight, max_epochs=2)
    first = fit(resumed)
    first.save_checkpoint(tmp_path / "last.ckpt")
    resumed = with_method(every_other)()
    fit(resumed, max_epochs=2, checkpoint=tmp_path / "last.ckpt")
    assert_close(weights(resumed), weights(straight), rtol=0, atol=0)
    assert resumed.method.state_dict()["count"] == 10


class Failing(Stock):
    """The second pass of the second batch fails."""

    def training_step(self, batch, batch_idx):
        self.passes = getattr(self, "passes", 0) + 1
        if self.passes == 4:
            raise ZeroDivisionError
        return super().training_step(batch, batch_idx)


def test_an_exception_leaves_gradients_and_logging_as_they_were():
    module = with_method(fgm, Failing)()
    with pytest.raises(ZeroDivisionError):
        fit(module, BATCHES[:2], accumulate_grad_batches=2)
    model = make_model()
    backward_fgm(model.embedding, lambda: loss_on(model, BATCHES[0]), scale=1 / 2)
    assert_close(module.net.hidden.weight.grad, model.hidden.weight.grad)
    assert not module._muted
    assert not module._inside_method


def test_replays_are_refused():
    with pytest.raises(ValueError, match=r"FreeAT makes 3 optimizer steps a batch, but Lightning's Trainer makes one"):
        fit(with_method(lambda module: FreeAT(module, "net.embedding"))())


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setattr(Trainer, "world_size", 2)  # test_processes.py has two that are real
    with pytest.raises(
        RuntimeError, match=r"SingleDeviceStrategy with 2: use Lightning Fabric, method\.backward\(clos"
    ):
        fit(with_method(Standard)())


def test_manual_optimization_is_refused():
    module = with_method(Standard)()
    module.automatic_optimization = False
    with pytest.raises(RuntimeError, match=r"optimizes manually.*backward=self\.manual_backward"):
        fit(module)


def test_a_module_without_a_method_says_so():
    module = type("Without", (MethodMixin, Stock), {})()
    with pytest.raises(NotImplementedError, match=r"Without: define configure_method\(self\)"):
        fit(module)


class OwnBackward(Stock):
    def backward(self, loss):
        loss.backward()


@pytest.mark.parametrize(
    ("bases", "attributes"),
    [((MethodMixin, OwnBackward), {}), ((MethodMixin, Stock), {"backward": OwnBackward.backward})],
    ids=["in a base class", "in the class"],
)
def test_a_backward_of_its_own_is_refused(bases, attributes):
    with pytest.raises(TypeError, match="Own has a `backward` of its own, which a method replaces"):
        type("Own", bases, attributes)
