# The public face. `trecx/__init__.py` reads this list and imports a name when it is first used; type checkers and
# editors read it as it is.
from .analysis.choice import recommend as recommend
from .errors import TrecxError as TrecxError
from .evaluation.points import chosen_point as chosen_point
from .evaluation.trace import Trace as Trace
from .evaluation.trace import benefit_curve as benefit_curve
from .experiments.records import open_record as open_record
from .experiments.results import alike as alike
from .experiments.runs import Run as Run
from .experiments.runs import execute as execute
from .models.build import build as build
from .models.cascade import Cascade as Cascade
from .models.cost import measure as measure
from .models.heads import ExitHead as ExitHead
from .models.heads import FinalHead as FinalHead
from .models.methods import METHODS as METHODS
from .models.methods import FixedWeights as FixedWeights
from .models.methods import Method as Method
from .models.network import EarlyExitNetwork as EarlyExitNetwork
from .tasks import TASKS as TASKS
from .training.batches import Examples as Examples
from .training.loop import Training as Training
from .training.loop import train as train
from .training.recipes import RECIPES as RECIPES
from .training.recipes import Recipe as Recipe
from .training.recipes import get_recipe as get_recipe

__version__: str
