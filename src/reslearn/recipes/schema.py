"""What a run should be: every value that decides the outcome of a training, typed, with the paper's value as the default.

Frozen and keyword-only; unknown keys are refused. The comments say `Paper:` where the paper gives the number and
`Deviates:` where we leave it. Where the paper is silent the default is the first choice of the field (docs/paper-map.md).
"""

import itertools
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from reslearn.recipes.duration import Duration, Length, Moment


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Model(_Part):
    """Arguments of `reslearn.models.build`; None takes the default of the family or what the data say."""

    name: str = "resnet20"
    num_classes: int | None = Field(None, ge=2)
    in_channels: int | None = Field(None, ge=1)
    shortcut: Literal["A", "B", "C"] | None = None
    zero_pad: Literal["append", "split"] = "append"
    subsample: Literal["slice", "average"] = "slice"
    stride_in: Literal["1x1", "3x3"] | None = (
        None  # Paper: the first 1x1, told by its FLOPs (Table 1).
    )
    init: Literal["he_fan_out", "he_fan_in", "normal_0.01"] = "he_fan_out"
    zero_init: bool = False
    normalize: bool = True
    checkpoint_activations: bool = False
    # Deviates: variants of the paper's networks that others have weights of; None: what the name stands for.
    stem: Literal["cifar", "imagenet", "deep"] | None = None
    groups: int | None = Field(None, ge=1)
    base_width: int | None = Field(None, ge=1)
    width: int | None = Field(None, ge=1)
    shortcut_pool: bool | None = None
    preactivation: bool | None = None


class Data(_Part):
    """Which images, and what is done to them before the network sees them (Sec. 4.2; with `jitter` Sec. 3.4)."""

    name: str = "cifar10"
    size_px: int | None = Field(None, ge=2, le=1024)
    validation_images: int = Field(
        0, ge=0
    )  # Paper: 5,000 to choose the schedule, none for the final numbers.
    train_images: int | None = Field(
        None, ge=1
    )  # so many, evenly spaced over their order; None takes all
    crop: bool = True
    pad_px: int = Field(4, ge=0, le=64)  # Paper: 4 pixels on each side.
    flip: bool = True
    mean: Literal["per-pixel", "per-channel", "imagenet", "none"] = (
        "per-pixel"  # Paper: per-pixel mean subtracted.
    )
    # Deviates: the paper names no scale; one number keeps its geometry.
    std: Literal["scalar", "per-channel", "imagenet", "none"] = "scalar"
    padding: Literal["after-mean", "black"] = "after-mean"
    # Paper (Sec. 3.4): [256, 480], between which the shorter side is drawn for crops of 224 px, in proportion for a size_px of another
    # size. Pictures stay on disk and keep their resolution; a crop of size_px replaces `crop` and `pad_px`. None: Sec. 4.2.
    jitter: tuple[int, int] | None = None
    colour: float | None = Field(
        None, gt=0, le=10
    )  # Paper: that of AlexNet, 0.1, along the main directions of RGB; goes with jitter

    @model_validator(mode="after")
    def _jitter_holds_a_crop(self) -> "Data":
        if self.jitter is not None and not 224 <= self.jitter[0] <= self.jitter[1] <= 2240:
            raise ValueError(
                f"jitter = {list(self.jitter)}: allowed are 224 (the crop) to 2240, the shorter length first"
            )
        if self.jitter is not None and self.size_px is None:
            raise ValueError("jitter needs size_px, the side of the crop (paper: 224)")
        if self.colour is not None and self.jitter is None:
            raise ValueError(f"colour = {self.colour} goes with jitter = [256, 480]")
        return self


class Optimizer(_Part):
    """Stochastic gradient descent with momentum (Sec. 3.4)."""

    name: Literal["sgd", "muon"] = "sgd"
    lr: float = Field(0.1, gt=0)
    filter_lr: float | None = Field(
        None, gt=0
    )  # muon: the step of convolutions, as a part of their norm
    momentum: float = Field(0.9, ge=0, lt=1)
    nesterov: bool = False
    weight_decay: float = Field(1e-4, ge=0)
    decay: Literal["all", "weights"] = "all"  # weights: convolutions and fc only

    @model_validator(mode="after")
    def _filter_lr_goes_with_muon(self) -> "Optimizer":
        if (self.name == "muon") != (self.filter_lr is not None):
            raise ValueError('filter_lr goes with name = "muon", and with no other')
        if self.name == "muon" and (self.decay == "all" or not self.nesterov):
            raise ValueError('name = "muon" is defined with nesterov = true and decay = "weights"')
        return self

    @model_validator(mode="after")
    def _nesterov_has_momentum(self) -> "Optimizer":
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov = true needs a momentum above 0")
        return self


class _Schedule(_Part):
    duration: Duration
    # Paper: 110 layers start at 0.01 until the training error is below 80 % (Sec. 4.2); None: no warm-up. With a duration it lasts that
    # long instead, whatever the error, as in re-implementations ("400 steps", "1 epochs").
    warm_up_lr: float | None = Field(None, gt=0)
    warm_up_error_pct: float = Field(80.0, gt=0, le=100)
    warm_up_duration: Duration | None = None

    @model_validator(mode="after")
    def _a_duration_is_of_a_warm_up(self) -> "_Schedule":
        if self.warm_up_duration is not None and self.warm_up_lr is None:
            raise ValueError(
                "schedule.warm_up_duration is without effect: there is no schedule.warm_up_lr"
            )
        return self


class Constant(_Schedule):
    """One learning rate throughout."""

    kind: Literal["constant"]


