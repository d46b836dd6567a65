"""The loop, the step, the state that must survive, numerics; a recipe to a run folder."""

from reslearn.train.dry_run import Plan, plan
from reslearn.train.evaluate_run import evaluate_bundle, is_source
from reslearn.train.interrupt import Interrupted
from reslearn.train.loop import NonFiniteLossError, fit
from reslearn.train.meter import Reading
from reslearn.train.run import train_recipe
from reslearn.train.schedule import WarmUp
from reslearn.train.setup import check_recipes

__all__ = [
    "Interrupted",
    "NonFiniteLossError",
    "Plan",
    "Reading",
    "WarmUp",
    "check_recipes",
    "evaluate_bundle",
    "fit",
    "is_source",
    "plan",
    "train_recipe",
]
