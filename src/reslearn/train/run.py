"""A recipe to a run folder: data, network, numerics, the loop with its record, and the numbers at the end (Sec. 4.2).

The test set is touched once, at the end (unless a test curve is asked for, which nothing reads); no decision depends on it.
"""

import shlex
import time
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reslearn import data, models, recipes
from reslearn.evaluate import Metrics, evaluate, recompute_batch_norm
from reslearn.interop import to_bytes
from reslearn.runs import RunError, RunFolder, write_atomically
from reslearn.train import checkpoint, environment, numerics
from reslearn.train.average import Average, NoAverage
from reslearn.train.checkpoint import Training
from reslearn.train.display import Display
from reslearn.train.interrupt import Interrupted, Request, on_request
from reslearn.train.loop import NonFiniteLossError, State, make_step, train_steps
from reslearn.train.meter import Meter, Reading
from reslearn.train.numerics import Numerics
from reslearn.train.optimizer import build_optimizer
from reslearn.train.schedule import WarmUp, factor

_EVALUATION_BATCH = 500


@dataclass(kw_only=True)
class _Run:
    """What one training works with."""

    recipe: recipes.Recipe
    dataset: data.Dataset
    preprocess: data.Preprocess
    numerics: Numerics
    model: nn.Module
    macs: int
    num_steps: int

    def batches(self, images: data.Images) -> Iterator[tuple[Tensor, Tensor]]:
        """Every image once, in order, as evaluation sees it."""
        return data.eval_batches(images, self.preprocess, batch_size=_EVALUATION_BATCH, device=self.numerics.device)

    def evaluate(self, net: nn.Module, images: data.Images) -> Metrics:
        """Loss and error of `net` on `images`."""
        return evaluate(net, self.batches(images), autocast=self.numerics.autocast())

    @property
    def steps_per_epoch(self) -> float:
        return len(self.dataset.train) / self.recipe.train.batch_size


class _Clock:
    """Seconds of the run, those before it was resumed included."""

    def __init__(self, before: float) -> None:
        self._zero = time.monotonic() - before
        self.mark()

    def seconds(self) -> float:
        return time.monotonic() - self._zero

    def mark(self) -> None:
        self._marked_at = time.monotonic()

    def since_mark(self) -> float:
        return time.monotonic() - self._marked_at


