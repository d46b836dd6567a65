"""Recipes: shipped files, overrides, one-line errors, and hashes that depend on values only."""

import contextlib
import json
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from reslearn import recipes
from reslearn.recipes import Recipe, RecipeError, difference, from_dict, load, names, recipe_hash


def reordered(value: Any) -> Any:
    return (
        {key: reordered(value[key]) for key in reversed(value)}
        if isinstance(value, dict)
        else value
    )


@pytest.mark.parametrize("name", names())
def test_every_shipped_recipe_survives_a_json_round_trip(name: str) -> None:
    recipe = load(name)
    assert recipe.name == name
    values = json.loads(json.dumps(recipe.to_dict()))
    assert from_dict(values, source="recipe.json") == recipe
    assert recipe_hash(reordered(values)) == recipe_hash(values)
    assert difference(reordered(values), values) == []


@pytest.mark.parametrize("name", names())
def test_every_shipped_recipe_begins_with_its_command(name: str) -> None:
    lines = recipes.text(name).splitlines()
    assert lines[0].startswith("# reslearn ")
    assert name in lines[0]
    assert lines[1].startswith("# ")


def test_cifar_paper_has_the_values_of_the_paper() -> None:
    """The values come from Sec. 4.2."""
    recipe = load("cifar-paper")
    optimizer, schedule = recipe.optimizer, recipe.schedule
    assert (
        optimizer.lr,
        optimizer.momentum,
        optimizer.weight_decay,
        optimizer.nesterov,
        optimizer.decay,
    ) == (0.1, 0.9, 1e-4, False, "all")
    assert isinstance(schedule, recipes.Stepwise)
    assert (
        str(schedule.duration),
        [str(moment) for moment in schedule.milestones],
        schedule.factor,
    ) == (
        "64000 steps",
        ["32000 steps", "48000 steps"],
        0.1,
    )
    assert (recipe.train.batch_size, recipe.data.pad_px, recipe.data.flip, recipe.data.mean) == (
        128,
        4,
        True,
        "per-pixel",
    )
    assert recipe.data.validation_images == 0
    assert (
        load("cifar-paper", overrides=["data.validation_images=5000"]).data.validation_images
        == 5000
    )


