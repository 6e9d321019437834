# methods: what replaces loss.backward()
from .methods import ASAM as ASAM
from .methods import AWP as AWP
from .methods import FGM as FGM
from .methods import FGSM as FGSM
from .methods import GSAM as GSAM
from .methods import L1 as L1
from .methods import L2 as L2
from .methods import METHODS as METHODS
from .methods import PGD as PGD
from .methods import R3F as R3F
from .methods import RWP as RWP
from .methods import SAM as SAM
from .methods import SMART as SMART
from .methods import VAT as VAT
from .methods import Compose as Compose
from .methods import Cost as Cost
from .methods import DropAttack as DropAttack
from .methods import ExplicitPenalty as ExplicitPenalty
from .methods import FreeAT as FreeAT
from .methods import FreeLB as FreeLB
from .methods import GradientNormPenalty as GradientNormPenalty
from .methods import LookSAM as LookSAM
from .methods import Method as Method
from .methods import Scheduled as Scheduled
from .methods import SparseSAM as SparseSAM
from .methods import Standard as Standard
from .methods import build_method as build_method
from .methods import controls as controls

# where a perturbation is added
from .sites import find_site as find_site
from .sites import perturbed as perturbed

# what a step does, compared
from .updates import compare_updates as compare_updates
from .updates import explicit_against_implicit as explicit_against_implicit
from .updates import mask_effects as mask_effects
from .updates import reading_effects as reading_effects
from .updates import update_of as update_of

# data and networks
from .data import DATASETS as DATASETS
from .data import load_dataset as load_dataset
from .models import MODELS as MODELS
from .models import LeNet5 as LeNet5
from .models import build_model as build_model
from .models import site_named as site_named

# training runs
from .checkpoint import load_run as load_run
from .config import Config as Config
from .config import Named as Named
from .config import Training as Training
from .study import Study as Study
from .study import run_study as run_study
from .training import evaluate as evaluate
from .training import train as train
