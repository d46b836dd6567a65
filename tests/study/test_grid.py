"""Grids and study files: their runs, folders and commands, and the errors of wrong ones."""

from pathlib import Path

import pytest

from reslearn import recipes
from reslearn.recipes import RecipeError
from reslearn.study import Job, StudyError, grid, load_study, study_from, vary


def small(**changes: object) -> list[Job]:
    return grid(
        **{
            "models": ["plain20", "resnet20"],
            "seeds": [0, 1],
            "recipe": "digits",
            "folder": "out",
            **changes,
        }
    )  # type: ignore[arg-type]


def test_every_combination_has_its_own_folder() -> None:
    jobs = small(overrides=vary({"optimizer.lr": [0.1, 0.05], "train.batch_size": [16]}))
    assert [job.name for job in jobs[:3]] == [
        "plain20-lr0.1-seed0",
        "plain20-lr0.1-seed1",
        "plain20-lr0.05-seed0",
    ]
    assert len({job.folder for job in jobs}) == len(jobs) == 8
    assert all(job.recipe.train.batch_size == 16 for job in jobs)


@pytest.mark.parametrize("data", ["2015", "caf\u00e9", "\U0001f600", "a\x7fb", 'with "quotes"'])
def test_any_folder_name_can_be_the_data(data: str) -> None:
    assert {job.recipe.data.name for job in small(data=data)} == {data}


def test_a_folder_belongs_to_one_recipe() -> None:
    assert [job.folder for job in small()] == [job.folder for job in small()]
    assert not {job.folder for job in small()} & {
        job.folder for job in small(overrides=[["optimizer.lr=0.2"]])
    }
    job = small()[0]
    assert job.folder.name == f"plain20-seed0-{recipes.recipe_hash(job.recipe.to_dict())}"


def test_the_command_reproduces_the_recipe_of_the_job() -> None:
    job = small(
        overrides=[["optimizer.lr=0.2", "resources.cores=2"]],
        data="cifar10",
        arguments=["--device", "cpu"],
    )[3]
    assert job.arguments == (
        "train",
        "cifar10",
        "--model",
        "resnet20",
        "--recipe",
        "digits",
        "--seed",
        "1",
        "--set",
        "optimizer.lr=0.2",
        "--set",
        "resources.cores=2",
        "--out",
        str(job.folder),
        "--resume",
        "--threads",
        "2",
        "--device",
        "cpu",
    )
    reproduced = recipes.load(
        "digits",
        overrides=[
            "data.name=cifar10",
            "model.name=resnet20",
            "seed=1",
            "optimizer.lr=0.2",
            "resources.cores=2",
        ],
    )
    assert recipes.difference(reproduced.to_dict(), job.recipe.to_dict()) == []
    assert job.command.startswith("reslearn train cifar10 --model resnet20")


def test_the_caller_sets_the_cost() -> None:
    jobs = small(cost=lambda recipe: 20.0 if recipe.model.name == "plain20" else 30.0)
    assert {job.recipe.model.name: job.cost for job in jobs} == {"plain20": 20.0, "resnet20": 30.0}


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"models": []}, "models is empty"),
        ({"seeds": []}, "seeds is empty"),
        ({"seeds": [1, 1]}, "plain20-seed1 is in the grid twice"),
        ({"overrides": [["seed=3"]]}, "seed=3: seed is set by the argument seeds of the grid"),
    ],
)
def test_impossible_grids_are_refused(changes: dict[str, object], line: str) -> None:
    with pytest.raises(ValueError, match=line):
        small(**changes)


def test_errors_of_the_recipe_are_raised_before_any_run() -> None:
    with pytest.raises(RecipeError, match=r"optimizer.rate"):
        small(overrides=[["optimizer.rate=1"]])


def test_a_study_file_gives_jobs(tmp_path: Path) -> None:
    (tmp_path / "my-recipe.toml").write_text(recipes.text("digits"))
    file = tmp_path / "study.toml"
    file.write_text(
        'models = ["plain20", "resnet20"]\nseeds = 2\nrecipe = "my-recipe.toml"\n'
        'set = ["train.batch_size=16"]\n'
        '[vary]\n"optimizer.lr" = [0.1, 1]\n"schedule.duration" = ["3 epochs"]\n'
    )
    jobs = load_study(file).jobs(tmp_path / "out")
    assert len(jobs) == 8
    assert jobs[0].name == "plain20-lr0.1-seed0"
    assert jobs[0].arguments[5] == str(tmp_path / "my-recipe.toml")
    assert {job.recipe.optimizer.lr for job in jobs} == {0.1, 1.0}
    assert str(jobs[0].recipe.schedule.duration) == "3 epochs"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (
            {"modles": 1},
            "f: unknown key modles = 1; allowed are data, models, recipe, seeds, set, vary",
        ),
        (
            {"overrides": ["a=1"]},
            'f: unknown key overrides = ["a=1"]; '
            "allowed are data, models, recipe, seeds, set, vary",
        ),
        ({"seeds": 0}, "f: seeds = 0: at least one seed is needed"),
        ({"seeds": 10**12}, "f: seeds = 1000000000000: at most 10,000 seeds are allowed"),
        ({"seeds": [-1]}, "f: seeds.0 = -1: input should be greater than or equal to 0"),
        ({"seeds": "x"}, 'f: seeds = "x": a number of seeds or a list of seeds is needed'),
        ({"models": []}, "f: models = []: at least one is needed"),
        ({"models": "plain20"}, 'f: models = "plain20": a list is needed'),
        ({"recipe": 3}, "f: recipe = 3: a text is needed"),
        ({"set": ["a"]}, 'f: set.0 = "a": key=value is needed, as in "optimizer.lr=0.2"'),
        ({"vary": {"a": 1}}, "f: vary.a = 1: a list is needed"),
        ({"vary": {"a": []}}, "f: vary.a = []: at least one is needed"),
        ({"vary": {"a": [[1]]}}, "f: vary.a.0 = [1]: a number, a text or true/false is needed"),
    ],
)
def test_errors_of_a_study_file_name_key_value_and_allowed_values(
    changes: dict[str, object], line: str
) -> None:
    with pytest.raises(StudyError) as caught:
        study_from({"models": ["plain20"], "recipe": "digits", **changes}, source="f")
    assert str(caught.value) == line


def test_a_study_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match=r"absent.toml: cannot be read"):
        load_study(tmp_path / "absent.toml")
    (tmp_path / "bad.toml").write_text("models = [")
    with pytest.raises(StudyError, match=r"bad.toml: not TOML"):
        load_study(tmp_path / "bad.toml")
    (tmp_path / "empty.toml").write_text("")
    with pytest.raises(StudyError, match=r"models is missing; recipe is missing"):
        load_study(tmp_path / "empty.toml")