def test_a_file_of_the_user(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[schedule]\nkind = "constant"\nduration = "3 steps"\n')
    recipe = load(str(file))
    assert recipe.name == "mine"
    assert recipe.model_copy(update={"name": "unnamed"}) == from_dict(
        {"schedule": {"kind": "constant", "duration": "3 steps"}}, source="here"
    )
    for content in (b"[schedule", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(RecipeError, match=r"mine\.toml: "):
            load(str(file))
    with pytest.raises(RecipeError, match=r"absent\.toml: cannot be read"):
        load(str(tmp_path / "absent.toml"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("seed=-1", ["seed = -1", "greater than or equal to 0"]),
        ("seed=true", ["seed = true", "a whole number is needed"]),
        ("train.batch_size=3.5", ["train.batch_size = 3.5", "a whole number is needed"]),
        ('optimizer.lr="0.1"', ['optimizer.lr = "0.1"', "a number is needed"]),
        ("optimizer.lr=0", ["optimizer.lr = 0", "greater than 0"]),
        ("optimizer.lr=nan", ["optimizer.lr = NaN", "finite"]),
        ("optimizer.lr=inf", ["optimizer.lr = Infinity", "finite"]),
        (
            "optimizer.learning_rate=1",
            ["unknown key optimizer.learning_rate = 1", "allowed here: decay, ", " lr, "],
        ),
        ("optimizer.momentun=1", ["unknown key optimizer.momentun = 1", "did you mean momentum?"]),
        ("optimiser.lr=1", ["unknown key optimiser", "did you mean optimizer?"]),
        ("model.shortcut=D", ['model.shortcut = "D"', "'A', 'B' or 'C'"]),
        ("data.flip=yes", ['data.flip = "yes"', "true or false"]),
        ("data=3", ["data = 3", "a table of keys"]),
        ("data.name=3", ["data.name = 3", "a text is needed"]),
        ("schedule=3", ["schedule = 3", "a table of keys"]),
        ("schedule.duration=20", ["schedule.duration = 20", '"64000 steps" or "20 epochs"']),
        ("schedule.duration=0 steps", ['schedule.duration = "0 steps"', "more than 0"]),
        ("schedule.duration=1.5 steps", ['schedule.duration = "1.5 steps"', "whole steps"]),
        ("schedule.duration=-3 epochs", ['schedule.duration = "-3 epochs"', '"20 epochs"']),
        (f"schedule.duration={'9' * 400} steps", ["at most 1,000,000,000"]),
        (
            "schedule.kind=linear",
            ['schedule.kind = "linear"', "constant, step, triangular, cosine"],
        ),
        ("schedule.rise=0.1", ["unknown key schedule.rise = 0.1", "milestones"]),
        (
            'schedule.milestones=["4 epochs", "3 epochs"]',
            [
                'schedule.milestones = ["4 epochs", "3 epochs"]',
                "each must be later than the one before it",
            ],
        ),
        (
            'schedule.milestones=["9 steps", "1 epochs", "9 steps"]',
            ["each must be later than the one before it"],
        ),
        (
            'schedule.milestones=["0 epochs", "1 epochs"]',
            ['schedule.milestones.0 = "0 epochs"', "more than 0"],
        ),
        (
            'schedule.milestones="3 epochs"',
            ['schedule.milestones = "3 epochs"', "a list is needed"],
        ),
        ("train.ema=1", ["train.ema = 1", "less than 1"]),
        ("train.accumulate=3", ["batch_size = 32", "accumulate = 3", "equal parts"]),
        ("optimizer.name=muon", ["filter_lr", '"muon"']),
        ("optimizer.nesterov=1", ["optimizer.nesterov = 1", "true or false"]),
    ],
)
def test_wrong_values_are_refused_in_one_line(override: str, words: list[str]) -> None:
    with pytest.raises(RecipeError) as refused:
        load("digits", overrides=["seed=0", override])
    line = str(refused.value)
    assert line.startswith("recipe digits: ")
    assert "\n" not in line
    assert [word for word in words if word not in line] == []


def test_errors_name_the_flag_that_the_value_came_from() -> None:
    with pytest.raises(RecipeError, match=r"\(from --set optimizer\.lr=-2\)$"):
        load("digits", overrides=["optimizer.lr=1", "seed=1", "optimizer.lr=-2"])
    with pytest.raises(RecipeError, match=r"^recipe\.json: optimizer\.lr = -2: [^()]*$"):
        from_dict(
            {**load("digits").to_dict(), "optimizer": {"lr": -2}, "overrides": ["optimizer.lr=-2"]},
            source="recipe.json",
        )


@pytest.mark.parametrize("override", ["x", "=3", "optimizer.lr.x=3", " =1"])
def test_malformed_overrides_are_refused(override: str) -> None:
    with pytest.raises(RecipeError, match=r"^--set "):
        load("digits", overrides=[override])


def test_unknown_recipes_get_a_hint() -> None:
    with pytest.raises(
        RecipeError, match=r"no recipe 'digitz', did you mean 'digits'\? there are .*cifar-paper"
    ):
        load("digitz")
    with pytest.raises(RecipeError, match=r"no recipe '': there are "):
        load("")


@pytest.mark.parametrize(
    "missing", [{}, {"schedule": {"kind": "constant"}}, {"schedule": {"duration": "3 steps"}}]
)
def test_the_error_names_a_missing_key(missing: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match=r"^here: schedule(\.\w+)? is missing"):
        from_dict(missing, source="here")


def test_overrides_are_applied_in_order_and_recorded() -> None:
    overrides = [
        "optimizer.lr=0.3",
        "optimizer.lr=0.2",
        "model.name=resnet56",
        "data.flip=True",
        "model.shortcut=none",
        "data.mean=none",
    ]
    recipe = load("digits", overrides=overrides)
    assert (recipe.optimizer.lr, recipe.model.name, recipe.data.flip) == (0.2, "resnet56", True)
    assert (recipe.model.shortcut, recipe.data.mean) == (None, "none")
    assert recipe.overrides == tuple(overrides)


def test_another_kind_of_schedule_drops_the_keys_of_the_old_kind() -> None:
    recipe = load("digits", overrides=["schedule.kind=cosine", "schedule.rise=0.1"])
    assert recipe.schedule == recipes.Cosine(
        kind="cosine", duration=recipes.Length(20, "epochs"), rise=0.1
    )


@pytest.mark.parametrize(
    ("overrides", "other_overrides"),
    [
        (["optimizer.lr=0.2"], ["optimizer.lr=0.5", "optimizer.lr = 2e-1"]),
        (["optimizer.lr=1"], ["optimizer.lr=1.0"]),
        (["schedule.duration=20 epochs"], ['schedule.duration="20.0 epochs"']),
        (["schedule.duration=1 epoch"], ["schedule.duration=1 epochs"]),
        (["model.name=resnet20"], ['model.name="resnet20"']),
        (["model.num_classes=10", "model.in_channels=1"], []),
        (["seed=0"], []),
    ],
)
def test_the_hash_does_not_depend_on_wording(
    overrides: list[str], other_overrides: list[str]
) -> None:
    first = load("digits", overrides=overrides).to_dict()
    second = load("digits", overrides=other_overrides).to_dict()
    assert recipe_hash(first) == recipe_hash(second)
    assert difference(first, second) == []


@pytest.mark.parametrize(
    "override",
    [
        "seed=1",
        "optimizer.lr=0.2",
        "schedule.factor=0.2",
        "train.ema=0.9",
        "evaluation.test_curve=true",
    ],
)
def test_the_hash_and_the_difference_depend_on_values(override: str) -> None:
    default, changed = load("digits").to_dict(), load("digits", overrides=[override]).to_dict()
    assert recipe_hash(default) != recipe_hash(changed)
    assert len(recipe_hash(default)) == 12
    (line,) = difference(default, changed)
    key, _, value = override.partition("=")
    assert line.startswith(f"{key}: ")
    assert line.endswith(f" -> {value}")
    assert recipe_hash(default, without=[key]) == recipe_hash(changed, without=[key])


@pytest.mark.parametrize("written", ["color", "colour"])
@pytest.mark.parametrize("overridden", ["color", "colour"])
def test_both_spellings_of_color_are_one_key(tmp_path: Path, written: str, overridden: str) -> None:
    """The key that is saved and hashed is `data.colour`, as in the committed runs."""
    file = tmp_path / "mine.toml"
    shipped = recipes.text("imagenet")
    assert shipped.count("colour = 0.1") == 1
    file.write_text(shipped.replace("colour = 0.1", f"{written} = 0.1"))
    recipe, shipped_recipe = load(str(file)).to_dict(), load("imagenet").to_dict()
    assert difference(recipe, shipped_recipe) == ['name: "mine" -> "imagenet"']
    changed = load(str(file), overrides=[f"data.{overridden}=0.3"]).to_dict()
    assert difference(recipe, changed) == ["data.colour: 0.1 -> 0.3"]
    values = {**recipe, "data": {**recipe["data"]}}
    values["data"][written] = values["data"].pop("colour")
    assert from_dict(values, source="here").to_dict() == recipe
    without = [f"data.{overridden}=none", "data.jitter=none"]
    assert load(str(file), overrides=without).data.colour is None
    with pytest.raises(RecipeError, match=rf"colour = -1: .* \(from --set data.{overridden}=-1\)"):
        load(str(file), overrides=[f"data.{overridden}=-1"])


def test_a_file_with_both_spellings_of_color_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    shipped = recipes.text("imagenet")
    file.write_text(shipped.replace("colour = 0.1", "colour = 0.1\ncolor = 0.2"))
    with pytest.raises(RecipeError, match=r"unknown key data\.color = 0\.2; did you mean colour"):
        load(str(file))


def test_recipes_are_frozen() -> None:
    with pytest.raises(ValidationError):
        load("digits").seed = 3  # type: ignore[misc]


@settings(max_examples=50)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*load("digits").to_dict(), "kind", "lr"]), inner)
        ),
    )
)
def test_any_json_value_is_a_recipe_or_a_recipe_error(value: Any) -> None:
    with contextlib.suppress(RecipeError):
        from_dict(value if isinstance(value, dict) else {"schedule": value}, source="given")