def train_recipe(
    recipe: recipes.Recipe,
    out: Path | str,
    *,
    resume: bool = False,
    device: str | None = None,
    threads: int | None = None,
    data_dir: Path | None = None,
    download: bool = False,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Train `recipe` in the folder `out` and return its result.json; with `resume`, go on where the folder stopped.

    Raises RunError (folder in use, of another recipe, or not to be resumed here), DataError, UnknownModel, NonFiniteLossError,
    OSError on a full disk (the checkpoint before it stays whole), and Interrupted after Ctrl-C or SIGTERM.
    """
    folder = RunFolder(Path(out))
    _check_folder(folder, recipe, resume=resume)
    if folder.is_complete:
        return folder.result
    record = folder.environment["numerics"] if folder.exists() else None
    run = _prepare(recipe, record, device=device, threads=threads, data_dir=data_dir, download=download)
    with folder.lock():
        if folder.exists():
            if folder.environment["data"]["fingerprint"] != run.dataset.fingerprint:
                raise RunError(f"{out}: the run began on other images than {recipe.data.name} holds now")
        else:
            RunFolder.create(folder.path, run.recipe.to_dict(), environment.describe(run.numerics, run.dataset, command))
        return _train(run, folder)


def _check_folder(folder: RunFolder, recipe: recipes.Recipe, *, resume: bool) -> None:
    if not folder.exists():
        return
    changes = recipes.difference(folder.recipe, recipe.to_dict())
    if changes:
        raise RunError(f"{folder.path} holds a run of another recipe ({'; '.join(changes)}): choose another --out")
    if not resume:
        raise RunError(f"{folder.path} holds this run already: add --resume to go on with it, or choose another --out")


def _prepare(
    recipe: recipes.Recipe, record: dict[str, Any] | None, *, device: str | None, threads: int | None, data_dir: Path | None, download: bool
) -> _Run:
    """Load the data, build the network and fix the numerics: whatever can be wrong is found before a file is written."""
    dataset = data.load(recipe.data.name, data_dir=data_dir, download=download, size_px=recipe.data.size_px)
    if recipe.data.validation_images:
        dataset = data.split(dataset, recipe.data.validation_images)
    if recipe.data.train_images is not None:
        dataset = replace(dataset, train=dataset.train.spread(recipe.data.train_images))
    spec = {"num_classes": len(dataset.classes), "in_channels": dataset.channels}
    given = {"num_classes": recipe.model.num_classes, "in_channels": recipe.model.in_channels}
    for key, value in given.items():
        if value not in (None, spec[key]):
            raise ValueError(f"model.{key} = {value}, but {recipe.data.name} has {spec[key]}: leave it out")
    recipe = recipe.model_copy(update={"model": recipe.model.model_copy(update=spec)})
    torch.manual_seed(recipe.seed)
    model = models.build(**recipe.model.model_dump())
    macs = models.complexity(model, (dataset.channels, dataset.size_px, dataset.size_px)).macs
    num_steps = recipe.schedule.duration.steps(num_images=len(dataset.train), batch_size=recipe.train.batch_size)
    if record is not None:
        chosen = numerics.obey(record, device=device, threads=threads)
    else:
        num_images = num_steps * recipe.train.batch_size
        chosen = numerics.choose(recipe.train, device=numerics.choose_device(device), threads=threads, macs=macs, num_images=num_images)
    numerics.prepare(chosen)
    model = model.to(chosen.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's stub lacks it
    options = recipe.data
    preprocess = data.Preprocess.fit(dataset.train, mean=options.mean, std=options.std, padding=options.padding)
    return _Run(recipe=recipe, dataset=dataset, preprocess=preprocess, numerics=chosen, model=model, macs=macs, num_steps=num_steps)


def _train(run: _Run, folder: RunFolder) -> dict[str, Any]:
    """From the newest checkpoint, or the beginning, to the result."""
    recipe = run.recipe
    training = Training(
        model=run.model,
        optimizer=build_optimizer(run.model, recipe.optimizer),
        average=Average(run.model, decay=recipe.train.ema) if recipe.train.ema is not None else NoAverage(),
        meter=Meter(every=recipe.train.read_every_steps, device=run.numerics.device),
        state=State(),
    )
    clock = _Clock(_resume(run, folder, training))
    display = Display(
        title=f"{recipe.model.name} on {run.dataset.name}", num_steps=run.num_steps, images_per_step=recipe.train.batch_size,
        steps_per_epoch=run.steps_per_epoch,
    )  # fmt: skip
    with display, on_request() as request:
        try:
            _loop(run, folder, training, clock, display, request)
        except NonFiniteLossError as error:
            hint = "a lower optimizer.lr or a warm-up (schedule.warm_up_lr) may help"
            raise NonFiniteLossError(f"{error}; {_last_checkpoint(folder)}; {hint}") from None
        except OSError as error:
            where = f"while writing to {folder.path}; {_last_checkpoint(folder)}; {_resume_line(folder)}"
            raise OSError(error.errno, f"{error.strerror} {where}") from None
        display.say(f"{recipe.model.name}: {training.state.step} steps in {clock.seconds():.0f} s; evaluating")
    return _finish(run, folder, training, clock)


def _loop(run: _Run, folder: RunFolder, training: Training, clock: _Clock, display: Display, request: Request) -> None:
    """The loop with its record: metrics, evaluations, checkpoints."""
    recipe, dataset, state = run.recipe, run.dataset, training.state
    lengths = {"num_images": len(dataset.train), "batch_size": recipe.train.batch_size}
    augment = data.Augment(pad_px=recipe.data.pad_px, crop=recipe.data.crop, flip=recipe.data.flip)
    batches = data.train_batches(
        dataset.train, run.preprocess, batch_size=recipe.train.batch_size, seed=recipe.seed, start_step=state.step, augment=augment,
        device=run.numerics.device,
    )  # fmt: skip
    loss = nn.CrossEntropyLoss(label_smoothing=recipe.train.label_smoothing)
    step = make_step(
        run.model, loss, training.optimizer, autocast=run.numerics.autocast, accumulate=recipe.train.accumulate,
        compiled=run.numerics.compiled,
    )  # fmt: skip
    schedule = recipe.schedule
    warm_up = WarmUp(lr=schedule.warm_up_lr, error_pct=schedule.warm_up_error_pct) if schedule.warm_up_lr else None
    evaluate_every = recipe.evaluation.every.steps(**lengths)
    snapshots = {moment.steps(**lengths) for moment in recipe.evaluation.snapshots}
    if state.step == 0 and 0 in snapshots:
        _write_bundle(run, training.network, folder.snapshot_path(0), {})
    run.model.train()
    for reading in train_steps(
        step, batches, training.optimizer, state=state, meter=training.meter, average=training.average, num_steps=run.num_steps,
        factor=factor(schedule, **lengths), warm_up=warm_up,
    ):  # fmt: skip
        if reading is not None:
            folder.append_metrics(_line(run, "train", reading.step, clock, **_values(reading)))
            display.show(step=reading.step, loss=reading.loss, top1_error_pct=reading.top1_error_pct)
        if state.step % evaluate_every == 0 and state.step < run.num_steps:
            _evaluate_midway(run, folder, training.network, state.step, clock)
        if state.step in snapshots:
            _write_bundle(run, training.network, folder.snapshot_path(state.step), {})
        if request.signal_number is not None:
            checkpoint.save(folder, training, seconds=clock.seconds())
            raise Interrupted(f"stopped after step {state.step}; {_resume_line(folder)}", signal_number=request.signal_number)
        if state.step == run.num_steps or (reading is not None and clock.since_mark() >= recipe.train.checkpoint_every_seconds):
            checkpoint.save(folder, training, seconds=clock.seconds())
            clock.mark()


def _resume(run: _Run, folder: RunFolder, training: Training) -> float:
    """Go back to the newest checkpoint, if there is one; returns the seconds spent up to it."""
    paths = folder.checkpoints()
    if not paths:
        folder.truncate_metrics(0)
        return 0.0
    content = checkpoint.read(paths[-1], device=run.numerics.device)
    checkpoint.restore(content, training)
    folder.truncate_metrics(content["metrics_bytes"])
    resumed_at = [*folder.environment.get("resumed_at", []), training.state.step]
    folder.write_json("environment.json", {**folder.environment, "resumed_at": resumed_at})
    return float(content["seconds"])


def _values(reading: Reading) -> dict[str, Any]:
    return {"loss": reading.loss, "top1_error_pct": reading.top1_error_pct, "lr": reading.lr}


def _line(run: _Run, kind: str, step: int, clock: _Clock, **values: Any) -> dict[str, Any]:
    return {
        "kind": kind, "step": step, "epoch": round(step / run.steps_per_epoch, 4), "images": step * run.recipe.train.batch_size,
        "seconds": round(clock.seconds(), 3), **values,
    }  # fmt: skip


def _evaluate_midway(run: _Run, folder: RunFolder, net: nn.Module, step: int, clock: _Clock) -> None:
    """Validation error, and the test error where a curve of it is asked for (write-only, as in the paper's figures)."""
    sets = {"validation": run.dataset.validation, "test": run.dataset.test if run.recipe.evaluation.test_curve else None}
    for kind, images in sets.items():
        if images is not None:
            metrics = run.evaluate(net, images)
            folder.append_metrics(_line(run, kind, step, clock, loss=metrics.loss, top1_error_pct=metrics.top1_error_pct))


def _finish(run: _Run, folder: RunFolder, training: Training, clock: _Clock) -> dict[str, Any]:
    """Clean training error, validation and test error, the bundle, and last the result."""
    net, state = training.network, training.state
    some = run.dataset.train.spread(run.recipe.evaluation.recompute_images) if run.recipe.evaluation.recompute_images else None
    if run.recipe.evaluation.batch_norm == "exact":
        recompute_batch_norm(net, run.batches(some or run.dataset.train), autocast=run.numerics.autocast())
    train = run.evaluate(net, run.dataset.train)
    validation = run.evaluate(net, run.dataset.validation) if run.dataset.validation is not None else None
    recomputed = None
    if some is not None:
        twin = deepcopy(net)
        recompute_batch_norm(twin, run.batches(some), autocast=run.numerics.autocast())
        recomputed = run.evaluate(twin, some)
    test = run.evaluate(net, run.dataset.test)
    for kind, metrics in (("validation", validation), ("test", test)):
        if metrics is not None:
            folder.append_metrics(_line(run, kind, state.step, clock, loss=metrics.loss, top1_error_pct=metrics.top1_error_pct))
    result = {
        "test_top1_error_pct": test.top1_error_pct, "test_loss": test.loss,
        "train_top1_error_pct": train.top1_error_pct, "train_loss": train.loss,
        "train_recomputed_top1_error_pct": recomputed.top1_error_pct if recomputed else None,
        "train_recomputed_loss": recomputed.loss if recomputed else None,
        "validation_top1_error_pct": validation.top1_error_pct if validation else None,
        "seconds": round(clock.seconds(), 3), "images": state.step * run.recipe.train.batch_size, "steps": state.step,
        "epochs": state.step / run.steps_per_epoch, "macs": run.macs,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "test_touched": len(folder.metrics("test")), "resumed_at": folder.environment.get("resumed_at", []),
        "warmed_up_at_step": state.warmed_up_at_step,
    }  # fmt: skip
    _write_bundle(run, net, folder.bundle_path, result)
    folder.write_json("result.json", result)
    return result


def _write_bundle(run: _Run, net: nn.Module, path: Path, metrics: dict[str, Any]) -> None:
    content = to_bytes(
        net,
        spec=run.recipe.model.model_dump(),
        classes=run.dataset.classes,
        preprocess=run.preprocess,
        metrics=metrics,
        recipe_hash=recipes.recipe_hash(run.recipe.to_dict()),
    )
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, lambda file: file.write(content))


def _resume_line(folder: RunFolder) -> str:
    return f"go on with: reslearn train --resume --out {shlex.quote(str(folder.path))}"


def _last_checkpoint(folder: RunFolder) -> str:
    paths = folder.checkpoints()
    return f"the last good checkpoint is {paths[-1]}" if paths else "there is no checkpoint yet"
