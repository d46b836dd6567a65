"""One table has the switches of a network; build, recipes, interop and inspect read it."""

import json
import os
import subprocess
import sys
from typing import Any, get_args

import pytest

from reslearn import models, recipes
from reslearn.switches import SWITCHES, resolve


def test_one_row_adds_a_switch_everywhere() -> None:
    """A row is added before anything else is imported, as an edit of the table would do."""
    code = """
import json
from reslearn import switches

row = switches.Switch(
    name="dilated", values=bool, default=False, in_weights="hidden", description="For this test."
)
switches.SWITCHES["dilated"] = row

from typer.testing import CliRunner
from reslearn import interop, models, recipes
from reslearn.cli import app
from reslearn.interop.load import SWITCHES

default = recipes.load("digits")
changed = recipes.load("digits", overrides=["model.dilated=true"])
command = ["inspect", "resnet8", "--set", "model.dilated=true", "--json"]
print(json.dumps({
    "recipe": [default.model.dilated, changed.model.dilated],
    "hashes": [recipes.recipe_hash(recipe.to_dict()) for recipe in (default, changed)],
    "schema": recipes.json_schema()["$defs"]["Model"]["properties"]["dilated"]["description"],
    "build": models.build("resnet8", num_classes=2, dilated=True).spec["dilated"],
    "weights": "dilated" in SWITCHES,
    "inspect": json.loads(CliRunner().invoke(app, command).output)["model"]["dilated"],
}))
"""
    process = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    known = json.loads(process.stdout)
    hashes = known.pop("hashes")
    assert known == {
        "recipe": [False, True],
        "schema": "For this test.",
        "build": True,
        "weights": True,
        "inspect": True,
    }
    assert hashes[0] == recipes.recipe_hash(recipes.load("digits").to_dict()) != hashes[1]


def test_a_recipe_and_a_network_have_the_switches_of_the_table() -> None:
    recipe = recipes.load("digits").to_dict()
    arguments = ["name", "num_classes", "in_channels", *SWITCHES]
    assert list(recipe["model"]) == arguments
    assert list(models.build("resnet8", num_classes=2).spec) == arguments


@pytest.mark.parametrize("name", SWITCHES)
def test_a_recipe_has_the_types_and_defaults_of_the_table(name: str) -> None:
    switch, field = SWITCHES[name], recipes.Model.model_fields[name]
    assert field.default == switch.argument_default
    assert (type(None) in get_args(field.annotation)) == switch.set_by_name
    for wrong in ("no such value", -1, 0.5):
        with pytest.raises(recipes.RecipeError, match=f"model.{name} = "):
            recipes.load("digits", overrides=[f"model.{name}={json.dumps(wrong)}"])
        with pytest.raises(ValueError, match=f"{name}={wrong!r}: allowed are "):
            switch.check(wrong)


@pytest.mark.parametrize("switch", SWITCHES.values(), ids=lambda switch: switch.name)
def test_a_default_is_allowed(switch: Any) -> None:
    if switch.default is None:
        assert switch.set_by_name
    else:
        switch.check(switch.default)


def test_a_value_is_the_users_or_that_of_the_name_or_the_papers() -> None:
    by_name = {"stem": "deep", "groups": 32}
    values = resolve({"groups": 2, "stem": None}, by_name)
    assert (values["groups"], values["stem"], values["base_width"]) == (2, "deep", 64)


def test_an_unknown_switch_is_answered_with_the_nearest() -> None:
    with pytest.raises(ValueError, match="unknown switch 'shorcut': did you mean 'shortcut'"):
        models.build("resnet8", num_classes=2, shorcut="A")
    with pytest.raises(ValueError, match="unknown switch 'x': the switches are shortcut, zero_pad"):
        models.build("resnet8", num_classes=2, x=1)