def test_the_json_schema_has_every_part() -> None:
    assert set(recipes.json_schema()["properties"]) == set(load("digits").to_dict())


def test_keys_that_were_added_later_change_no_old_hash() -> None:
    """The hash is from before the keys were added: old runs are found by it and can be resumed."""
    now = load("cifar-paper").to_dict()
    assert recipe_hash(now) == "ac14e9f8ce89"
    before = {
        **now,
        "model": {
            key: value
            for key, value in now["model"].items()
            if key not in ("stem", "groups", "width")
        },
    }
    before["model"]["stride_in"] = "1x1"
    assert difference(before, now) == []
    changed = load("cifar-paper", overrides=["model.width=2"]).to_dict()
    assert difference(before, changed) == ["model.width: null -> 2"]
    assert recipe_hash(changed) != recipe_hash(now)


def parts_of_a_recipe(part: type[BaseModel] = Recipe) -> set[type[BaseModel]]:
    """Return the classes of all tables of a recipe, at any depth."""
    parts = {part}
    for field in part.model_fields.values():
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                parts |= parts_of_a_recipe(kind)
    return parts


def test_every_key_of_a_recipe_has_a_description() -> None:
    missing = []
    for part in parts_of_a_recipe():
        assert part.__doc__, part
        for name, field in part.model_fields.items():
            if name != "kind" and not field.description:
                missing.append(f"{part.__name__}.{name}")
    assert missing == []
