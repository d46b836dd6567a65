"""The schema of a recipe: every value that decides the outcome of a training.

The defaults are the paper's: `Paper:` gives the source, `Deviates:` the difference. Where the paper
is silent, the default is the first choice of the field (docs/paper-map.md). Recipes are frozen.
"""

from typing import Any, Literal

from pydantic import AliasChoices, Field, model_validator

from reslearn.recipes.schedule import Duration, Length, Moment, Schedule
from reslearn.recipes.tables import Augmentation, Init, Model, Part, Resources


class Data(Part):
    """The images, and their preparation for the network (Sec. 4.2; with `jitter` Sec. 3.4)."""

    name: str = Field("cifar10", description="Name of a data set, or a folder of images.")
    size_px: int | None = Field(
        None,
        ge=2,
        le=1024,
        description="Side of the images for the network. None takes the size of the data set.",
    )
    validation_images: int = Field(
        0,
        ge=0,
        description="Training images that are held out for validation. "
        "Paper: 5,000 to choose the schedule, none for the final numbers.",
    )
    train_images: int | None = Field(
        None,
        ge=1,
        description="Number of training images, evenly spaced over their order. None takes all.",
    )
    sampling: Literal["uniform", "balanced"] = Field(
        "uniform",
        description="uniform: an epoch shows each training image once. balanced: an epoch shows "
        "all classes equally often, so images of rare classes repeat. Not with jitter.",
    )
    crop: bool = Field(True, description="Cut random crops out of the padded images.")
    pad_px: int = Field(4, ge=0, le=64, description="Padding on each side. Paper: 4 pixels.")
    flip: bool = Field(True, description="Mirror half of the training images.")
    mean: Literal["per-pixel", "per-channel", "imagenet", "none"] = Field(
        "per-pixel", description="The mean that is subtracted. Paper: per pixel."
    )
    std: Literal["scalar", "per-channel", "imagenet", "none"] = Field(
        "scalar",
        description="The standard deviation that pixels are divided by. "
        "Deviates: the paper names no scale; a single number keeps its geometry.",
    )
    padding: Literal["after-mean", "black"] = Field(
        "after-mean",
        description="Pad with zeros after the mean is subtracted, or with black before.",
    )
    jitter: tuple[int, int] | None = Field(
        None,
        description="Range of the length to which the shorter side of a picture is scaled, for "
        "crops of 224 px and in proportion for another size_px. Paper (Sec. 3.4): [256, 480]. "
        "Pictures stay on disk and keep their resolution; a crop of size_px replaces `crop` and "
        "`pad_px`. None: Sec. 4.2.",
    )
    # Hashes and committed runs rest on the spelling `colour`; `color` is accepted as well.
    colour: float | None = Field(
        None,
        gt=0,
        le=10,
        validation_alias=AliasChoices("colour", "color"),
        description="Strength of the color augmentation along the main directions of RGB; needs "
        "jitter. Paper: 0.1, as in AlexNet.",
    )

    store: Literal["auto", "memory", "disk"] = Field(
        "auto",
        description="Where the pictures are in a training with augment.crop_area. memory: decoded "
        "once. disk: decoded again in every epoch. auto: memory for sets of up to 2 GiB. Without "
        "crop_area, pictures are in memory; with jitter, on disk.",
    )

    @model_validator(mode="after")
    def _check_jitter(self) -> "Data":
        if self.jitter is not None and not 224 <= self.jitter[0] <= self.jitter[1] <= 2240:
            raise ValueError(
                f"jitter = {list(self.jitter)}: allowed are two lengths from 224 (the crop) to "
                "2240, the shorter one first"
            )
        if self.jitter is not None and self.size_px is None:
            raise ValueError("jitter needs size_px, the side of the crop (paper: 224)")
        if self.sampling == "balanced" and self.jitter is not None:
            raise ValueError('sampling = "balanced" cannot be combined with jitter')
        if self.colour is not None and self.jitter is None:
            raise ValueError(f"colour = {self.colour} needs jitter, such as jitter = [256, 480]")
        return self


class Optimizer(Part):
    """Stochastic gradient descent with momentum (Sec. 3.4), or Muon."""

    name: Literal["sgd", "muon"] = Field("sgd", description="The optimizer. Paper: SGD.")
    lr: float = Field(0.1, gt=0, description="Learning rate. Paper: 0.1.")
    filter_lr: float | None = Field(
        None,
        gt=0,
        description="Muon only: the step of convolutions, as a fraction of their norm.",
    )
    momentum: float = Field(0.9, ge=0, lt=1, description="Momentum. Paper: 0.9.")
    nesterov: bool = Field(False, description="Use Nesterov momentum.")
    weight_decay: float = Field(1e-4, ge=0, description="Weight decay. Paper: 1e-4.")
    decay: Literal["all", "weights"] = Field(
        "all",
        description="Parameters that decay: all, or the weights of convolutions and fc only.",
    )

    @model_validator(mode="after")
    def _check(self) -> "Optimizer":
        if (self.name == "muon") != (self.filter_lr is not None):
            raise ValueError('filter_lr is needed with name = "muon" and refused otherwise')
        if self.name == "muon" and (self.decay == "all" or not self.nesterov):
            raise ValueError('name = "muon" needs nesterov = true and decay = "weights"')
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov = true needs a momentum above 0")
        return self


