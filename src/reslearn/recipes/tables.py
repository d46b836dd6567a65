"""The tables of a recipe whose keys do not depend on each other: model, init and resources."""

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, create_model

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
