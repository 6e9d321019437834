"""A study: the runs that answer one question, from one TOML file, tuned, trained and compared."""

from dropattack.study.comparison import compare_results, table_of_studies
from dropattack.study.rows import Row, Setting
from dropattack.study.schedule import run_study, spoken
from dropattack.study.settings import Study
from dropattack.study.tables import chosen_trials, histories, results, status, time_left, trials, with_choices

__all__ = [
    "Row",
    "Setting",
    "Study",
    "chosen_trials",
    "compare_results",
    "histories",
    "results",
    "run_study",
    "spoken",
    "status",
    "table_of_studies",
    "time_left",
    "trials",
    "with_choices",
]
