"""The Trainer with a method in it, compared with the stock Trainer and with loops written out."""

import pytest
import torch
from accelerate import DistributedType
from by_hand import EPSILON, backward_fgm, make_batches, make_model, weights
from torch import nn
from torch.testing import assert_close
from transformers import BertConfig, BertForSequenceClassification, Trainer, TrainingArguments

from dropattack.adapters.transformers import MethodTrainer
from dropattack.methods import FGM, L2, PGD, DropAttack, FreeAT, Scheduled, Standard

VOCABULARY, LABELS, LENGTH, SIZE = 17, 3, 6, 4


def make_bert(dropout=0.1):
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=LENGTH,
        num_labels=LABELS,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    return BertForSequenceClassification(config)


class Labeled(nn.Module):
    """A module that is not of Transformers: it takes labels and returns its loss, and knows no num_items_in_batch."""

    def __init__(self, classifier):
        super().__init__()
        self.classifier = classifier

    def forward(self, input_ids, labels):
        logits = self.classifier(input_ids)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


class Tokenwise(Labeled):
    """Its loss is the sum over tokens divided by those of all micro-batches, as in causal language models."""

    def forward(self, input_ids, labels, num_items_in_batch=None, **kwargs):
        logits = self.classifier(input_ids)
        losses = nn.functional.cross_entropy(logits, labels, reduction="none")
        return {"loss": losses.sum() / num_items_in_batch, "logits": logits}


def as_dataset(batches):
    return [
        {"input_ids": tokens, "labels": label}
        for batch_tokens, batch_labels in batches
        for tokens, label in zip(batch_tokens, batch_labels, strict=True)
    ]


DATA = as_dataset(make_batches(5))  # 20 examples: five batches, an odd number for accumulation


