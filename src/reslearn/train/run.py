"""Train a recipe into a run folder, and compute the numbers of its result (Sec. 4.2).

The test set is used once, at the end. If the recipe asks for a test curve it is also evaluated
during training, but no decision reads the curve.
"""

import shlex
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import nn

from reslearn import data, recipes
from reslearn.data import DataError, ImageSet
from reslearn.data.skipped import SkipLog
from reslearn.evaluate import Metrics, recompute_batch_norm
from reslearn.runs import RunError, RunFolder, disk_state, removed_on_error
from reslearn.train import numerics
from reslearn.train.checkpoints import NEW_RUN, RestoredRun, find_checkpoint, restore_checkpoint
from reslearn.train.distributed import Processes, join_processes
from reslearn.train.export_note import export_note
from reslearn.train.initial_weights import adopt_weights_spec
from reslearn.train.logging import RunLog, check_finite, require_tensorboard
from reslearn.train.loop import Interrupted, stop_on_signal, train
from reslearn.train.setup import THIS_MACHINE, Machine, RunSetup, check_processes_agree, set_up
from reslearn.train.step import NonFiniteLossError, State
from reslearn.train.time_limit import TimeLimit


def train_recipe(
    recipe: recipes.Recipe,
    out: Path | str,
    machine: Machine = THIS_MACHINE,
    *,
    resume: bool = False,
    tensorboard: bool = False,
    command: Sequence[str] = (),
    end_at: float | None = None,
) -> dict[str, Any]:
    """Train `recipe` in a run folder and return its result, the content of result.json.

    Under torchrun all processes train the one network together, and only process 0 writes.

    Args:
        recipe: What to train.
        out: The run folder.
        machine: Device, threads, data folder and workers.
        resume: Continue the run that the folder holds. A complete run is not changed.
        tensorboard: Also write TensorBoard event files into the folder.
        command: The command line, which environment.json records.
        end_at: Move the end of the schedule so that the run is over at this moment of
            time.monotonic(). result.json records it, and a recipe with schedule.ends repeats it.
            Needs one process.

    Raises:
        RunError: If the folder is in use, holds another run, or cannot be resumed here.
        DataError: If the data are missing or damaged.
        NonFiniteLossError: If the loss or a weight became NaN or infinite. diverged.json records
            it.
        Interrupted: After Ctrl-C or SIGTERM and a checkpoint.
        OSError: If the disk is full. The previous checkpoint stays intact.
    """
    folder = RunFolder(Path(out))
    if tensorboard:
        require_tensorboard()
    with join_processes(machine.device) as processes, ExitStack() as stack:
        is_new = not processes.broadcast(folder.exists())
        if not is_new:
            # Another process may finish this run meanwhile, so everything is decided with the lock.
            processes.run_together(lambda: _lock(folder, processes, stack))
        setup = processes.run_together(
            lambda: _set_up_run(recipe, folder, machine, processes, is_new=is_new, resume=resume)
        )
        if setup is None:
            return folder.result
        check_processes_agree(setup)
        if is_new:
            processes.run_together(lambda: _create(folder, setup, stack, command=command))
        state = setup.initial_state()
        start = NEW_RUN if is_new else _resume(setup, folder, state)
        log = RunLog(
            setup,
            folder,
            seconds=start.seconds,
            resumed_at_step=state.step,
            last_step=state.learning_rate.last_step(setup.num_steps),
            tensorboard=tensorboard,
        )
        return _train_and_finish(setup, state, log, end_at=end_at)


def _train_and_finish(
    setup: RunSetup, state: State, log: RunLog, *, end_at: float | None
) -> dict[str, Any]:
    """Train from the step of `state` to the end, and return the result."""
    time_limit = None if end_at is None else _time_limit(setup, end_at)
    with log, stop_on_signal() as stop, _add_resume_hints(setup, state, log.folder):
        log.say(_summary(setup, state.learning_rate.last_step(setup.num_steps)))
        if state.step == 0:
            for note in filter(None, _notes(setup)):
                log.say(note)
        train(setup.loop_setup(state, stop, time_limit), state, log)
        log.say(f"{state.step} steps in {log.seconds:.0f} s; evaluating")
        stop.at_once = True  # the last checkpoint holds everything that could be lost
        return _finish(setup, state, log)


