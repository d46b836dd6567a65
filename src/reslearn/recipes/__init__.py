"""What a run should be: a typed schema, TOML recipes that ship, overrides, durations with units. Knows nothing of torch."""

from reslearn.recipes.duration import Duration, Length
from reslearn.recipes.load import RecipeError, difference, flatten, from_dict, json_schema, load, names, recipe_hash, text, wrong_in
from reslearn.recipes.schema import (
    Constant,
    Cosine,
    Data,
    Evaluation,
    Model,
    Optimizer,
    Plateau,
    Recipe,
    Resources,
    Schedule,
    Stepwise,
    Train,
    Triangular,
)

__all__ = [
    "Constant", "Cosine", "Data", "Duration", "Evaluation", "Length", "Model", "Optimizer", "Plateau", "Recipe", "RecipeError",
    "Resources", "Schedule", "Stepwise", "Train", "Triangular", "difference", "flatten", "from_dict", "json_schema", "load", "names",
    "recipe_hash", "text", "wrong_in",
]  # fmt: skip
