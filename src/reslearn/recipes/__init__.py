"""Recipes: a typed schema, the shipped TOML files, overrides, and lengths with units. No torch."""

from reslearn.recipes.load import (
    difference,
    flatten,
    from_dict,
    json_schema,
    load,
    recipe_hash,
    wrong_in,
)
from reslearn.recipes.schedule import (
    Constant,
    Cosine,
    Duration,
    Length,
    Plateau,
    Schedule,
    Stepwise,
    Triangular,
)
from reslearn.recipes.schema import Data, Evaluation, Optimizer, Recipe, Train
from reslearn.recipes.sources import RecipeError, names, text
from reslearn.recipes.tables import Augmentation, Init, Model, Resources

__all__ = [
    "Augmentation",
    "Constant",
    "Cosine",
    "Data",
    "Duration",
    "Evaluation",
    "Init",
    "Length",
    "Model",
    "Optimizer",
    "Plateau",
    "Recipe",
    "RecipeError",
    "Resources",
    "Schedule",
    "Stepwise",
    "Train",
    "Triangular",
    "difference",
    "flatten",
    "from_dict",
    "json_schema",
    "load",
    "names",
    "recipe_hash",
    "text",
    "wrong_in",
]