def _lock(folder: RunFolder, processes: Processes, stack: ExitStack) -> None:
    """Lock the folder in process 0 until `stack` is closed. A complete run is only read."""
    if processes.is_first and not folder.is_complete:
        stack.enter_context(folder.lock())


def _create(
    folder: RunFolder, setup: RunSetup, stack: ExitStack, *, command: Sequence[str]
) -> None:
    """Create the run in process 0, and lock its folder until `stack` is closed."""
    if not setup.processes.is_first:
        return
    environment = numerics.describe_environment(setup.numerics, setup.dataset, command)
    if setup.initial_weights is not None:
        environment["init"] = setup.initial_weights.record
    with removed_on_error(folder.path) as own_files:
        stack.enter_context(folder.lock())
        if folder.exists():
            raise RunError(
                f"{folder.path}: another process began a run here meanwhile: choose another --out"
            )
        own_files += [".lock", "environment.json"]
        folder.start(setup.recipe.to_dict(), environment)


def _set_up_run(
    recipe: recipes.Recipe,
    folder: RunFolder,
    machine: Machine,
    processes: Processes,
    *,
    is_new: bool,
    resume: bool,
) -> RunSetup | None:
    """Set up the run on this process. Return None if it is complete."""
    if not is_new and not folder.exists():
        raise RunError(
            f"process {processes.rank} does not see {folder.path}, which process 0 sees: "
            "all machines must share the folder"
        )
    if recipe.init is not None:
        recipe = adopt_weights_spec(recipe, folder)
    check_folder(folder, recipe, resume=resume)
    if folder.is_complete:
        return None
    if not is_new:
        folder.identity()  # raises RunError if recipe.json or environment.json was changed
    return set_up(
        recipe,
        machine,
        environment=None if is_new else folder.environment,
        has_checkpoint=bool(folder.checkpoints()),
        processes=processes,
    )


def check_folder(folder: RunFolder, recipe: recipes.Recipe, *, resume: bool) -> None:
    """Raise RunError unless a run of `recipe` can begin in `folder`, or be resumed there."""
    if not folder.exists():
        folder.check_available()
        return
    if folder.divergence is not None:
        folder.check_complete()
    changes = recipes.difference(folder.recipe, recipe.to_dict())
    if changes:
        raise RunError(
            f"{folder.path} holds a run of another recipe ({'; '.join(changes)}): choose another "
            f"--out, or resume that run with --resume --out {shlex.quote(str(folder.path))} alone"
        )
    if not resume:
        raise RunError(
            f"{folder.path} holds this run already: add --resume to continue it, "
            "or choose another --out"
        )


def _resume(setup: RunSetup, folder: RunFolder, state: State) -> RestoredRun:
    """Restore the newest checkpoint that is not damaged, if there is one."""
    processes, device = setup.processes, setup.numerics.device
    path, damaged = processes.run_together(
        lambda: find_checkpoint(folder) if processes.is_first else (None, [])
    )
    path = processes.broadcast(path)
    restored = NEW_RUN
    if path is not None:
        restored = processes.run_together(
            lambda: restore_checkpoint(folder, path, state, device=device)
        )

    def restore_folder() -> None:
        if not processes.is_first:
            return
        folder.truncate_metrics(restored.metrics_bytes, restored.metrics_sha256)
        folder.metrics()  # raises RunError for edited lines now, not at the end of the run
        if path is not None:
            folder.record_resumption(state.step)
        for damaged_path in damaged:
            warnings.warn(
                f"{damaged_path} is damaged: the run resumes from step {state.step}", stacklevel=2
            )

    processes.run_together(restore_folder)
    return restored


