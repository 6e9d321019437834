from dropattack.paper import selection


def test_table_2_reports_the_best_setting_of_each_table():
    table = selection().set_index(["dataset", "measure"])
    assert table["equal"].all()
    assert table["in_table_2"].to_dict() == {
        ("imdb", "accuracy"): 90.36,
        ("pheme", "accuracy"): 87.15,
        ("pheme", "f1"): 81.31,
        ("ag-news", "accuracy"): 93.37,
        ("mnist", "accuracy"): 99.27,
        ("cifar10", "accuracy"): 86.09,
    }


def test_what_was_tried():
    table = selection().query("measure == 'accuracy'").set_index("dataset")
    assert table["settings_tried"].to_dict() == {"imdb": 11, "pheme": 11, "ag-news": 11, "mnist": 13, "cifar10": 12}
    assert table["targets_tried"].to_dict() == {"imdb": 7, "pheme": 7, "ag-news": 9, "mnist": 12, "cifar10": 11}
    assert table.loc["imdb", ["target", "attack_probability", "epsilon"]].tolist() == ["Embedding, Lstm.ih.w", 0.7, 7]
    assert table["place"].tolist() == [f"Table 2, Table {number}" for number in range(5, 10)]
