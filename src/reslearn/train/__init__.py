"""Train networks: the loop, the step, the state that must survive, and runs of recipes."""

from reslearn.train.dry_run import Plan, plan
from reslearn.train.evaluate_run import evaluate_bundle, is_source, open_task, predict_task
from reslearn.train.learning_rate import LearningRate, WarmUp
from reslearn.train.loop import Interrupted, fit
from reslearn.train.run import train_recipe
from reslearn.train.setup import Machine, check_recipes
from reslearn.train.step import NonFiniteLossError, Reading

__all__ = [
    "Interrupted",
    "LearningRate",
    "Machine",
    "NonFiniteLossError",
    "Plan",
    "Reading",
    "WarmUp",
    "check_recipes",
    "evaluate_bundle",
    "fit",
    "is_source",
    "open_task",
    "plan",
    "predict_task",
    "train_recipe",
]