class Train(Part):
    """One step of the training, its numerics, and how often it is recorded."""

    batch_size: int = Field(128, ge=1, description="Images in a batch. Paper: 128 on CIFAR.")
    accumulate: int = Field(
        1,
        ge=1,
        description="Equal parts of a batch that pass one after another. Batch norm sees one part "
        "(2: the two GPUs of the paper).",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="Label smoothing.")
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="balanced: the loss of an image is weighted by the inverse of the number of "
        "training images of its class, so that all classes have the same weight.",
    )
    ema: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Decay of an exponential average of the weights. The average is evaluated and "
        "saved. None: no average.",
    )
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="Type of the activations. auto: bf16 where the hardware is fast at it."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto", description="Use torch.compile. auto: where the run is long enough to pay for it."
    )
    sync_batch_norm: bool = Field(
        False,
        description="Compute batch-norm statistics over all processes. Paper: each GPU by itself.",
    )
    read_every_steps: int = Field(50, ge=1, description="Steps between two lines of metrics.jsonl.")
    checkpoint_every_seconds: float = Field(
        60.0, ge=0, description="Seconds between two checkpoints."
    )

    @model_validator(mode="after")
    def _check(self) -> "Train":
        if self.sync_batch_norm and self.compile == "on":
            raise ValueError(
                'sync_batch_norm = true cannot be compiled: use compile = "auto" or "off"'
            )
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"batch_size = {self.batch_size} cannot be cut into accumulate = "
                f"{self.accumulate} equal parts"
            )
        return self


class Evaluation(Part):
    """What is measured, and when. No decision ever reads the test set."""

    every: Duration = Field(
        Length(1, "epochs"), validate_default=True, description="Time between two validations."
    )
    test_curve: bool = Field(
        False,
        description="Record the test error during training, as in the paper's figures. Nothing "
        "reads it.",
    )
    snapshots: tuple[Moment, ...] = Field(
        (),
        description="Moments at which the network is saved as snapshots/step-*.safetensors, for "
        "analysis over time.",
    )
    recompute_images: int = Field(
        10_000,
        ge=0,
        description="Training images on which batch-norm statistics are recomputed to evaluate "
        "the training error. 0: do not recompute.",
    )
    train_images: int | None = Field(
        None,
        ge=1,
        description="Number of training images, evenly spaced, on which the final training error "
        "is computed. None takes all.",
    )
    early_stop: int | None = Field(
        None,
        ge=1,
        description="Stop after this many validations in a row without a lower validation error. "
        "None: train to the end of the schedule.",
    )
    best: bool = Field(
        False,
        description="Save and test the network with the lowest validation error. Paper, and "
        "default: the last one.",
    )
    batch_norm: Literal["moving", "exact"] = Field(
        "moving",
        description="Statistics of the final evaluation: moving averages, or recomputed exactly "
        "as the paper's authors did.",
    )


class Recipe(Part):
    """A complete run. `to_dict()` is the content of recipe.json."""

    name: str = Field("unnamed", description="Name of the recipe.")
    seed: int = Field(0, ge=0, lt=2**31, description="Seed of weights, order and augmentation.")
    model: Model = Field(Model(), description="The network.")
    data: Data = Field(Data(), description="The images and their preparation.")
    optimizer: Optimizer = Field(Optimizer(), description="The optimizer.")
    schedule: Schedule = Field(description="The learning rate over the training.")
    augment: Augmentation = Field(
        Augmentation(), description="Modern augmentation of training images. By default none."
    )
    train: Train = Field(Train(), description="One step of the training.")
    evaluation: Evaluation = Field(Evaluation(), description="What is measured, and when.")
    resources: Resources = Field(Resources(), description="What one run of a study occupies.")
    init: Init | None = Field(None, description="The weights to start from. None: new weights.")
    overrides: tuple[str, ...] = Field(
        (), description="The key=value overrides that were applied to the recipe."
    )

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        is_refused_by_muon = not self.model.normalize or self.schedule.warm_up_lr is not None
        if self.optimizer.name == "muon" and is_refused_by_muon:
            raise ValueError(
                'optimizer.name = "muon" needs model.normalize = true, and has no '
                "schedule.warm_up_lr"
            )
        if self.data.jitter is not None and not self.augment.is_off:
            raise ValueError(
                "data.jitter is the augmentation of Sec. 3.4, and [augment] is another: remove one"
            )
        if self.data.store != "auto" and self.augment.crop_area is None:
            raise ValueError(
                f'data.store = "{self.data.store}" needs augment.crop_area, as in [0.25, 1.0]'
            )
        if self.optimizer.name == "muon" and self.init and self.init.layer_lr_decay != 1:
            raise ValueError('init.layer_lr_decay needs optimizer.name = "sgd"')
        if self.train.sync_batch_norm and self.model.checkpoint_activations:
            raise ValueError(
                "train.sync_batch_norm and model.checkpoint_activations cannot be combined"
            )
        return self

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values with every default filled in."""
        return self.model_dump(mode="json")
