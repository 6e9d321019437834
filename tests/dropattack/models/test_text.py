"""The networks for text: textbook equations, padding, packed sequences, derivatives of both modes and both orders."""

import copy

import pytest
import torch
from paper_networks import (
    CLASSES,
    LABELS,
    LENGTHS,
    RECURRENT,
    TEXT,
    TOKENS,
    VOCABULARY,
    logits_by_equations,
    text_network,
)
from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from torch.testing import assert_close

from dropattack.models import TextCNN
from dropattack.models.recurrent import Recurrent
from dropattack.models.textcnn import WordConv
from dropattack.models.tokens import trimmed


def gradients(model, tokens, labels=LABELS):
    loss = nn.functional.cross_entropy(model(tokens), labels)
    return dict(zip(dict(model.named_parameters()), torch.autograd.grad(loss, list(model.parameters())), strict=True))


@pytest.mark.parametrize("name", TEXT)
def test_logits_and_gradients_are_those_of_the_equations(name):
    model = text_network(name)
    parameters = {key: value.detach().requires_grad_() for key, value in model.named_parameters()}
    logits = logits_by_equations(name, parameters, TOKENS, LENGTHS)
    assert_close(model(TOKENS), logits)
    loss = nn.functional.cross_entropy(logits, LABELS)
    expected = dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))
    assert_close(gradients(model, TOKENS), expected)


@pytest.mark.parametrize("name", TEXT)
def test_in_single_precision_too(name):
    """In float32 the LSTMs run in oneDNN's fused kernel, and in float64 they do not."""
    model = text_network(name, torch.float32)
    double = copy.deepcopy(model).double()
    assert_close(model(TOKENS).double(), double(TOKENS), atol=1e-5, rtol=1e-5)
    exact = gradients(double, TOKENS)
    for key, gradient in gradients(model, TOKENS).items():
        assert_close(gradient.double(), exact[key], atol=1e-5, rtol=1e-5, msg=key)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", TEXT)
