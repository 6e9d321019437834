"""What ``import dropattack`` offers, and what it does not load."""

import subprocess
import sys

import pytest

import dropattack

PUBLIC = [
    "ASAM",
    "AWP",
    "Compose",
    "Config",
    "Cost",
    "DATASETS",
    "DropAttack",
    "ExplicitPenalty",
    "FGM",
    "FGSM",
    "FreeAT",
    "FreeLB",
    "GSAM",
    "GradientNormPenalty",
    "L1",
    "L2",
    "LeNet5",
    "LookSAM",
    "METHODS",
    "MODELS",
    "Method",
    "Named",
    "PGD",
    "R3F",
    "RWP",
    "SAM",
    "SMART",
    "Scheduled",
    "SparseSAM",
    "Standard",
    "Study",
    "Training",
    "VAT",
    "build_method",
    "build_model",
    "compare_updates",
    "controls",
    "evaluate",
    "explicit_against_implicit",
    "find_site",
    "load_dataset",
    "load_run",
    "mask_effects",
    "perturbed",
    "reading_effects",
    "run_study",
    "site_named",
    "train",
    "update_of",
]


def test_table_of_contents():
    assert sorted(dropattack.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(dropattack, name) is not None


PLOTTING = ["matplotlib", "plotly", "seaborn"]
HEAVY = ["pandas", "scipy", "torch", "xarray", *PLOTTING]
LOADED = {
    "import": ("import dropattack", HEAVY),
    "methods and training": ("import dropattack; dropattack.DropAttack, dropattack.train", ["landscape", *PLOTTING]),
    "help": (
        "from typer.testing import CliRunner; from dropattack.cli import app; "
        "assert CliRunner().invoke(app, ['--help']).exit_code == 0",
        HEAVY,
    ),
}


@pytest.mark.parametrize("case", LOADED)
def test_what_is_not_loaded(case):
    code, unwanted = LOADED[case]
    code += f"; import sys; print(*(name for name in {unwanted!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
