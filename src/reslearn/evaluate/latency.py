"""Latency of networks for one image, measured in turns so that the machine's load affects all."""

import statistics
import time
from collections.abc import Mapping

import torch
from torch import nn

_WARM_UP_ROUNDS = 3


@torch.inference_mode()
def latencies_ms(
    networks: Mapping[str, nn.Module],
    image_shape: tuple[int, int, int],
    *,
    num_rounds: int = 30,
    device: torch.device | str = "cpu",
) -> dict[str, float]:
    """Return the median time of a forward pass of one image, in milliseconds, for each network.

    In each round every network computes once.

    Args:
        networks: Networks by name. They are moved to `device` and put into evaluation mode.
        image_shape: (channels, height, width).
        num_rounds: Timed rounds; three rounds without timing come first.
    """
    image = torch.zeros(1, *image_shape, device=device)
    is_gpu = image.device.type == "cuda"
    seconds: dict[str, list[float]] = {name: [] for name in networks}
    for network in networks.values():
        network.to(device).eval()
    for _ in range(_WARM_UP_ROUNDS + num_rounds):
        for name, network in networks.items():
            start = time.perf_counter()
            network(image)
            if is_gpu:
                torch.cuda.synchronize(image.device)
            seconds[name].append(time.perf_counter() - start)
    return {
        name: 1000 * statistics.median(values[_WARM_UP_ROUNDS:]) for name, values in seconds.items()
    }