def test_wider_padding_changes_no_bit(name, dtype):
    model = text_network(name, dtype)
    wider = nn.functional.pad(TOKENS, (0, 30))
    assert_close(model(wider), model(TOKENS), atol=0, rtol=0)
    assert_close(gradients(model, wider), gradients(model, TOKENS), atol=0, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", TEXT)
def test_padding_up_to_a_longer_neighbor_changes_nothing(name, dtype):
    model = text_network(name, dtype)
    tolerance = {"atol": 1e-6, "rtol": 1e-6}
    together = model(TOKENS)
    alone = torch.cat([model(ids[:length].unsqueeze(0)) for ids, length in zip(TOKENS, LENGTHS, strict=True)])
    assert_close(together, alone, **tolerance)
    summed = dict.fromkeys(dict(model.named_parameters()), 0.0)
    for ids, length, label in zip(TOKENS, LENGTHS, LABELS, strict=True):
        for key, gradient in gradients(model, ids[:length].unsqueeze(0), label.unsqueeze(0)).items():
            summed[key] = summed[key] + gradient / len(TOKENS)
    assert_close(gradients(model, TOKENS), summed, **tolerance)


@pytest.mark.parametrize("name", TEXT)
def test_no_gradient_reaches_padding(name):
    model = text_network(name)
    caught = []
    model.embedding.register_forward_hook(lambda _, __, output: caught.append(output))
    loss = model(TOKENS).square().sum()
    (gradient,) = torch.autograd.grad(loss, caught)
    beyond = torch.arange(TOKENS.shape[1]) >= LENGTHS.unsqueeze(1)
    assert not gradient[beyond].any()
    assert gradient[~beyond].flatten(1).any(1)[[0, 3]].all()
    assert not gradients(model, TOKENS)["embedding.weight"][0].any()


@pytest.mark.parametrize("name", TEXT)
def test_moving_the_embedding_of_padding_moves_no_logit(name):
    model = text_network(name)
    logits = model(TOKENS)
    beyond = (torch.arange(TOKENS.shape[1]) >= LENGTHS.unsqueeze(1)).unsqueeze(2)
    model.embedding.register_forward_hook(lambda _, __, output: output + 7.0 * beyond)
    assert_close(model(TOKENS), logits, atol=0, rtol=0)


@pytest.mark.parametrize("name", TEXT)
def test_examples_do_not_mix(name):
    model = text_network(name)
    order = torch.tensor([3, 0, 4, 1, 2])
    assert_close(model(TOKENS[order]), model(TOKENS)[order])


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one direction", "two directions"])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_states_and_gradients_are_those_of_packed_sequences(cell, layers, bidirectional):
    torch.manual_seed(0)
    ours = Recurrent(cell, 4, 5, layers, bidirectional)
    plain = {"lstm": nn.LSTM, "gru": nn.GRU}[cell](4, 5, layers, batch_first=True, bidirectional=bidirectional)
    plain.load_state_dict(ours.state_dict())  # so the names are PyTorch's own
    words = torch.randn(5, 7, 4)
    results = []
    for module in (ours, plain):
        sequences = words.clone().requires_grad_()
        if module is ours:
            states = ours(sequences, LENGTHS)
            last = ours.last(states, LENGTHS)
        else:
            packed = pack_padded_sequence(sequences, LENGTHS, batch_first=True, enforce_sorted=False)
            output, ends = plain(packed)
            states, _ = pad_packed_sequence(output, batch_first=True)
            ends = ends[0] if cell == "lstm" else ends
            last = torch.cat([*ends[-2 if bidirectional else -1 :]], dim=1)
        states = states.masked_fill((torch.arange(7) >= LENGTHS.unsqueeze(1)).unsqueeze(2), 0.0)
        (states.sin().sum() + last.square().sum()).backward()
        results.append([states, last, sequences.grad, *(parameter.grad for parameter in module.parameters())])
    for one, other in zip(*results, strict=True):
        assert_close(one, other, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", RECURRENT)
def test_the_road_for_cudnn_gives_the_same(name, monkeypatch):
    model = text_network(name).eval()
    expected = model(TOKENS), gradients(model, TOKENS)
    monkeypatch.setattr(torch.backends.cudnn, "is_acceptable", lambda tensor: True)
    kernel, flags = getattr(torch, RECURRENT[name]), []

    def recorded(words, batch_sizes, start, weights, biases, layers, dropout, train, bidirectional):
        flags.append(train)
        return kernel(words, batch_sizes, start, weights, biases, layers, dropout, train, bidirectional)

    monkeypatch.setattr(torch, RECURRENT[name], recorded)
    assert_close((model(TOKENS), gradients(model, TOKENS)), expected)
    with torch.no_grad():
        assert_close(model(TOKENS), expected[0])
    # By this flag, cuDNN has a backward pass in evaluation mode too.
    assert flags == [True, True, False]


def test_reversed_sequences_are_read_from_their_last_word():
    torch.manual_seed(0)
    layer = Recurrent("gru", 2, 3, bidirectional=True)
    words, lengths = torch.randn(1, 6, 2), torch.tensor([4])
    states = layer(words, lengths)
    changed = words.clone()
    changed[0, 1] += 1.0
    moved = (layer(changed, lengths) != states)[0, :4]
    assert moved[:, :3].any(1).tolist() == [False, True, True, True]  # forward: from the changed word on
    assert moved[:, 3:].any(1).tolist() == [True, True, False, False]  # backward: up to it


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # PyTorch's own, at the first use of torch.func
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("name", TEXT)
def test_forward_mode_derivatives_and_second_ones(name, dtype):
    model = text_network(name, dtype).eval()
    parameters = {key: value.detach() for key, value in model.named_parameters()}
    generator = torch.Generator().manual_seed(2)
    direction = {key: torch.randn(value.shape, generator=generator).to(dtype) for key, value in parameters.items()}
    direction["embedding.weight"][0] = 0.0  # padding is a constant to reverse mode

    def loss(parameters):
        return nn.functional.cross_entropy(torch.func.functional_call(model, parameters, (TOKENS,)), LABELS)

    gradient = torch.func.grad(loss)(parameters)
    along = sum((gradient[key] * direction[key]).sum() for key in gradient)
    enabled = torch._C._get_mkldnn_enabled()
    assert_close(torch.func.jvp(loss, (parameters,), (direction,))[1], along, atol=1e-5, rtol=1e-5)
    _, product = torch.func.jvp(torch.func.grad(loss), (parameters,), (direction,))
    assert torch._C._get_mkldnn_enabled() == enabled

    own = list(model.parameters())
    first = torch.autograd.grad(nn.functional.cross_entropy(model(TOKENS), LABELS), own, create_graph=True)
    inner = sum((one * direction[key]).sum() for key, one in zip(parameters, first, strict=True))
    second = dict(zip(parameters, torch.autograd.grad(inner, own), strict=True))
    product["embedding.weight"][0] = second["embedding.weight"][0]
    assert_close(second, product, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", RECURRENT)
def test_second_derivatives_are_those_of_finite_differences(name):
    model = text_network(name, embedding_size=2, hidden=2)
    parameters = [model.get_submodule(RECURRENT[name]).weight_hh_l0, model.fc.weight]

    def logits(*_):
        return model(TOKENS[[0, 2]])

    assert torch.autograd.gradcheck(logits, parameters)
    assert torch.autograd.gradgradcheck(logits, parameters)


@pytest.mark.parametrize("name", TEXT)
def test_dropout_rests_in_evaluation_mode(name):
    model, plain = text_network(name, dropout=0.5), text_network(name)
    assert_close(model.eval()(TOKENS), plain(TOKENS), atol=0, rtol=0)
    model.train()
    torch.manual_seed(0)
    one = model(TOKENS)
    assert not torch.equal(one, model(TOKENS))
    torch.manual_seed(0)
    assert torch.equal(model(nn.functional.pad(TOKENS, (0, 9))), one)  # padding changes no mask either


@pytest.mark.parametrize("name", TEXT)
def test_dropout_stands_after_the_embedding_and_before_the_last_layer(name):
    model = text_network(name, dropout=0.5)
    seen = []
    model.dropout.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0].shape))
    model(TOKENS)
    assert seen == [(5, 7, 4), (5, model.fc.in_features)]


