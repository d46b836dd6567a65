"""Trained networks that come with the package, usable at once and without a network connection.

shipped/shipped.toml lists them by name, such as "resnet20". As a source of weights the name is
"reslearn:resnet20". The files are bundles in half precision, so a network and its preprocessing
stay together.
"""

import difflib
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path

from reslearn.interop.stored import WeightsError

PREFIX = "reslearn:"
_FOLDER = Path(str(resources.files("reslearn.interop") / "shipped"))


@dataclass(frozen=True, kw_only=True)
class ShippedNetwork:
    """The origin of a shipped network, and its measured error.

    Attributes:
        file: The bundle, a file name in the folder of shipped networks.
        data: The data set that the network was trained on.
        recipe: The recipe and the seed of the training.
        test_error_pct: Error of the file as shipped, in half precision, on all test images.
        test_images: The number of these images.
        processor: Where the network was trained.
        license: License of the weights.
    """

    file: str
    data: str
    recipe: str
    seed: int
    test_error_pct: float
    test_images: int
    processor: str
    license: str

    @property
    def path(self) -> Path:
        return _FOLDER / self.file

    def description(self) -> str:
        """Return origin, error and license as one line of text."""
        return (
            f"{self.data}, test error {self.test_error_pct:.2f} % on {self.test_images:,} images; "
            f"recipe {self.recipe}, seed {self.seed}; {self.license}"
        )


@cache
def shipped_networks() -> dict[str, ShippedNetwork]:
    """Return the networks that come with the package, by name."""
    table = tomllib.loads((_FOLDER / "shipped.toml").read_text(encoding="utf-8"))
    return {name: ShippedNetwork(**entry) for name, entry in table.items()}


def shipped_path(source: str) -> Path:
    """Return the bundle of a source such as "reslearn:resnet20".

    Raises:
        WeightsError: If no network of this name comes with the package.
    """
    name = source.removeprefix(PREFIX)
    networks = shipped_networks()
    if name not in networks:
        names = difflib.get_close_matches(name, networks, n=3, cutoff=0.3) or list(networks)
        listed = ", ".join(PREFIX + name for name in names) or "none yet"
        raise WeightsError(f"no network {source!r} comes with reslearn; there are: {listed}")
    return networks[name].path