class Stepwise(_Schedule):
    """The learning rate is multiplied by `factor` at each milestone; each is later than the one before it."""

    kind: Literal["step"]
    milestones: tuple[Duration, ...] = Field(
        (Length(32000, "steps"), Length(48000, "steps")), validate_default=True
    )
    factor: float = Field(0.1, gt=0, lt=1)

    @field_validator("milestones")
    @classmethod
    def _milestones_rise(cls, milestones: tuple[Length, ...]) -> tuple[Length, ...]:
        for unit in (
            "steps",
            "epochs",
        ):  # how steps and epochs compare is known when the images are (train/setup.py)
            amounts = [milestone.amount for milestone in milestones if milestone.unit == unit]
            if any(later <= earlier for earlier, later in itertools.pairwise(amounts)):
                raise ValueError("each must be later than the one before it")
        return milestones


class Triangular(_Schedule):
    """Linear rise over the first `rise` of the training, then linear fall to `floor` times the peak."""

    kind: Literal["triangular"]
    rise: float = Field(0.2, ge=0, lt=1)
    floor: float = Field(0.0, ge=0, le=1)


class Cosine(_Schedule):
    """Linear rise over the first `rise` of the training, then half a cosine down to zero."""

    kind: Literal["cosine"]
    rise: float = Field(0.0, ge=0, lt=1)


class Plateau(_Schedule):
    """The learning rate is multiplied by `factor` when the validation error has not fallen for `patience` evaluations (Sec. 3.4).

    Paper: divided by 10 "when the error plateaus"; when that is, it does not say. Evaluations are those of evaluation.every.
    """

    kind: Literal["plateau"]
    factor: float = Field(0.1, gt=0, lt=1)
    patience: int = Field(5, ge=1)
    improvement_pct: float = Field(
        0.1, ge=0, le=100
    )  # a fall of the validation error by less than this counts as none
    max_drops: int = Field(
        3, ge=1
    )  # after so many the rate stays: the rest of `duration` would stand still


Schedule = Annotated[
    Constant | Stepwise | Triangular | Cosine | Plateau, Field(discriminator="kind")
]


class Train(_Part):
    """How a step is made of a batch, and how often the record is written."""

    batch_size: int = Field(128, ge=1)  # Paper: 128.
    accumulate: int = Field(
        1, ge=1
    )  # parts of a batch that pass one after another; batch norm sees one part (2: the paper's two GPUs)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    ema: float | None = Field(
        None, gt=0, lt=1
    )  # decay of an average of the weights, which is then what is evaluated and kept
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    compile: Literal["auto", "on", "off"] = "auto"
    sync_batch_norm: bool = (
        False  # on many processes: statistics over all of them. Paper: on each GPU by itself.
    )
    read_every_steps: int = Field(50, ge=1)
    checkpoint_every_seconds: float = Field(60.0, ge=0)

    @model_validator(mode="after")
    def _synchronised_or_compiled(self) -> "Train":
        if self.sync_batch_norm and self.compile == "on":
            raise ValueError(
                'sync_batch_norm = true is not compiled: compile = "auto" or "off" is needed'
            )
        return self

    @model_validator(mode="after")
    def _equal_parts(self) -> "Train":
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size = {self.batch_size} cannot be cut into accumulate = {self.accumulate} equal parts"
            )
        return self


class Evaluation(_Part):
    """What is measured, and when. No decision ever reads the test set."""

    every: Duration = Field(Length(1, "epochs"), validate_default=True)
    test_curve: bool = (
        False  # record the test error over training, as the paper's figures do; write-only
    )
    snapshots: tuple[
        Moment, ...
    ] = ()  # moments at which the network is kept as snapshots/step-*.safetensors, for analysis over time
    recompute_images: int = Field(
        10_000, ge=0
    )  # training images on which batch-norm statistics are recomputed to judge training; 0: not
    batch_norm: Literal["moving", "exact"] = (
        "moving"  # exact: statistics recomputed before the final evaluation (the authors' habit)
    )


class Resources(_Part):
    """What a run of a study occupies while it trains; the outcome does not depend on it, so the recipe's hash does not either."""

    cores: int = Field(1, ge=1)
    gpus: float = Field(
        0.0, ge=0, le=1
    )  # a share of one: 0.25 lets four runs at a time use it. 0, or no GPU there: none is set aside


class Init(_Part):
    """Weights to start from: a file, "torchvision:resnet50", "timm:resnet50.a1_in1k" or an address."""

    source: str
    entry: str | None = None  # which table of a file with several, such as state_dict_ema
    partial: bool = False  # go on where tensors do not match


class Recipe(_Part):
    """A run, whole. `to_dict()` is what recipe.json holds; `build(**recipe["model"])` rebuilds the network."""

    name: str = "unnamed"
    seed: int = Field(0, ge=0, lt=2**31)
    model: Model = Model()
    data: Data = Data()
    optimizer: Optimizer = Optimizer()
    schedule: Schedule
    train: Train = Train()
    evaluation: Evaluation = Evaluation()
    resources: Resources = Resources()
    init: Init | None = None
    overrides: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _muon_holds_norms(self) -> "Recipe":
        if self.optimizer.name == "muon" and (
            not self.model.normalize or self.schedule.warm_up_lr is not None
        ):
            raise ValueError(
                'optimizer.name = "muon" needs model.normalize = true, and knows no schedule.warm_up_lr'
            )
        return self

    @model_validator(mode="after")
    def _normalised_once(self) -> "Recipe":
        if self.train.sync_batch_norm and self.model.checkpoint_activations:
            raise ValueError(
                "train.sync_batch_norm and model.checkpoint_activations do not go together"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, every default filled in."""
        return self.model_dump(mode="json")
