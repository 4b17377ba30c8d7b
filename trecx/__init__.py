"""T-RecX, replicated: early-exit models for tiny CNNs, their training, cost and comparison.

The public face, in the order of use; each name has a docstring of its own, and `help(trecx)` shows them all:

    TASKS, METHODS, RECIPES           what there is: dictionaries by name, of Task, Method and {task: Recipe}
    build                             a network of the replication: one task, one method (paper Fig. 1 to 6)
    EarlyExitNetwork                  a network of your own: backbone, ExitHead at a tap, FinalHead (Fig. 1)
    Cascade                           two networks in a row: the second sees only what the first is not sure of
    measure                           its parameters, MACs and FLOPs at every exit
    get_recipe, Training, Examples    what to minimise and how, FixedWeights of the losses among it; the samples
    train                             the training itself
    Trace, benefit_curve              its accuracy (0 to 1) and mean cost at every threshold (eq. 1 to 3)
    chosen_point                      the cheapest threshold that keeps an accuracy on validation samples
    Run, execute, open_record         a training with its data as one record on disk, and that record again
    alike, recommend                  the published records of a task, and what to run for a loss or a budget
    TrecxError                        what all of them raise on bad input: one sentence

Names are loaded when they are first used (see __init__.pyi), so that `import trecx` does not import PyTorch.
"""

import lazy_loader

__version__ = "1.0.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
