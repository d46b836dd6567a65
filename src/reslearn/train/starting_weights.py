"""Find weights for a training on photos: ImageNet weights, else a shipped network, else none.

ImageNet weights come from the cache, or are downloaded if their server answers within two seconds.
"""

import threading
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from reslearn.interop.pretrained import folder, published_weights
from reslearn.interop.shipped import PREFIX, shipped_networks

_NETWORKS = ("resnet18", "resnet34", "resnet50")
_ANSWER_SECONDS = 2.0
_MIN_DOWNLOAD_MINUTES = 10.0
"""With less time, 100 MB of weights are not downloaded: a slow line would take all of it."""


@dataclass(frozen=True, kw_only=True)
class StartingWeights:
    """Sources of weights by the name of the network, and the reason for them in one line."""

    sources: Mapping[str, str]
    reason: str


def find_weights(minutes: float) -> StartingWeights:
    """Return the weights that are available within a budget of `minutes`."""
    shipped = {name: PREFIX + name for name in shipped_networks() if name == "resnet20"}
    published = {name: f"torchvision:{name}" for name in _NETWORKS}
    cached = {name: source for name, source in published.items() if _is_cached(source)}
    if cached:
        return StartingWeights(sources=shipped | cached, reason="ImageNet weights are in the cache")
    missing = "ImageNet weights are not in the cache"
    if minutes < _MIN_DOWNLOAD_MINUTES:
        missing += f", and less than {_MIN_DOWNLOAD_MINUTES:g} minutes are too few to download them"
    elif _answers(published_weights()[published["resnet18"]]["address"]):
        reason = "ImageNet weights can be downloaded"
        return StartingWeights(sources=shipped | published, reason=reason)
    else:
        missing += ", and their server does not answer"
    return StartingWeights(sources=shipped, reason=missing)


def _is_cached(source: str) -> bool:
    address = str(published_weights()[source]["address"])
    return (folder() / address.rpartition("/")[2]).is_file()


def _answers(address: str) -> bool:
    """Return whether a server answers in time. A thread asks, because a name lookup may hang."""
    answers: list[int] = []

    def ask() -> None:
        request = urllib.request.Request(address, method="HEAD")
        try:
            with urllib.request.urlopen(request, timeout=_ANSWER_SECONDS) as response:
                answers.append(response.status)
        except (OSError, ValueError):
            return

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_ANSWER_SECONDS)
    return answers == [200]