@pytest.mark.parametrize("name", TEXT)
def test_vectors_are_copied_and_trained(name):
    vectors = torch.arange(VOCABULARY * 4.0).reshape(VOCABULARY, 4) + 1
    before = vectors.clone()
    model = text_network(name, vectors=vectors, dtype=torch.float32)
    assert torch.equal(model.embedding.weight[1:], vectors[1:])
    assert not model.embedding.weight[0].any()
    with torch.no_grad():
        model.embedding.weight.add_(1.0)
    assert torch.equal(vectors, before)
    assert model.embedding.weight.requires_grad


@pytest.mark.parametrize("name", TEXT)
def test_vectors_of_another_shape_are_refused(name):
    with pytest.raises(ValueError, match=r"vectors: expected shape \(11, 4\) .*got \(11, 3\)"):
        text_network(name, vectors=torch.zeros(VOCABULARY, 3))


@pytest.mark.parametrize("name", TEXT)
def test_copies_and_saved_states_are_the_same_network(name):
    model = text_network(name)
    other = text_network(name, seed=1)
    other.load_state_dict(model.state_dict())
    for twin in (copy.deepcopy(model), other):
        assert_close(twin(TOKENS), model(TOKENS), atol=0, rtol=0)
    twin = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.mul_(2.0)  # the copy's kernels read the copy's weights
    assert not torch.equal(twin(TOKENS), model(TOKENS))
    assert_close(other(TOKENS), model(TOKENS), atol=0, rtol=0)


@pytest.mark.parametrize("name", TEXT)
def test_under_autocast(name):
    model = text_network(name, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(TOKENS)
    assert_close(logits.float(), model(TOKENS), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("name", ["bigru2", "lstm", "textcnn"])
def test_they_compile(name):
    model = text_network(name, torch.float32)
    compiled = torch.compile(model, backend="eager")
    for tokens in (TOKENS, nn.functional.pad(TOKENS, (0, 4)), TOKENS[:, :5]):
        assert_close(compiled(tokens), model(tokens))


@pytest.mark.parametrize("length", [1, 2, 5, 9])
def test_textcnn_reads_any_length(length):
    model = text_network("textcnn", widths=(2, 7))
    tokens = torch.randint(1, VOCABULARY, (3, length), generator=torch.Generator().manual_seed(0))
    expected = logits_by_equations("textcnn", dict(model.named_parameters()), tokens, [length] * 3, widths=(2, 7))
    assert_close(model(tokens), expected)


def test_a_word_convolution_is_a_convolution():
    torch.manual_seed(0)
    layer, plain = WordConv(4, 6, kernel_size=3), nn.Conv1d(4, 6, kernel_size=3)
    plain.load_state_dict(layer.state_dict())
    texts = torch.randn(2, 8, 4)
    assert_close(layer(texts), plain(texts.transpose(1, 2)).transpose(1, 2))


def test_lengths_are_the_places_of_the_last_words():
    tokens, lengths = trimmed(torch.tensor([[5, 0, 3, 0, 0], [0, 0, 0, 0, 0], [1, 1, 0, 0, 0]]))
    assert lengths.tolist() == [3, 1, 2]
    assert tokens.shape == (3, 3)


REFUSED = {
    "floats": (torch.zeros(2, 3), TypeError, "tokens: expected token ids of type torch.int64, got torch.float32"),
    "one row": (torch.ones(3, dtype=torch.int64), ValueError, r"expected shape \(n, length\), .* got \(3,\)"),
    "no column": (torch.ones(3, 0, dtype=torch.int64), ValueError, r"expected shape \(n, length\), .* got \(3, 0\)"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_batch_of_tokens_is_refused(case):
    tokens, error, message = REFUSED[case]
    with pytest.raises(error, match=message):
        text_network("lstm")(tokens)


WRONG = {
    "vocabulary": ({"vocabulary": 0}, "vocabulary: expected a whole number of at least 1, got 0"),
    "hidden": ({"hidden": 0}, "hidden: expected a whole number of at least 1, got 0"),
    "classes": ({"classes": 0}, "classes: expected a whole number of at least 1, got 0"),
    "dropout": ({"dropout": 1.5}, r"dropout: expected a probability in \[0, 1\], got 1.5"),
}


@pytest.mark.parametrize("case", WRONG)
@pytest.mark.parametrize("name", TEXT)
def test_wrong_sizes_are_refused(name, case):
    options, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        text_network(name, **options)


@pytest.mark.parametrize("widths", [[], [3, 3]], ids=str)
def test_widths_must_differ(widths):
    with pytest.raises(ValueError, match="widths: expected one or more different widths, got"):
        TextCNN(VOCABULARY, CLASSES, widths=widths)
