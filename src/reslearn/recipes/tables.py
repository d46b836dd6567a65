"""The tables of a recipe that do not depend on others: model, init, augment and resources."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

from reslearn.switches import SWITCHES, Switch


class Part(BaseModel):
    """A table of a recipe: frozen, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class _NamedModel(Part):
    name: str = Field("resnet20", description="Name of the network; see `reslearn list models`.")
    num_classes: int | None = Field(
        None, ge=2, description="Number of classes. None takes it from the data."
    )
    in_channels: int | None = Field(
        None, ge=1, description="Channels of the images. None takes them from the data."
    )


if TYPE_CHECKING:

    class Model(_NamedModel):
        """The network: arguments of `reslearn.models.build`, one field for each switch."""

        def __getattr__(self, switch: str) -> Any: ...

else:

    def _field(switch: Switch) -> tuple[Any, Any]:
        """Return the type and default of a recipe key from a row of the table of switches."""
        limits = {"ge": 1} if switch.values is int else {}
        kind = Literal[switch.values] if isinstance(switch.values, tuple) else switch.values
        kind = kind | None if switch.set_by_name else kind
        field = Field(switch.argument_default, description=switch.description, **limits)
        return kind, field

    Model = create_model(
        "Model",
        __base__=_NamedModel,
        __module__=__name__,
        __doc__="The network: arguments of `reslearn.models.build`, one field for each switch.",
        **{name: _field(switch) for name, switch in SWITCHES.items()},
    )


class Resources(Part):
    """What one run of a study occupies. The outcome and the hash do not depend on it."""

    cores: int = Field(1, ge=1, description="CPU cores of a run.")
    gpus: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Fraction of a GPU: 0.25 lets four runs share one. 0: no GPU is set aside.",
    )


class Init(Part):
    """The weights to start from."""

    source: str = Field(
        description='A file, "torchvision:resnet50", "timm:resnet50.a1_in1k" or an address.'
    )
    entry: str | None = Field(
        None,
        description="Table of weights in a file that has several, such as state_dict_ema.",
    )
    partial: bool = Field(False, description="Leave out tensors that do not match.")
    frozen_stages: int = Field(
        0,
        ge=0,
        description="Stages that keep their weights and batch-norm statistics, counted from the "
        "input. The stem is frozen with the first stage.",
    )
    layer_lr_decay: float = Field(
        1.0,
        gt=0,
        le=1,
        description="The learning rate of a stage is this factor times the rate of the next "
        "stage. The stem counts as a stage, and the head has the full rate. Needs SGD.",
    )


class Augmentation(Part):
    """Modern augmentation of training images. By default nothing is added to `[data]`."""

    crop_area: tuple[float, float] | None = Field(
        None,
        description="Range of the share of a picture's area that a random crop covers, such as "
        "[0.25, 1.0]. The crop has a ratio of sides from 3/4 to 4/3 and is resized to size_px "
        "(Szegedy et al. 2015). It replaces data.crop and data.pad_px. None: no such crop.",
    )
    policy: Literal["none", "trivial"] = Field(
        "none",
        description="trivial: one random change of color or geometry per image, of random "
        "strength (TrivialAugment, Mueller and Hutter 2021).",
    )
    erase: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Chance that a random rectangle of an image is replaced by the mean color "
        "(random erasing, Zhong et al. 2020).",
    )
    mixup: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Blend pairs of images and of their labels, with a weight from "
        "Beta(mixup, mixup) (Zhang et al. 2018; 0.2 is usual). None: no mixup.",
    )
    cutmix: float | None = Field(
        None,
        gt=0,
        le=100,
        description="Exchange a rectangle between pairs of images and mix their labels by area, "
        "with a share from Beta(cutmix, cutmix) (Yun et al. 2019; 1.0 is usual). With mixup too, "
        "each pair draws one of both. None: no CutMix.",
    )

    @field_validator("crop_area")
    @classmethod
    def _check_crop_area(cls, value: tuple[float, float] | None) -> tuple[float, float] | None:
        if value is not None and not 0.01 <= value[0] <= value[1] <= 1:
            raise ValueError("allowed are two shares of the area from 0.01 to 1, the smaller first")
        return value

    @property
    def is_off(self) -> bool:
        """Return whether nothing is added to the augmentation of `[data]`."""
        return self == Augmentation()
