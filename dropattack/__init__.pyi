# methods: what replaces loss.backward()
from .methods import ASAM as ASAM
from .methods import AWP as AWP
from .methods import FGM as FGM
from .methods import FGSM as FGSM
from .methods import L1 as L1
from .methods import L2 as L2
from .methods import METHODS as METHODS
from .methods import PGD as PGD
from .methods import SAM as SAM
from .methods import Cost as Cost
from .methods import DropAttack as DropAttack
from .methods import FreeAT as FreeAT
from .methods import FreeLB as FreeLB
from .methods import GradientNormPenalty as GradientNormPenalty
from .methods import Method as Method
from .methods import Standard as Standard
from .methods import build_method as build_method

# where a perturbation is added
from .sites import find_site as find_site
from .sites import perturbed as perturbed

# data and networks
from .data import DATASETS as DATASETS
from .data import load_dataset as load_dataset
from .models import MODELS as MODELS
from .models import LeNet5 as LeNet5
from .models import build_model as build_model

# training runs
from .checkpoint import load_run as load_run
from .config import Config as Config
from .config import Named as Named
from .config import Training as Training
from .training import evaluate as evaluate
from .training import train as train
