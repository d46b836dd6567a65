"""Heat maps of predictions: the regions of a picture that support the class (Grad-CAM)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from reslearn.analysis import draw_heat_map, grad_cam
from reslearn.data.pictures import Pixels
from reslearn.deploy.open_model import OpenedModel

_MAX_NAME_LETTERS = 100


def draw_heat_maps(
    model: OpenedModel, crops: Sequence[Pixels], classes: Sequence[int]
) -> list[Pixels]:
    """Return each crop in gray, with its heat map in orange over it, uint8 [S, S, 3].

    Args:
        model: A model with a network: a run, a bundle or weights, but no exported file.
        crops: What the network sees of each picture, uint8 [S, S, C]; see `Predictor.pixels`.
        classes: Index of the class that each heat map explains.

    Raises:
        ValueError: If the model is an exported file.
    """
    network = model.require_network()
    pixels = torch.from_numpy(np.stack(crops))
    x = model.card.preprocess(pixels).to(model.device)
    heat_maps = grad_cam(network, x, torch.tensor(classes, device=model.device)).cpu()
    drawings: list[Pixels] = []
    for picture, heat in zip(pixels, heat_maps, strict=True):
        drawings.append(draw_heat_map(picture, heat))
    return drawings


class HeatMapFolder:
    """Write one PNG for each picture, named after the picture.

    Args:
        folder: It is created if needed.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._names: dict[str, int] = {}

    def write(self, name: str, drawing: Pixels) -> Path:
        """Write the heat map of a picture. A second picture of the same name gets a number.

        Args:
            name: Path or address of the picture.
        """
        stem = Path(name).stem[:_MAX_NAME_LETTERS] or "picture"
        count = self._names[stem] = self._names.get(stem, 0) + 1
        path = self._folder / (f"{stem}.png" if count == 1 else f"{stem}-{count}.png")
        Image.fromarray(drawing).save(path)
        return path
