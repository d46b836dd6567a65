"""Open a model for prediction: run folder, bundle, exported file, shipped network, or weights.

`open_model` returns the card of the model, an engine that computes, and the network where there is
one.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from reslearn.deploy.engines import InferenceEngine, is_exported, open_exported, torch_engine
from reslearn.deploy.model_card import ModelCard
from reslearn.deploy.preprocess_graph import PixelsToProbabilities
from reslearn.interop import Bundle, WeightsError, read_bundle
from reslearn.interop.as_bundle import NO_OPTIONS, InputOptions, as_bundle
from reslearn.interop.pretrained import has_name, hub_hint
from reslearn.interop.shipped import PREFIX, shipped_networks
from reslearn.models import Network
from reslearn.runs import RunError, RunFolder, check_weights


@dataclass(frozen=True, kw_only=True, eq=False)
class OpenedModel:
    """A model that is ready to compute.

    Attributes:
        source: The text that it was opened from.
        card: Classes, preprocessing, license and origin.
        engine: Computes probabilities of batches of `card.input_kind`.
        network: The network, if the model is not an exported file.
        device: Where the engine computes.
    """

    source: str
    card: ModelCard
    engine: InferenceEngine
    network: Network | None = None
    device: str = "cpu"

    def require_network(self) -> Network:
        """Return the network.

        Raises:
            ValueError: If the model is an exported file.
        """
        if self.network is None:
            raise ValueError(
                f"{self.source} is an exported file, and heat maps need the network: "
                "pass the run or the bundle"
            )
        return self.network


def open_model(
    source: Path | str,
    options: InputOptions = NO_OPTIONS,
    *,
    device: str = "cpu",
    threads: int | None = None,
) -> OpenedModel:
    """Open a model for prediction.

    Args:
        source: A run folder, a bundle, a file of `reslearn export`, a name such as
            "reslearn:resnet20" or "torchvision:resnet50", weights of another project, or a folder
            of `save_pretrained`.
        options: Preprocessing and classes, for weights of other projects.
        device: Where PyTorch computes. Exported files compute on the CPU.
        threads: Threads of an exported file. None: all cores. PyTorch has its own setting.

    Raises:
        RunError: If the run is incomplete, was changed, or has no weights.
        BundleError: If a bundle is damaged.
        WeightsError: If a file cannot be used, or its preprocessing is not known.
    """
    path = Path(source)
    if is_exported(path):
        options.refuse_for(source)
        card, engine = open_exported(path, threads=threads)
        return OpenedModel(source=str(source), card=card, engine=engine)
    bundle = open_bundle(source, options)
    card = card_of_bundle(bundle, license_of(source))
    module = PixelsToProbabilities(
        bundle.network, bundle.preprocess, temperature=bundle.temperature, input_kind="crop"
    )
    engine = torch_engine(module, device)
    return OpenedModel(
        source=str(source), card=card, engine=engine, network=bundle.network, device=device
    )


def open_bundle(source: Path | str, options: InputOptions = NO_OPTIONS) -> Bundle:
    """Open everything that `open_model` accepts, except exported files, as a bundle.

    Raises:
        RunError, BundleError, WeightsError: As `open_model`.
    """
    path = Path(source)
    if not (path.exists() or has_name(str(source))):
        raise WeightsError(
            f"{source}: there is no such run folder or file; pass a run, a bundle, an exported "
            f"file, a weight file, or a name of `reslearn list weights`{hub_hint(source)}"
        )
    if not (path / "recipe.json").is_file():
        return as_bundle(source, options)
    run = RunFolder.open(path)
    _ = run.result  # raises RunError if the run is not complete, or was changed
    options.refuse_for(source)
    if not run.bundle_path.exists():
        raise RunError(f"{path} has no model.safetensors: it was committed without weights")
    check_weights(run, run.bundle_path)
    return read_bundle(run.bundle_path, recipe_hash=run.recipe_hash)


def card_of_bundle(bundle: Bundle, license: str = "") -> ModelCard:
    """Return the card of a network that takes crops."""
    return ModelCard(
        name=bundle.network.name,
        classes=bundle.classes,
        preprocess=bundle.preprocess,
        temperature=bundle.temperature,
        recipe_hash=bundle.recipe_hash,
        license=license,
    )


def license_of(source: Path | str) -> str:
    """Return the license of a shipped network; "" for other sources, which record none."""
    text = str(source)
    entry = shipped_networks().get(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else None
    return "" if entry is None else entry.license
