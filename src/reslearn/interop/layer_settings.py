"""The settings of layers that a pickled module has: strides, padding, dilation and epsilon."""

from collections.abc import Iterator, Mapping

from torch import nn

from reslearn.interop.stored import LayerSettings
from reslearn.models import Network

_SECOND_STAGE = "stage2.0.body"  # the first stage may not stride


def settings_by_native_name(
    names: Mapping[str, str], settings: Mapping[str, LayerSettings]
) -> dict[str, LayerSettings]:
    """Return the settings of each layer of a network by its native name.

    Args:
        names: The native name of each tensor, to its name in the file.
        settings: The settings in the file by the layer's name in the file.
    """
    by_layer: dict[str, LayerSettings] = {}
    for native_name, name in names.items():
        layer = name.rpartition(".")[0]
        if layer in settings:
            by_layer[native_name.rpartition(".")[0]] = settings[layer]
    return by_layer


def stated_stride(settings: Mapping[str, LayerSettings]) -> str | None:
    """Return the convolution in which bottlenecks stride; None if the settings do not say it."""
    for convolution, stride_in in (("conv1", "1x1"), ("conv2", "3x3")):
        if settings.get(f"{_SECOND_STAGE}.{convolution}", {}).get("stride") == (2, 2):
            return stride_in
    return None


def other_settings(
    net: Network, names: Mapping[str, str], settings: Mapping[str, LayerSettings]
) -> Iterator[str]:
    """Yield a sentence for each convolution whose settings are not those of the network.

    Args:
        names: As in `settings_by_native_name`.
        settings: Settings by native name.
    """
    for layer, layer_settings in settings.items():
        module = net.get_submodule(layer)
        for setting, value in layer_settings.items():
            if isinstance(module, nn.Conv2d) and getattr(module, setting, value) != value:
                yield (
                    f"{names[f'{layer}.weight']} has {setting} {value}, where {net.name} has "
                    f"{getattr(module, setting)}"
                )


def notes_on_epsilon(net: Network, settings: Mapping[str, LayerSettings]) -> Iterator[str]:
    """Yield a sentence if batch norms have another epsilon than those of the network."""
    for layer, layer_settings in settings.items():
        module, epsilon = net.get_submodule(layer), layer_settings.get("eps")
        if isinstance(module, nn.BatchNorm2d) and epsilon not in (None, module.eps):
            yield (
                f"its batch norms have epsilon {epsilon}, and those of the catalog have "
                f"{module.eps}: outputs differ slightly"
            )
            return
