"""Deployment: predict, export through a parity gate. One preprocessing from training to answers."""

from reslearn.deploy.model_card import ModelCard
from reslearn.deploy.open_model import OpenedModel, open_model
from reslearn.deploy.predictor import Prediction, Predictor
from reslearn.deploy.preprocess_graph import PixelsToProbabilities
from reslearn.interop.as_bundle import InputOptions

__all__ = [
    "InputOptions",
    "ModelCard",
    "OpenedModel",
    "PixelsToProbabilities",
    "Prediction",
    "Predictor",
    "open_model",
]
