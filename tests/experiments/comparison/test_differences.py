"""Which options differ, against the answer by hand."""

from lightning_cells.experiments.comparison.runs import ABSENT, differences


def test_only_what_differs_is_listed_by_its_dotted_name() -> None:
    first = {"seed_everything": 1, "model": {"class_path": "a.ULSTM", "init_args": {"lr": 0.01, "sizes": [1, 2]}}}
    second = {"seed_everything": 1, "model": {"class_path": "a.ULSTM", "init_args": {"lr": 0.003, "sizes": [1, 3]}}}
    assert differences([first, second]) == {"model.lr": ["0.01", "0.003"], "model.sizes": ["[1, 2]", "[1, 3]"]}


def test_an_option_that_others_do_not_have_differs() -> None:
    found = differences([{"model": {"lstm": True}}, {"model": {}}, {"model": {"lstm": None}}])
    assert found["model.lstm"] == ["true", ABSENT, "null"]


def test_what_belongs_to_one_call_is_left_out() -> None:
    def config(number: int) -> dict:
        name = f"run {number}"
        return {
            "ckpt_path": name,
            "output_dir": name,
            "trainer": {"logger": {"init_args": {"run_name": name}}, "logger_like": number},
            "results": {"folder": name},
        }

    assert differences([config(1), config(2)]) == {"trainer.logger_like": ["1", "2"]}


def test_objects_in_lists_are_compared_by_class_not_by_place() -> None:
    average = {"class_path": "lightning.EMA", "init_args": {"decay": 0.9}}
    stop = {"class_path": "lightning.Stop", "init_args": {"patience": 3}}
    slower = {"class_path": "lightning.EMA", "init_args": {"decay": 0.99}}
    found = differences([{"callbacks": [average, stop]}, {"callbacks": [stop, slower]}])
    assert found == {"callbacks.EMA.decay": ["0.9", "0.99"]}


def test_equal_configurations_have_no_difference() -> None:
    assert differences([{"a": {"b": 1}}, {"a": {"b": 1}}]) == {}