def _summary(setup: RunSetup, num_steps: int) -> str:
    chosen = setup.numerics
    compilation = ", compiled at first, which takes a minute" if chosen.compiled else ""
    return (
        f"{num_steps:,} steps, {num_steps / setup.steps_per_epoch:.4g} epochs of "
        f"{len(setup.dataset.train):,} images, "
        f"on {chosen.device} in {chosen.precision}{compilation}"
    )


def _notes(setup: RunSetup) -> Iterator[str]:
    """Yield lines on initial weights and, for a folder of photos, on export. Some are empty."""
    recipe = setup.recipe
    if setup.initial_weights is not None:
        yield setup.initial_weights.note()
    if recipe.data.name not in data.names():
        yield export_note(setup.model, has_weights=recipe.init is not None)


@contextmanager
def _add_resume_hints(setup: RunSetup, state: State, folder: RunFolder) -> Iterator[None]:
    """Add to errors during the run what is saved and how to resume."""
    exit_unless_first = setup.processes.exit_unless_first
    try:
        yield
    except Interrupted as stop:
        exit_unless_first(stop.exit_status)
        text = f"stopped after step {state.step}; {_resume_hint(setup, folder)}"
        raise Interrupted(text, signal_number=stop.signal_number) from None
    except NonFiniteLossError as error:
        exit_unless_first(2)
        hint = "a lower optimizer.lr or a warm-up (schedule.warm_up_lr) may help"
        reason = f"{error}; {_last_checkpoint(folder)}; {hint}"
        # A study counts the divergence and does not train this run again.
        folder.finish_diverged(state.step, reason)
        raise NonFiniteLossError(reason) from None
    except DataError as error:  # an image file that cannot be read
        raise DataError(
            f"{error}; {_last_checkpoint(folder)}; {_resume_hint(setup, folder)}"
        ) from None
    except OSError as error:
        reason = (
            f"{error.strerror} while writing to {folder.path}{disk_state(error, folder.path)}; "
            f"{_last_checkpoint(folder)}; {_resume_hint(setup, folder)}"
        )
        raise OSError(error.errno, reason) from None


def _resume_hint(setup: RunSetup, folder: RunFolder) -> str:
    if not folder.exists():
        return f"{folder.path} was removed meanwhile, so begin again in another --out"
    command = f"{setup.processes.launcher}reslearn train --resume --out "
    command += shlex.quote(str(folder.path))
    if setup.machine.data_dir is not None:
        command += f" --data-dir {shlex.quote(str(setup.machine.data_dir))}"
    return f"continue with: {command}"


def _last_checkpoint(folder: RunFolder) -> str:
    paths = folder.checkpoints()
    return f"the last good checkpoint is {paths[-1]}" if paths else "there is no checkpoint yet"


def _finish(setup: RunSetup, state: State, log: RunLog) -> dict[str, Any]:
    """Evaluate the network on all sets, write the bundle, and write the result last."""
    network, dataset, folder = state.network, setup.dataset, log.folder
    setup.processes.broadcast_buffers(network)
    if setup.recipe.evaluation.best:
        _restore_best(setup, state)
    if setup.recipe.evaluation.batch_norm == "exact":
        _recompute_batch_norm(setup, network)
    train_metrics = setup.evaluate(network, _images_of_training_error(setup))
    check_finite("training", state.step, train_metrics)
    recomputed = _evaluate_recomputed(setup, network, state.step)
    validation: Metrics | None = None
    if dataset.validation is not None:
        validation = setup.evaluate(network, dataset.validation)
        log.evaluation("validation", state.step, validation)
    temperature = setup.fit_temperature(network)
    test = setup.evaluate(network, dataset.test)
    log.evaluation("test", state.step, test)
    skipped = _gather_skipped_images(setup, log)
    result = {
        "test_top1_error_pct": test.top1_error_pct,
        "test_loss": test.loss,
        "train_top1_error_pct": train_metrics.top1_error_pct,
        "train_loss": train_metrics.loss,
        "train_recomputed_top1_error_pct": recomputed.top1_error_pct if recomputed else None,
        "train_recomputed_loss": recomputed.loss if recomputed else None,
        "validation_top1_error_pct": validation.top1_error_pct if validation else None,
        "seconds": round(log.seconds, 3),
        "images": state.step * setup.recipe.train.batch_size,
        "steps": state.step,
        "epochs": state.step / setup.steps_per_epoch,
        "macs": setup.complexity.macs,
        "parameters": setup.complexity.parameters,
        "test_images": test.num_images,
        "test_touched": len(folder.metrics("test")),
        "resumed_at": folder.environment.get("resumed_at", []),
        "warmed_up_at_step": state.learning_rate.warmed_up_at_step,
        "temperature": temperature,
        "skipped_images": len(skipped),
        "skipped": skipped.record(),
        **_decisions(setup, state),
    }
    log.bundle(network, folder.bundle_path, metrics=result, temperature=temperature)
    is_first = setup.processes.is_first
    return setup.processes.broadcast(folder.finish(result) if is_first else result)