def arguments(folder, **options):
    defaults = {
        "num_train_epochs": 1,
        "per_device_train_batch_size": SIZE,
        "learning_rate": 0.01,
        "use_cpu": True,
        "train_sampling_strategy": "sequential",
        "report_to": "none",
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return TrainingArguments(output_dir=str(folder), **(defaults | options))


MODELS = {
    "bert": make_bert,
    "labeled": lambda: Labeled(make_model(dropout=0.1)),
    "tokenwise": lambda: Tokenwise(make_model(dropout=0.1)),
}
OPTIONS = {
    "plain": {},
    "accumulation": {"gradient_accumulation_steps": 2},
    "bfloat16": {"bf16": True, "gradient_accumulation_steps": 2},
    "smoothing": {"label_smoothing_factor": 0.1, "gradient_accumulation_steps": 2, "activation_checkpointing": True},
}
CASES = [("bert", name) for name in OPTIONS] + [("labeled", "accumulation"), ("tokenwise", "accumulation")]


@pytest.mark.parametrize(("model", "options"), CASES)
def test_standard_is_the_stock_trainer(model, options, tmp_path):
    trained = []
    for trainer_class, more in ((Trainer, {}), (MethodTrainer, {"make_method": Standard})):
        trainer = trainer_class(MODELS[model](), arguments(tmp_path, **OPTIONS[options]), train_dataset=DATA, **more)
        result = trainer.train()
        trained.append((weights(trainer.model), result.training_loss))
    assert_close(trained[1], trained[0], rtol=0, atol=0)


def train_by_sgd(model, folder, *, rate=0.1, accumulate=1, **options):
    """Plain gradient descent: no clipping, schedule or weight decay."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer = MethodTrainer(
        model,
        arguments(folder, gradient_accumulation_steps=accumulate, max_grad_norm=0.0),
        train_dataset=DATA,
        optimizers=(optimizer, schedule),
        **options,
    )
    return trainer.train().training_loss


def batches():
    for start in range(0, len(DATA), SIZE):
        rows = DATA[start : start + SIZE]
        yield torch.stack([row["input_ids"] for row in rows]), torch.stack([row["labels"] for row in rows])


def train_by_hand(model, embedding, accumulate, *, mean=True, rate=0.1):
    """FGM with plain hooks; each optimizer step takes the mean over its micro-batches (the last has fewer) or the sum.

    Returns:
        The mean of the clean losses of the optimizer steps.
    """
    todo, losses = list(batches()), []
    for start in range(0, len(todo), accumulate):
        micro_batches = todo[start : start + accumulate]
        for tokens, labels in micro_batches:
            scale = 1 / len(micro_batches) if mean else 1.0
            loss = backward_fgm(
                embedding,
                lambda tokens=tokens, labels=labels: model(input_ids=tokens, labels=labels)["loss"],
                scale=scale,
            )
            losses.append(scale * loss)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.grad is not None:
                    parameter -= rate * parameter.grad
                    parameter.grad = None
    return float(sum(losses) / -(-len(todo) // accumulate))


@pytest.mark.parametrize("accumulate", [1, 2])
def test_fgm_on_word_embeddings_is_the_loop_written_out(accumulate, tmp_path):
    model, expected = make_bert(dropout=0.0), make_bert(dropout=0.0)

    def make_method(model):
        return FGM(model, "bert.embeddings.word_embeddings", epsilon=EPSILON)

    loss = train_by_sgd(model, tmp_path, accumulate=accumulate, make_method=make_method)
    # The stock Trainer adds BERT's micro-batches up: it takes a loss that is handed num_items_in_batch for normalized
    # by it, which BERT's is not.
    expected_loss = train_by_hand(expected, expected.bert.embeddings.word_embeddings, accumulate, mean=False)
    assert_close(weights(model), weights(expected))
    assert loss == pytest.approx(expected_loss, rel=1e-5)


@pytest.mark.parametrize(("wrapper", "accumulate"), [(Labeled, 2), (Labeled, 3), (Tokenwise, 5)])
def test_micro_batches_are_averaged(wrapper, accumulate, tmp_path):
    # With batches of one size, the sum over tokens by their number in all micro-batches is the mean of the means.
    model, expected = wrapper(make_model()), Labeled(make_model())

    def make_method(model):
        return FGM(model, "classifier.embedding", epsilon=EPSILON)

    loss = train_by_sgd(model, tmp_path, accumulate=accumulate, make_method=make_method)
    expected_loss = train_by_hand(expected, expected.classifier.embedding, accumulate)
    assert_close(weights(model), weights(expected))
    assert loss == pytest.approx(expected_loss, rel=1e-5)


@pytest.mark.parametrize("wrapper", [Labeled, Tokenwise])
def test_a_penalty_counts_once_an_optimizer_step(wrapper, tmp_path):
    trained = []
    for accumulate in (1, 5):  # one optimizer step on the same examples
        model = wrapper(make_model())
        trainer = MethodTrainer(
            model,
            arguments(
                tmp_path,
                per_device_train_batch_size=len(DATA) // accumulate,
                gradient_accumulation_steps=accumulate,
                max_grad_norm=0.0,
            ),
            train_dataset=DATA,
            optimizers=(torch.optim.SGD(model.parameters(), lr=0.1), None),
            make_method=lambda model: L2(model, 0.1),
        )
        trainer.train()
        assert trainer.state.global_step == 1
        trained.append(weights(model))
    assert_close(trained[1], trained[0])


def test_several_passes_without_weight_gradients(tmp_path):
    model, before = make_bert(), weights(make_bert())
    trainer = MethodTrainer(
        model,
        arguments(tmp_path, gradient_accumulation_steps=2),
        train_dataset=DATA,
        make_method=lambda model: PGD(model, "bert.embeddings.word_embeddings", epsilon=EPSILON),
    )
    trainer.train()
    assert all(torch.isfinite(weight).all() for weight in weights(model).values())
    assert any((weight != before[name]).any() for name, weight in weights(model).items())
    assert set(trainer.method.last.perturbations) == {"bert.embeddings.word_embeddings"}


def test_a_model_made_again_gets_a_method_of_its_own(tmp_path):
    trainer = MethodTrainer(
        model_init=lambda: make_bert(),  # the Trainer hands `trial` to what takes an argument
        args=arguments(tmp_path, max_steps=1),
        train_dataset=DATA,
        make_method=lambda model: DropAttack(model, weights=("classifier.weight",)),
    )
    first = trainer.method
    assert first.model is trainer.model
    trainer.train()
    assert trainer.method is not first
    assert trainer.method.model is trainer.model


def test_a_resumed_run_ends_with_the_same_weights(tmp_path):
    # The plain gradient at every other step, counted through the checkpoint of the third.
    def make_method(model):
        return Scheduled(model, FGM(model, "bert.embeddings.word_embeddings", epsilon=EPSILON), every=2)

    options = arguments(tmp_path, save_strategy="steps", save_steps=3)
    straight = MethodTrainer(make_bert(), options, train_dataset=DATA, make_method=make_method)
    straight.train()
    resumed = MethodTrainer(make_bert(), options, train_dataset=DATA, make_method=make_method)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert_close(weights(resumed.model), weights(straight.model), rtol=0, atol=0)
    assert resumed.method.state_dict()["count"] == 5


def test_replays_are_refused(tmp_path):
    with pytest.raises(ValueError, match="FreeAT makes 3 optimizer steps a batch, but the Trainer makes one"):
        MethodTrainer(
            make_bert(), arguments(tmp_path), make_method=lambda model: FreeAT(model, "bert.embeddings.word_embeddings")
        )


def test_a_method_must_be_made(tmp_path):
    with pytest.raises(TypeError, match="expected a method for the Trainer, got NoneType"):
        MethodTrainer(make_bert(), arguments(tmp_path), make_method=lambda model: None)


def first_step(trainer):
    """Arguments of ``training_step``, as the training loop would hand them over."""
    trainer.current_gradient_accumulation_steps = 1
    return trainer.model, DATA[0]


@pytest.mark.parametrize("kind", [DistributedType.FSDP, DistributedType.DEEPSPEED])
def test_sharded_models_are_refused(kind, tmp_path, monkeypatch):
    trainer = MethodTrainer(make_bert(), arguments(tmp_path), make_method=Standard)
    monkeypatch.setattr(type(trainer.accelerator), "distributed_type", kind)
    with pytest.raises(ValueError, match=f"got {kind.value} with parts of them; use data-parallel training"):
        trainer.training_step(*first_step(trainer))


def test_copies_of_the_model_are_refused(tmp_path):
    trainer = MethodTrainer(make_bert(), arguments(tmp_path), make_method=Standard)
    model, inputs = first_step(trainer)
    with pytest.raises(ValueError, match=r"nn\.DataParallel .* start one process for each device"):
        trainer.training_step(nn.DataParallel(model), inputs)


def test_optimizers_that_step_in_the_backward_pass_are_refused(tmp_path):
    trainer = MethodTrainer(make_bert(), arguments(tmp_path, optim="lomo"), make_method=Standard)
    with pytest.raises(ValueError, match="optim='lomo' steps inside the backward pass"):
        trainer.training_step(*first_step(trainer))


def test_a_training_step_of_its_own_is_refused_and_the_accelerator_put_back(tmp_path, monkeypatch):
    trainer = MethodTrainer(make_bert(), arguments(tmp_path), make_method=Standard)
    monkeypatch.setattr(Trainer, "training_step", lambda self, model, inputs, num_items_in_batch=None: None)
    with pytest.raises(RuntimeError, match=r"call accelerator\.backward once, it did 0 times"):
        trainer.training_step(*first_step(trainer))
    assert "backward" not in vars(trainer.accelerator)
