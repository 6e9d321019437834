"""Each row of Tables 5-9 of the paper, as printed, names parameters, modules or the input of its network."""

import pytest

from dropattack.models import MODELS, build_model, site_named
from dropattack.models.paper_names import PAPER_NAMES
from dropattack.sites import find_parameters, find_site

# The networks that could be meant by each table (section 4.2 and the tables disagree), and what stands in brackets.
TABLES = {
    5: (
        ["lstm"],
        [
            ["Embedding"],
            ["Embedding", "Fc.w"],
            ["Lstm.hh.w"],
            ["Lstm.ih.w"],
            ["Embedding", "Lstm.hh.w"],
            ["Embedding", "Lstm.ih.w"],
            ["Embedding", "Lstm.hh.w", "Lstm.ih.w"],
        ],
    ),
    6: (
        ["bigru", "bilstm"],
        [
            ["Embedding"],
            ["Lstm.hh.w"],
            ["Lstm.ih.w"],
            ["Fc.w"],
            ["Embedding", "Lstm.hh.w"],
            ["Embedding", "Lstm.ih.w"],
            ["Embedding", "Lstm.hh.w", "Lstm.ih.w"],
        ],
    ),
    7: (
        ["bigru2", "bilstm2"],
        [
            ["Embedding"],
            ["Gru.hh.w"],
            ["Gru.ih.w"],
            ["Gru.hh.w", "Gru.ih.w"],
            ["Fc.w"],
            ["Embedding", "Gru.ih.w"],
            ["Embedding", "Gru.hh.w"],
            ["Embedding", "Gru.hh.w", "Gru.ih.w"],
            ["Embedding", "Gru.ih.w", "Gru.ih.w.reverse"],
        ],
    ),
    8: (
        ["lenet5"],
        [
            ["Input"],
            ["Conv.1.w"],
            ["Input", "Conv.1.w"],
            ["Input", "Conv.2.w"],
            ["Input", "Conv.1.b"],
            ["Conv.2.w"],
            ["Conv.1.b", "Conv.2.w"],
            ["Conv.1.w", "Conv.2.w"],
            ["Conv.1.w", "Fc.1"],
            ["Conv.2.w", "Fc.1"],
            ["Conv.2.w", "Fc.2"],
            ["Conv1.w", "Conv2.w"],  # and "fc1.w2": see below
        ],
    ),
    9: (
        ["vgg16"],
        [
            ["Input"],
            ["Conv.1.w"],
            ["Input", "Conv.1.w"],
            ["Input", "Conv.3.w"],
            ["Input", "Conv.5.w"],
            ["BatchNorm.1.w"],
            ["Conv.2.w"],
            ["Conv.6.w"],
            ["BatchNorm.8.w"],
            ["Conv.1.w", "BatchNorm.1.w"],
            ["Input", "Conv.1.w", "BatchNorm.1.w"],
        ],
    ),
}
CASES = [(table, model) for table, (models, _) in TABLES.items() for model in models]

# Shapes at the paper's dimensions: a GRU stacks 3 gates of 300, an LSTM 4.
SHAPES = {
    ("lstm", "Lstm.ih.w"): (1200, 300),
    ("lstm", "Lstm.hh.w"): (1200, 300),
    ("lstm", "Fc.w"): (2, 300),
    ("bigru", "Lstm.hh.w"): (900, 300),
    ("bigru", "Fc.w"): (2, 600),
    ("bilstm", "Lstm.hh.w"): (1200, 300),
    ("bigru2", "Gru.ih.w"): (900, 300),
    ("bigru2", "Gru.ih.w.reverse"): (900, 300),
    ("bilstm2", "Gru.ih.w"): (1200, 300),
    ("lenet5", "Conv.1.w"): (6, 1, 5, 5),
    ("lenet5", "Conv.1.b"): (6,),
    ("lenet5", "Fc.1"): (120, 400),
    ("lenet5", "Fc.2"): (84, 120),
    ("vgg16", "Conv.1.w"): (64, 3, 3, 3),
    ("vgg16", "Conv.3.w"): (128, 64, 3, 3),
    ("vgg16", "Conv.5.w"): (256, 128, 3, 3),
    ("vgg16", "Conv.6.w"): (256, 256, 3, 3),
    ("vgg16", "BatchNorm.1.w"): (64,),
    ("vgg16", "BatchNorm.8.w"): (512,),
}


@pytest.fixture(scope="module")
def networks():
    return {name: build_model(name, **({} if name in ("lenet5", "vgg16") else text(name))) for name in MODELS}


def text(name):
    return {"vocabulary": 10, "classes": 4 if name.endswith("2") else 2}


@pytest.mark.parametrize(("table", "name"), CASES)
def test_every_row_names_what_the_network_has(table, name, networks):
    model = networks[name]
    for row in TABLES[table][1]:
        for printed in row:
            site = site_named(name, printed)
            if printed in ("Input", "Embedding"):
                assert find_site(model, site).name == {"Input": "input", "Embedding": "embedding"}[printed]
            else:
                assert [found.name for found in find_parameters(model, [site])] == [site]


@pytest.mark.parametrize(("name", "printed"), SHAPES)
def test_shapes_are_those_of_the_paper(name, printed, networks):
    assert tuple(networks[name].get_parameter(site_named(name, printed)).shape) == SHAPES[name, printed]


@pytest.mark.parametrize("name", MODELS)
def test_every_known_name_names_something(name, networks):
    for printed in PAPER_NAMES[name]:
        find_site(networks[name], site_named(name, printed))


def test_every_network_has_names():
    assert list(PAPER_NAMES) == [name for name in MODELS if name in PAPER_NAMES]
    assert set(PAPER_NAMES) == set(MODELS)


def test_the_last_row_of_table_8_names_no_tensor():
    with pytest.raises(ValueError, match=r"Table 8 prints 'fc1.w2', but a linear layer has one weight"):
        site_named("lenet5", "fc1.w2")


@pytest.mark.parametrize(
    ("name", "printed", "message"),
    [
        ("lstm", "Lstm.ih", "unknown paper's name 'Lstm.ih'; lstm has Lstm.ih.w, Lstm.hh.w"),
        ("lstm", "Lstm.ih.w.reverse", "unknown paper's name 'Lstm.ih.w.reverse'; lstm has"),
        ("vgg16", "BatchNorm.14.w", "unknown paper's name 'BatchNorm.14.w'; vgg16 has BatchNorm"),
        ("lsmt", "Embedding", "unknown model 'lsmt'; known: lstm"),
    ],
)
def test_unknown_names_list_the_known_ones(name, printed, message):
    with pytest.raises(ValueError, match=message):
        site_named(name, printed)
