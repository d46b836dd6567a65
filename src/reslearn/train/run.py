"""A recipe to a run folder: the loop with its record, and the numbers at the end (Sec. 4.2).

The test set is touched once, at the end (unless a test curve is asked for, which nothing reads); no decision depends on it.
"""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

from reslearn import recipes
from reslearn.data import DataError
from reslearn.evaluate import Metrics, recompute_batch_norm
from reslearn.runs import RunError, RunFolder
from reslearn.train import checkpoint, environment, tensorboard
from reslearn.train.average import Average, NoAverage
from reslearn.train.checkpoint import Training
from reslearn.train.display import Display
from reslearn.train.distributed import Processes, processes_here
from reslearn.train.initial_weights import adopt
from reslearn.train.interrupt import Interrupted, Request, on_request
from reslearn.train.loop import NonFiniteLossError, State, make_step, train_steps
from reslearn.train.meter import Meter
from reslearn.train.optimizer import build_optimizer
from reslearn.train.record import Clock, Record, check_finite
from reslearn.train.schedule import WarmUp, factor
from reslearn.train.setup import Prepared, check_alike, prepare


def train_recipe(
    recipe: recipes.Recipe,
    out: Path | str,
    *,
    resume: bool = False,
    device: str | None = None,
    threads: int | None = None,
    data_dir: Path | None = None,
    download: bool = False,
    workers: int | None = None,
    tensorboard_files: bool = False,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Train `recipe` in the folder `out` and return its result.json; with `resume`, go on where the folder stopped.

    `workers` processes read picture files, where these stay on disk (a core each if None); the batches do not depend on their number.

    Raises RunError (folder in use, of another recipe, or not to be resumed here), DataError, UnknownModel, NonFiniteLossError,
    OSError on a full disk (the checkpoint before it stays whole), and Interrupted after Ctrl-C or SIGTERM. Started by torchrun, all
    processes train the one net, and the first alone writes.
    """
    folder = RunFolder(Path(out))
    if tensorboard_files:
        tensorboard.require()
    with processes_here(device) as processes, ExitStack() as held:
        begun = processes.from_first(folder.exists())
        get_ready = partial(_prepare, recipe, folder, processes, begun=begun, resume=resume)
        prepared = processes.together(
            lambda: get_ready(
                device=device,
                threads=threads,
                data_dir=data_dir,
                download=download,
                workers=workers,
            )
        )
        if prepared is None:
            return folder.result
        check_alike(prepared)
        processes.together(
            lambda: held.enter_context(_held(folder, prepared, begun=begun, command=command))
        )
        return _train(prepared, folder, tensorboard_files=tensorboard_files)


def _prepare(
    recipe: recipes.Recipe,
    folder: RunFolder,
    processes: Processes,
    *,
    begun: bool,
    resume: bool,
    **where: Any,
) -> Prepared | None:
    """The run made ready on this process, or None where it is complete."""
    if begun and not folder.exists():
        raise RunError(
            f"process {processes.rank} does not see {folder.path}, which process 0 does: all machines must share the folder"
        )
    recipe = adopt(recipe, folder)
    check_folder(folder, recipe, resume=resume)
    if folder.is_complete:
        return None
    if (reason := folder.divergence) is not None:
        raise NonFiniteLossError(reason)
    record = folder.environment if begun else None
    return prepare(
        recipe, record, has_checkpoint=bool(folder.checkpoints()), processes=processes, **where
    )


@contextmanager
def _held(
    folder: RunFolder, prepared: Prepared, *, begun: bool, command: Sequence[str]
) -> Iterator[None]:
    """The folder locked by process 0, and begun where it was not."""
    if not prepared.processes.is_first:
        yield
        return
    with folder.lock():
        if folder.exists() and not begun:
            raise RunError(
                f"{folder.path}: another process began a run here meanwhile: choose another --out"
            )
        if not begun:
            described = environment.describe(prepared.numerics, prepared.dataset, command)
            started = {"init": prepared.start.record} if prepared.start else {}
            RunFolder.create(folder.path, prepared.recipe.to_dict(), {**described, **started})
        yield


def check_folder(folder: RunFolder, recipe: recipes.Recipe, *, resume: bool) -> None:
    """RunError unless a run of `recipe` can begin in `folder`, or be resumed there."""
    if not folder.exists():
        folder.check_free()
        return
    changes = recipes.difference(folder.recipe, recipe.to_dict())
    if changes:
        alone = f"--resume --out {shlex.quote(str(folder.path))} alone goes on with it"
        raise RunError(
            f"{folder.path} holds a run of another recipe ({'; '.join(changes)}): choose another --out; {alone}"
        )
    if not resume:
        raise RunError(
            f"{folder.path} holds this run already: add --resume to go on with it, or choose another --out"
        )


def begin_training(prepared: Prepared) -> Training:
    """Optimizer, average and meter around the network, at step 0."""
    recipe = prepared.recipe
    return Training(
        model=prepared.model,
        optimizer=build_optimizer(prepared.model, recipe.optimizer),
        average=Average(prepared.model, decay=recipe.train.ema)
        if recipe.train.ema is not None
        else NoAverage(),
        meter=Meter(
            every=recipe.train.read_every_steps,
            device=prepared.numerics.device,
            processes=prepared.processes,
        ),
        state=State(),
    )


def _train(prepared: Prepared, folder: RunFolder, *, tensorboard_files: bool) -> dict[str, Any]:
    """From the newest checkpoint, or the beginning, to the result."""
    training, processes = begin_training(prepared), prepared.processes
    clock = Clock(_resume(prepared, folder, training))
    told = tensorboard_files and processes.is_first
    events = (
        tensorboard.Events(folder.path, resumed_at_step=training.state.step)
        if told
        else tensorboard.NoEvents()
    )
    record = Record(prepared, folder, clock, events)
    name = prepared.recipe.model.name
    display = Display(
        title=f"{name} on {prepared.dataset.name}",
        num_steps=prepared.num_steps,
        images_per_step=prepared.recipe.train.batch_size,
        steps_per_epoch=prepared.steps_per_epoch,
        quiet=not processes.is_first,
    )
    numerics = prepared.numerics
    slowly = ", compiled at first, which takes a minute" if numerics.compiled else ""
    with display, on_request() as request:
        display.say(
            f"{name}: {prepared.num_steps:,} steps, {prepared.num_steps / prepared.steps_per_epoch:.4g} epochs of "
            f"{len(prepared.dataset.train):,} images, on {numerics.device} in {numerics.precision}{slowly}"
        )
        try:
            _loop(prepared, training, record, display, request)
            display.say(
                f"{name}: {training.state.step} steps in {clock.seconds():.0f} s; evaluating"
            )
            request.at_once = True  # the last checkpoint holds all there is to lose
            return _finish(prepared, training, record)
        except Interrupted as stop:
            processes.leave_to_first(stop.exit_status)
            text = f"stopped after step {training.state.step}; {_resume_line(prepared, folder)}"
            raise Interrupted(text, signal_number=stop.signal_number) from None
        except NonFiniteLossError as error:
            processes.leave_to_first(2)
            hint = "a lower optimizer.lr or a warm-up (schedule.warm_up_lr) may help"
            reason = f"{error}; {_last_checkpoint(folder)}; {hint}"
            folder.write_json(
                "diverged.json", {"step": training.state.step, "reason": reason}
            )  # a study counts it, and need not try again
            raise NonFiniteLossError(reason) from None
        except DataError as error:  # a picture file that cannot be read, met only now
            raise DataError(
                f"{error}; {_last_checkpoint(folder)}; {_resume_line(prepared, folder)}"
            ) from None
        except OSError as error:
            where = f"while writing to {folder.path}; {_last_checkpoint(folder)}; {_resume_line(prepared, folder)}"
            raise OSError(error.errno, f"{error.strerror} {where}") from None
        finally:
            events.close()


def _loop(
    prepared: Prepared, training: Training, record: Record, display: Display, request: Request
) -> None:
    """The loop with its record: metrics, evaluations, checkpoints."""
    recipe, state, folder, clock, processes = (
        prepared.recipe,
        training.state,
        record.folder,
        record.clock,
        prepared.processes,
    )
    step = make_step(
        prepared.model,
        prepared.loss(),
        training.optimizer,
        autocast=prepared.numerics.autocast,
        accumulate=recipe.train.accumulate,
        compiled=prepared.numerics.compiled,
        processes=processes,
        sync_batch_norm=recipe.train.sync_batch_norm and processes.count > 1,
        replayed=prepared.numerics.replayed,
    )
    schedule = recipe.schedule
    warm_up = None
    if schedule.warm_up_lr:
        length = (
            None
            if schedule.warm_up_duration is None
            else prepared.steps_of(schedule.warm_up_duration)
        )
        warm_up = WarmUp(
            lr=schedule.warm_up_lr, error_pct=schedule.warm_up_error_pct, num_steps=length
        )
    evaluate_every = prepared.steps_of(recipe.evaluation.every)
    snapshots = {prepared.steps_of(moment) for moment in recipe.evaluation.snapshots}
    if state.step == 0 and 0 in snapshots:
        record.bundle(training.network, folder.snapshot_path(0), metrics={})
    prepared.model.train()
    for reading in train_steps(
        step,
        prepared.train_batches(start_step=state.step),
        training.optimizer,
        state=state,
        meter=training.meter,
        average=training.average,
        num_steps=prepared.num_steps,
        warm_up=warm_up,
        factor=factor(
            schedule,
            num_images=len(prepared.dataset.train),
            batch_size=recipe.train.batch_size,
            waiting=state.waiting,
        ),
    ):
        if reading is not None:
            record.reading(reading)
            display.show(
                step=reading.step, loss=reading.loss, top1_error_pct=reading.top1_error_pct
            )
        if state.step % evaluate_every == 0 and state.step < prepared.num_steps:
            _evaluate_midway(prepared, training, record)
        if state.step in snapshots:
            record.bundle(training.network, folder.snapshot_path(state.step), metrics={})
        late = reading is not None and clock.since_mark() >= recipe.train.checkpoint_every_seconds
        asked, due = processes.most(
            [request.signal_number or 0, int(late)]
        )  # signals and clocks are each process's own
        if asked or due or state.step == prepared.num_steps:
            checkpoint.save(folder, training, seconds=clock.seconds(), processes=processes)
            clock.mark()
        if asked:
            raise Interrupted("stopped on request", signal_number=asked)


def _resume(prepared: Prepared, folder: RunFolder, training: Training) -> float:
    """Go back to the newest checkpoint, if there is one; returns the seconds spent up to it."""
    processes = prepared.processes
    paths = processes.from_first(folder.checkpoints())
    seconds, metrics_bytes = 0.0, 0
    if paths:
        device = prepared.numerics.device
        seconds, metrics_bytes = processes.together(
            lambda: checkpoint.restore(paths[-1], training, device=device)
        )

    def cut_back() -> None:
        folder.truncate_metrics(metrics_bytes)
        folder.metrics()  # lines that were edited are refused now, not when the result is made of them
        if paths:
            _note_resumption(folder, training.state.step)

    processes.together(cut_back if processes.is_first else lambda: None)
    return seconds


def _note_resumption(folder: RunFolder, step: int) -> None:
    resumed_at = [*folder.environment.get("resumed_at", []), step]
    folder.write_json("environment.json", {**folder.environment, "resumed_at": resumed_at})


def _evaluate_midway(prepared: Prepared, training: Training, record: Record) -> None:
    """Validation error, which a plateau schedule reads, and the test error where a curve of it is asked for (write-only, as in the
    paper's figures)."""
    state, schedule = training.state, prepared.recipe.schedule
    sets = {
        "validation": prepared.dataset.validation,
        "test": prepared.dataset.test if prepared.recipe.evaluation.test_curve else None,
    }
    for kind, images in sets.items():
        if images is not None:
            metrics = prepared.evaluate(training.network, images)
            record.evaluation(kind, state.step, metrics)
            warming = schedule.warm_up_lr is not None and state.warmed_up_at_step is None
            if kind == "validation" and isinstance(schedule, recipes.Plateau) and not warming:
                state.waiting.observe(metrics.top1_error_pct, schedule)


def _finish(prepared: Prepared, training: Training, record: Record) -> dict[str, Any]:
    """Clean training error, validation and test error, the bundle, and last the result."""
    net, state, folder, dataset = training.network, training.state, record.folder, prepared.dataset
    some = (
        dataset.train.evenly_spaced(prepared.recipe.evaluation.recompute_images)
        if prepared.recipe.evaluation.recompute_images
        else None
    )
    prepared.processes.share_state(net)
    if (
        prepared.recipe.evaluation.batch_norm == "exact"
    ):  # on all images by each process: the same bits as by one
        recompute_batch_norm(
            net, prepared.batches(some or dataset.train), autocast=prepared.numerics.autocast()
        )
    train = prepared.evaluate(net, dataset.train)
    check_finite("training", state.step, train)
    recomputed: Metrics | None = None
    if some is not None:
        twin = deepcopy(net)
        recompute_batch_norm(twin, prepared.batches(some), autocast=prepared.numerics.autocast())
        recomputed = prepared.evaluate(twin, some)
        check_finite("training", state.step, recomputed)
    validation = (
        prepared.evaluate(net, dataset.validation) if dataset.validation is not None else None
    )
    if validation is not None:
        record.evaluation("validation", state.step, validation)
    test = prepared.evaluate(net, dataset.test)
    record.evaluation("test", state.step, test)
    result = {
        "test_top1_error_pct": test.top1_error_pct,
        "test_loss": test.loss,
        "train_top1_error_pct": train.top1_error_pct,
        "train_loss": train.loss,
        "train_recomputed_top1_error_pct": recomputed.top1_error_pct if recomputed else None,
        "train_recomputed_loss": recomputed.loss if recomputed else None,
        "validation_top1_error_pct": validation.top1_error_pct if validation else None,
        "seconds": round(record.clock.seconds(), 3),
        "images": state.step * prepared.recipe.train.batch_size,
        "steps": state.step,
        "epochs": state.step / prepared.steps_per_epoch,
        "macs": prepared.complexity.macs,
        "parameters": prepared.complexity.parameters,
        "test_touched": len(folder.metrics("test")),
        "resumed_at": folder.environment.get("resumed_at", []),
        "warmed_up_at_step": state.warmed_up_at_step,
    }
    record.bundle(net, folder.bundle_path, metrics=result)
    return prepared.processes.from_first(
        folder.finish(result) if prepared.processes.is_first else result
    )


def _resume_line(prepared: Prepared, folder: RunFolder) -> str:
    where = (
        f" --data-dir {shlex.quote(str(prepared.data_dir))}"
        if prepared.data_dir is not None
        else ""
    )
    return f"go on with: {prepared.processes.launcher}reslearn train --resume --out {shlex.quote(str(folder.path))}{where}"


def _last_checkpoint(folder: RunFolder) -> str:
    paths = folder.checkpoints()
    return f"the last good checkpoint is {paths[-1]}" if paths else "there is no checkpoint yet"
