"""How much is spent on the claims: `demo` on digits in minutes, and smoke, short and full on CIFAR-10 (or other data of its kind).

`full` is the paper's own: its 64k steps, its depths, ResNet-110 with its warm-up, five seeds. The seeds on which learning rates are
chosen are never those on which a claim is judged.
"""

from collections.abc import Sequence
from typing import Literal, cast, get_args

from reslearn.paper.claim import Budget

BudgetName = Literal["smoke", "short", "medium", "full"]

_DEMO_STEPS = (
    'schedule.duration="8 epochs"',
    'schedule.milestones=["4 epochs", "6 epochs"]',
    'evaluation.every="1 epochs"',
    "evaluation.test_curve=true",
    'evaluation.snapshots=["0 steps", "1 epochs", "4 epochs"]',
)
# Half as long to choose a learning rate by.
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


# Each a quarter of the arithmetic of 32 pixels, so that twice the epochs of _SHORT_STEPS cost half; the crop moves by the same share.
_SHORT_AT_16_PX = ("data.size_px=16", "data.pad_px=2", 'evaluation.every="1 epochs"')
_FULL_CURVES = ('evaluation.every="2 epochs"', "evaluation.test_curve=true")


def demo() -> Budget:
    """Digits: real scans of 8 x 8 pixels, 1,437 to train on; five minutes on two slow cores for all claims."""
    return Budget(
        name="demo",
        data="digits",
        recipe="digits",
        overrides=_DEMO_STEPS,
        depths=(8, 20, 56),
        learning_rates=(0.005, 0.02, 0.08),
        choice_seeds=(100,),
        judge_seeds=(0, 1, 2, 3),
        choice_overrides=_DEMO_CHOICE_STEPS,
    )


def paper_budget(name: str, data: str, *, seeds: int | None = None) -> Budget:
    """Smoke: does it run, in a minute or two. Short: hours on two cores. Full: the paper's, hours of a GPU. `seeds` to judge on: 0, 1, ...

    ValueError for another name, for the full budget on digits, and for seeds that are to choose learning rates on.
    """
    if seeds is not None and seeds > 100:
        raise ValueError(
            f"--seeds {seeds}: seeds from 100 on are those to choose learning rates on"
        )
    digits = data == "digits"
    if name == "smoke":
        steps = tuple(step for step in _SMOKE_STEPS if not (digits and step.startswith("data.")))
        return Budget(
            name="smoke",
            data=data,
            recipe="digits" if digits else "cifar-short",
            overrides=steps,
            depths=(8, 20),
            learning_rates=(0.05, 0.1),
            choice_seeds=(100,),
            judge_seeds=tuple(range(seeds or 2)),
        )
    if name == "short":
        return Budget(
            name="short",
            data=data,
            recipe="digits" if digits else "cifar-short",
            overrides=_SHORT_STEPS,
            depths=(8, 14, 20, 32, 56),
            learning_rates=(0.03, 0.1),
            choice_seeds=(100,),
            judge_seeds=tuple(range(seeds or 3)),
        )
    if name == "full" and digits:
        # cifar-paper on them would mirror digits and shift 8 pixels by 4.
        raise ValueError(
            "--budget full is the paper's 64k steps on CIFAR: for digits take smoke, short or reslearn demo"
        )
    if name == "full":
        return Budget(
            name="full",
            data=data,
            recipe="cifar-paper",
            overrides=_FULL_STEPS,
            depths=(8, 14, 20, 32, 44, 56),
            learning_rates=(0.03, 0.1, 0.3),
            choice_seeds=(100, 101),
            judge_seeds=tuple(range(seeds or 5)),
            extra_residual_depths=(110,),
        )
    raise ValueError(f"--budget {name}: allowed are smoke, short and full")


def exhibit_budget(
    name: str,
    data: str,
    *,
    depths: Sequence[int],
    extra_residual_depths: Sequence[int] = (),
    seeds: int | None = None,
) -> Budget:
    """What a table or figure is made from: every net at the paper's one learning rate, 0.1, on seeds 0, 1, ...

    Smoke: does it run. Short: 8 epochs of 16 x 16 pixels (digits: the recipe of that name), hours on two cores. Medium: 8 epochs of
    the images as they are, minutes of a GPU. Full: the paper's 64k steps, five seeds. ValueError for another name, and for digits
    with the last two.
    """
    digits = data == "digits"
    if name not in get_args(BudgetName):
        raise ValueError(f"--budget {name}: allowed are smoke, short, medium and full")
    if name in ("medium", "full") and digits:
        meant = "8 epochs" if name == "medium" else "the paper's 64k steps"
        raise ValueError(
            f"--budget {name} is {meant} of 32 x 32 pixels: for digits take smoke or short"
        )
    overrides = {
        "smoke": tuple(step for step in _SMOKE_STEPS if not (digits and step.startswith("data."))),
        "short": () if digits else _SHORT_AT_16_PX,
        "medium": (),
        "full": _FULL_CURVES,
    }
    number = {"smoke": 2, "short": 3, "medium": 3, "full": 5}
    recipe = "digits" if digits else "cifar-paper" if name == "full" else "cifar-short"
    return Budget(
        name=cast(BudgetName, name),
        data=data,
        recipe=recipe,
        overrides=overrides[name],
        depths=tuple(depths),
        learning_rates=(0.1,),
        choice_seeds=(),
        judge_seeds=tuple(range(seeds or number[name])),
        extra_residual_depths=tuple(extra_residual_depths),
    )
