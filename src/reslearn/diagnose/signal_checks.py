"""Screening of the signals at the start: do inputs stay different, and which units are dead?

The deviation between inputs is compared, not the root mean square. Biases carry the root mean
square through a network in which all inputs give the same outputs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from reslearn.diagnose.call_record import CallRecord, TorchCall, tensors_in
from reslearn.diagnose.findings import ScreeningFinding, joined, set_at
from reslearn.diagnose.initial_weights import Initializer, initializer_of
from reslearn.models.tracing import ACTIVATION_NAMES

SPREAD_LIMITS = (1e-4, 1e4)
"""Deviation between inputs in the last layer over the first layer. Outside, the signal has vanished
or exploded."""
DEAD_LAYER_SHARE = 0.95
"""A layer is dead if this share of its units is zero for every input."""
FEWEST_UNITS = 4
SATURATION = 5.0
"""From this root mean square of a layer's output on, tanh and sigmoid behind it saturate."""
_SATURATING = {"tanh", "sigmoid", "hardtanh", "hardsigmoid", "softsign", "logsigmoid"}


@dataclass(frozen=True, kw_only=True)
class DeadLayer:
    """The dead units behind one activation.

    Attributes:
        name: The module of the activation, or of the layer before it.
    """

    name: str
    num_dead: int
    num_units: int

    @property
    def share(self) -> float:
        """Dead units over all units."""
        return self.num_dead / self.num_units


def signal_findings(record: CallRecord, places: list[str]) -> list[ScreeningFinding]:
    """Find dead layers; without any, a signal that vanishes or explodes.

    Args:
        places: Where the user's code sets initial weights.
    """
    layers = [layer for layer in dead_layers(record) if layer.num_units >= FEWEST_UNITS]
    dead = [layer for layer in layers if layer.share >= DEAD_LAYER_SHARE]
    if dead:
        return [_dead_finding(dead, len(layers), initializer_of(record), places)]
    ratio = spread_ratio(record)
    low, high = SPREAD_LIMITS
    if ratio is None or low <= ratio <= high:
        return []
    return [_signal_finding(ratio, record, places)]


def spread_ratio(record: CallRecord) -> float | None:
    """Return the deviation between inputs in the last layer over that in the first layer.

    A last layer whose weights are zero on purpose is left out.

    Returns:
        None if the record is incomplete, for fewer than two layers, or for equal inputs.
    """
    responses = _responses(record)
    if not record.is_complete or len(responses) < 2:
        return None
    first, last = (spread(output, record.num_inputs) for output in (responses[0], responses[-1]))
    if math.isnan(first) or math.isnan(last) or first == 0:
        return None
    return last / first


def spread(output: object, num_inputs: int) -> float:
    """Return the standard deviation between inputs, as a root mean square over units.

    Args:
        output: A tensor whose first axis is the batch, or a tuple that begins with one.

    Returns:
        Infinity if a value is not finite. NaN if no axis is the batch.
    """
    tensor = next(tensors_in(output), None)
    if tensor is None or tensor.ndim == 0 or tensor.is_complex():
        return math.nan
    if tensor.shape[0] % num_inputs:
        if tensor.ndim < 2 or tensor.shape[1] != num_inputs:
            return math.nan
        tensor = tensor.transpose(0, 1)  # recurrent networks have the batch on the second axis
    values = tensor.detach().reshape(num_inputs, -1).double()
    if not bool(torch.isfinite(values).all()):
        return math.inf
    return float(values.var(0, unbiased=False).mean().sqrt())


def dead_layers(record: CallRecord) -> list[DeadLayer]:
    """Count the units behind each activation that are zero for all inputs, in order."""
    layers = []
    previous: TorchCall | None = None
    for call in record.calls:
        if call.is_layer:
            previous = call
        elif call.name in ACTIVATION_NAMES and previous is not None:
            output = call.output
            if isinstance(output, Tensor) and output.ndim > 1:
                axis = 1 if previous.is_convolution else output.ndim - 1
                is_alive = (output != 0).transpose(0, axis).flatten(1).any(1)
                layers.append(
                    DeadLayer(
                        name=call.module or previous.module or previous.name,
                        num_dead=int((~is_alive).sum()),
                        num_units=len(is_alive),
                    )
                )
    return layers


def _responses(record: CallRecord) -> list[object]:
    """Return the output of each layer, after its norm if one follows it directly."""
    responses: list[object] = []
    follows_layer = False
    for call in record.calls:
        is_norm = "norm" in call.name
        if call.is_layer:
            responses.append(call.output)
        elif is_norm and follows_layer:
            responses[-1] = call.output
        follows_layer = call.is_layer or (follows_layer and is_norm)
    layers = record.layers
    if layers and not any(bool(weight.any()) for weight in layers[-1].weights if weight.ndim > 1):
        responses.pop()
    return responses


def _largest_response(record: CallRecord) -> float:
    """Return the largest root mean square of a layer's output."""
    strengths = [0.0]
    for layer in record.layers:
        if isinstance(layer.output, Tensor):
            strengths.append(float(layer.output.double().square().mean().sqrt()))
    return max(strengths)


def _dead_finding(
    dead: list[DeadLayer], num_layers: int, initializer: Initializer, places: list[str]
) -> ScreeningFinding:
    worst = max(dead, key=lambda layer: layer.share)
    return ScreeningFinding(
        check="dead units",
        level="suspicion",
        causes=("dead units", "vanishing or exploding signal"),
        message=f"The units behind activation {worst.name} are zero for every input: no gradient "
        f"passes them. Draw the weights by {initializer.text} and set the biases to 0"
        f"{set_at(places)}.",
        evidence=f"{worst.num_dead} of {worst.num_units} units are dead there; {len(dead)} of "
        f"{num_layers} activations have {DEAD_LAYER_SHARE:.0%} dead units or more.",
        attribute=worst.name,
        location=places[0] if places else "",
    )


def _signal_finding(ratio: float, record: CallRecord, places: list[str]) -> ScreeningFinding:
    is_vanishing = ratio < 1
    names = {call.name for call in record.calls}
    word, size, limit = "explodes", "too large for this depth", SPREAD_LIMITS[1]
    if is_vanishing:
        word, size, limit = "vanishes", "too small for this depth", SPREAD_LIMITS[0]
        if names & _SATURATING and _largest_response(record) > SATURATION:
            size = f"so large that {min(names & _SATURATING)} saturates"
    origin = f"set at {joined(places)}" if places else "torch's default"
    return ScreeningFinding(
        check=f"signal that {word}",
        level="suspicion",
        causes=("vanishing or exploding signal", "dead units"),
        message=f"The signal {word} on its way through the layers: the initial weights "
        f"({origin}) are {size}. Draw them by {initializer_of(record).text} and set the "
        "biases to 0, or add a norm after each layer.",
        evidence=f"Between inputs, the outputs of the last of {len(record.layers)} layers deviate "
        f"{ratio:.2g} times as much as the outputs of the first; the limit is {limit:.0e}.",
        location=places[0] if places else "",
    )