def _gather_skipped_images(setup: RunSetup, log: RunLog) -> SkipLog:
    """Return the images that could not be read, on any process, and say how many."""
    skip_log = setup.dataset.skip_log
    for images in setup.processes.collect(skip_log.images()):
        for image in images:
            skip_log.add(image)
    if len(skip_log):
        first = skip_log.images()[0]
        log.say(
            f"images that could not be read and were left out: {len(skip_log):,}; "
            f"the first is {first.path} ({first.reason})"
        )
    return skip_log


def _restore_best(setup: RunSetup, state: State) -> None:
    """Put the network with the lowest validation error, or the last one, into the state."""
    assert setup.dataset.validation is not None
    last = setup.evaluate(state.network, setup.dataset.validation)
    state.selection.observe(state.network, last.top1_error_pct, step=state.step)
    state.selection.restore_best(state.network)


def _decisions(setup: RunSetup, state: State) -> dict[str, Any]:
    """Return what validation errors and a time limit decided, where the recipe let them."""
    decisions: dict[str, Any] = {}
    if state.learning_rate.ends:
        decisions["schedule_ends"] = [list(end) for end in state.learning_rate.ends]
    if setup.recipe.evaluation.best:
        decisions["best_step"] = state.selection.best_step
    if setup.recipe.evaluation.early_stop is not None:
        decisions["stopped_early"] = state.selection.last_step is not None
    return decisions


def _time_limit(setup: RunSetup, end_at: float) -> TimeLimit:
    """Create the time limit of a run, with the images that are evaluated after its last step."""
    num_images = len(_images_of_training_error(setup)) + len(setup.dataset.test)
    # Validation images are evaluated once more to fit the temperature.
    num_images += 2 * len(setup.dataset.validation or ())
    num_images += 2 * min(setup.recipe.evaluation.recompute_images, len(setup.dataset.train))
    batch_size = setup.recipe.train.batch_size
    return TimeLimit(end_at, closing_images=num_images, images_per_step=batch_size)


def _images_of_training_error(setup: RunSetup) -> ImageSet:
    num_images = setup.recipe.evaluation.train_images
    images = setup.dataset.train
    return images if num_images is None else images.evenly_spaced(num_images)


def _evaluate_recomputed(setup: RunSetup, network: nn.Module, step: int) -> Metrics | None:
    """Evaluate a copy with exact batch-norm statistics on some training images, if asked for."""
    num_images = setup.recipe.evaluation.recompute_images
    if not num_images:
        return None
    network_copy = deepcopy(network)
    _recompute_batch_norm(setup, network_copy)
    metrics = setup.evaluate(network_copy, setup.dataset.train.evenly_spaced(num_images))
    check_finite("training", step, metrics)
    return metrics


def _recompute_batch_norm(setup: RunSetup, network: nn.Module) -> None:
    """Recompute batch-norm statistics on training images.

    Each process uses all these images, so the bits do not depend on the number of processes.
    """
    images, num_images = setup.dataset.train, setup.recipe.evaluation.recompute_images
    if num_images:
        images = images.evenly_spaced(num_images)
    batches = setup.evaluation_batches(images, "recomputing batch-norm statistics")
    recompute_batch_norm(network, batches, autocast=setup.numerics.autocast())
