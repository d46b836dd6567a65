"""How much computation an experiment gets: from a minute to the paper's 64k steps and five seeds.

`demo` runs all claims on digits in minutes. The other budgets run on CIFAR-10 or on other data of
its kind. The seeds that choose learning rates are never the seeds that verdicts rest on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, cast, get_args

from reslearn.paper.experiment import Budget, Experiment

BudgetName = Literal["smoke", "short", "medium", "full"]

_FIRST_CHOICE_SEED = 100

_DEMO_STEPS = (
    'schedule.duration="8 epochs"',
    'schedule.milestones=["4 epochs", "6 epochs"]',
    'evaluation.every="1 epochs"',
    "evaluation.test_curve=true",
    'evaluation.snapshots=["0 steps", "1 epochs", "4 epochs"]',
)
# Runs that choose learning rates are half as long.
_DEMO_CHOICE_STEPS = (
    'schedule.duration="4 epochs"',
    'schedule.milestones=["2 epochs", "3 epochs"]',
)
_SMOKE_STEPS = (
    "data.size_px=16",
    "data.train_images=1000",
    'schedule.duration="60 steps"',
    'schedule.milestones=["30 steps", "45 steps"]',
    'evaluation.every="30 steps"',
    "evaluation.test_curve=true",
    'evaluation.snapshots=["0 steps", "20 steps"]',
    "train.batch_size=32",
    "train.read_every_steps=10",
)
_SHORT_STEPS = (
    'schedule.duration="4 epochs"',
    'schedule.milestones=["2 epochs", "3 epochs"]',
    "evaluation.test_curve=true",
    'evaluation.snapshots=["0 steps", "400 steps", "2 epochs"]',
)
_FULL_STEPS = (
    'evaluation.every="2 epochs"',
    "evaluation.test_curve=true",
    'evaluation.snapshots=["0 steps", "400 steps", "32000 steps"]',
)
# An image of 16 pixels takes a quarter of the arithmetic of 32 pixels. The crop moves by the same
# share of the image.
_SHORT_AT_16_PX = ("data.size_px=16", "data.pad_px=2", 'evaluation.every="1 epochs"')
_FULL_CURVES = ('evaluation.every="2 epochs"', "evaluation.test_curve=true")
_IMAGENET_CURVES = ("evaluation.test_curve=true",)
_IMAGENET_SMOKE = (
    "data.size_px=32",
    "train.batch_size=8",
    "train.read_every_steps=2",
    "schedule.kind=constant",
    'schedule.duration="4 steps"',
    'evaluation.every="2 steps"',
    "evaluation.test_curve=true",
    "evaluation.recompute_images=16",
)


def demo() -> Budget:
    """Return the budget of `reslearn demo`: all claims on digits, in five minutes on two cores."""
    return Budget(
        name="demo",
        data="digits",
        recipe="digits",
        overrides=_DEMO_STEPS,
        depths=(8, 20, 56),
        learning_rates=(0.005, 0.02, 0.08),
        choice_seeds=(_FIRST_CHOICE_SEED,),
        judge_seeds=(0, 1, 2, 3),
        choice_overrides=_DEMO_CHOICE_STEPS,
    )


def claims_budget(name: str, data: str, *, seeds: int | None = None) -> Budget:
    """Return the budget of the claims.

    Args:
        name: "smoke" tests that everything runs, in a minute or two. "short" takes hours on two
            cores. "full" is the paper's own: 64k steps, its depths, ResNet-110 with its warm-up,
            five seeds; hours of a GPU.
        seeds: How many seeds the verdicts rest on: 0, 1, ...

    Raises:
        ValueError: For another name, for "full" on digits, and for seeds that are reserved for
            choosing learning rates.
    """
    _check_seeds(seeds)
    is_digits = data == "digits"
    small_recipe = "digits" if is_digits else "cifar-short"
    if name == "smoke":
        return Budget(
            name="smoke",
            data=data,
            recipe=small_recipe,
            overrides=_smoke_steps(data),
            depths=(8, 20),
            learning_rates=(0.05, 0.1),
            choice_seeds=(_FIRST_CHOICE_SEED,),
            judge_seeds=tuple(range(seeds or 2)),
        )
    if name == "short":
        return Budget(
            name="short",
            data=data,
            recipe=small_recipe,
            overrides=_SHORT_STEPS,
            depths=(8, 14, 20, 32, 56),
            learning_rates=(0.03, 0.1),
            choice_seeds=(_FIRST_CHOICE_SEED,),
            judge_seeds=tuple(range(seeds or 3)),
        )
    if name == "full" and is_digits:
        # The recipe cifar-paper would mirror digits and shift 8 pixels by 4.
        raise ValueError(
            "--budget full is the paper's 64k steps on CIFAR: "
            "for digits take --budget smoke, --budget short or reslearn demo"
        )
    if name == "full":
        return Budget(
            name="full",
            data=data,
            recipe="cifar-paper",
            overrides=_FULL_STEPS,
            depths=(8, 14, 20, 32, 44, 56),
            learning_rates=(0.03, 0.1, 0.3),
            choice_seeds=(_FIRST_CHOICE_SEED, _FIRST_CHOICE_SEED + 1),
            judge_seeds=tuple(range(seeds or 5)),
            extra_residual_depths=(110,),
        )
    raise ValueError(f"--budget {name}: allowed are smoke, short and full")


def _check_seeds(seeds: int | None) -> None:
    if seeds is not None and seeds > _FIRST_CHOICE_SEED:
        raise ValueError(
            f"--seeds {seeds}: seeds from {_FIRST_CHOICE_SEED} on are reserved for choosing "
            f"learning rates, so at most {_FIRST_CHOICE_SEED} are allowed"
        )


def exhibit_budget(
    experiment: Experiment,
    name: str,
    data: str | None = None,
    *,
    seeds: int | None = None,
    depths: Sequence[int] = (),
) -> Budget:
    """Return the budget of a table or figure, with the paper's learning rate of 0.1.

    Args:
        name: "smoke" tests that everything runs. "short" is 8 epochs at 16 x 16 pixels (for digits:
            their own recipe), hours on two cores. "medium" is 8 epochs at 32 x 32 pixels, minutes
            of a GPU. "full" is the paper's 64k steps. ImageNet has no "medium".
        data: CIFAR-10 by default. If the paper's own data are ImageNet, there is no default, and
            nothing is trained.
        seeds: Number of seeds. By default 2, 3, 3 or 5, by budget; 1 for ImageNet, as in the paper.
        depths: Replace the depths of the experiment.

    Raises:
        ValueError: For another name, for options without an effect, and for depths or data that are
            impossible.
    """
    _check_options(experiment, data, seeds, depths)
    if experiment.data == "ImageNet":
        return _imagenet_budget(name, data, seeds)
    common_depths, extra_depths = _depths(experiment, name, depths)
    if name not in get_args(BudgetName):
        raise ValueError(f"--budget {name}: allowed are smoke, short, medium and full")
    data = data or ("" if experiment.data == "none" else "cifar10")
    is_digits = data == "digits"
    if name in ("medium", "full") and is_digits:
        length = "8 epochs" if name == "medium" else "the paper's 64k steps"
        raise ValueError(
            f"--budget {name} is {length} at 32 x 32 pixels: for digits take smoke or short"
        )
    overrides = {
        "smoke": _smoke_steps(data),
        "short": () if is_digits else _SHORT_AT_16_PX,
        "medium": (),
        "full": _FULL_CURVES,
    }
    recipe = "cifar-paper" if name == "full" else "cifar-short"
    num_seeds = {"smoke": 2, "short": 3, "medium": 3, "full": 5}[name]
    return Budget(
        name=cast(BudgetName, name),
        data=data,
        recipe="digits" if is_digits else recipe,
        overrides=overrides[name],
        depths=common_depths,
        learning_rates=(0.1,),
        choice_seeds=(),
        judge_seeds=tuple(range(seeds or num_seeds)),
        extra_residual_depths=extra_depths,
    )


def _check_options(
    experiment: Experiment, data: str | None, seeds: int | None, depths: Sequence[int]
) -> None:
    for depth in depths:
        if depth < 8 or depth % 6 != 2:
            raise ValueError(
                f"--depths {depth}: networks for CIFAR have 6n+2 layers: 8, 14, 20, 26, 32, ..."
            )
    nothing_trained = experiment.data == "none"
    options_without_effect = {
        "--depths": bool(depths) and not experiment.depths,
        "--data": data is not None and nothing_trained,
        "--seeds": seeds is not None and (nothing_trained or experiment.has_fixed_seeds),
    }
    for option, is_given in options_without_effect.items():
        if is_given:
            raise ValueError(f"{option} has no effect in {experiment.name}: leave it out")


def _depths(
    experiment: Experiment, name: str, depths: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the depths of both families, and the further depths of residual networks."""
    common = tuple(sorted(set(depths))) if depths else experiment.depths.get(name, ())
    extra = () if depths else experiment.extra_residual_depths.get(name, ())
    if common and len({*common, *extra}) < experiment.min_depths:
        raise ValueError(
            f"--depths {common[0]}: {experiment.name} compares at least {experiment.min_depths} "
            "depths, for example --depths 20,56"
        )
    if experiment.max_depths is not None and len(common) > experiment.max_depths:
        raise ValueError(
            f"--depths {','.join(map(str, common))}: {experiment.name} is about one network, "
            f"for example --depths {common[0]}"
        )
    return common, extra


def _imagenet_budget(name: str, data: str | None, seeds: int | None) -> Budget:
    """Return the budget of an experiment on ImageNet.

    "smoke" tests that everything runs, on any folder of images. "short" is the recipe
    imagenet-smoke. "full" is the paper's recipe.
    """
    if name not in ("smoke", "short", "full"):
        raise ValueError(f"--budget {name}: allowed are smoke, short and full")
    return Budget(
        name=cast(BudgetName, name),
        data=data or "",
        recipe="imagenet" if name == "full" else "imagenet-smoke",
        overrides=_IMAGENET_SMOKE if name == "smoke" else _IMAGENET_CURVES,
        depths=(),
        learning_rates=(0.1,),
        choice_seeds=(),
        judge_seeds=tuple(range(seeds or 1)),
    )


def _smoke_steps(data: str) -> tuple[str, ...]:
    """Return the settings of "smoke". Digits keep their own size and number of images."""
    is_digits = data == "digits"
    return tuple(step for step in _SMOKE_STEPS if not (is_digits and step.startswith("data.")))
