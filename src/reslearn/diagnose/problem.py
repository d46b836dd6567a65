"""What is diagnosed: how the network is built, the data it is to learn, the loss and the optimizer, checked before anything is trained.

Shapes: inputs [N, ...] float, targets int64 [N] (classes) or float [N, ...] (regression). Losses are told as shares of the loss of
guessing: 1 is what the best constant answer has, 0 is perfect, so that tasks can be compared and margins mean something.
"""

from __future__ import annotations

import importlib.util
import inspect
import math
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

from reslearn import data as data_room
from reslearn.data import permutation

Build = Callable[[], nn.Module]
MakeOptimizer = Callable[[Any, float], torch.optim.Optimizer]

HELD_OUT_SHARE = 0.2
MAX_EVALUATED = 2000
OPTIMIZERS: dict[str, tuple[MakeOptimizer, float]] = {
    "sgd": (lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9), 0.1),
    "adam": (lambda parameters, lr: torch.optim.Adam(parameters, lr=lr), 1e-3),
    "adamw": (lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr), 1e-3),
}


class DiagnosisError(ValueError):
    """What cannot be diagnosed: names the value and what is needed, and the line of the user's code where there is one."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A network and what it is to learn. `lr` is the user's learning rate, or the usual one of the optimizer, which is not judged; the
    experiments try others too."""

    build: Build
    name: str
    inputs: Tensor
    targets: Tensor
    held_inputs: Tensor
    held_targets: Tensor
    task: Literal["classification", "regression"]
    loss: Callable[[Tensor, Tensor], Tensor]
    make_optimizer: MakeOptimizer
    optimizer_name: str
    lr: float
    lr_is_given: bool
    batch_size: int
    guess_loss: float

    def net(self, seed: int) -> nn.Module:
        """A fresh network with the weights of `seed`; the global generator is put back."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self.build()

    @property
    def example(self) -> Tensor:
        """A few inputs to look at shapes with."""
        return self.inputs[:4]


def make_problem(
    build: Callable[..., nn.Module],
    data: Any,
    *,
    name: str = "network",
    depth: int | None = None,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    optimizer: str | MakeOptimizer = "sgd",
    lr: float | None = None,
    batch_size: int = 64,
    size_px: int | None = None,
    data_dir: Path | None = None,
) -> Problem:
    """Check and put together. `build` takes nothing, or `depth`; `data`: (inputs, targets), a callable that gives them, a name, a folder.

    optimizer: a name, or a callable that takes parameters and a learning rate. size_px: the side of a folder's images, in pixels.
    Raises DiagnosisError in one line for a build that fails or gives no module, data of the wrong shape or kind, a network that does not
    take the data or does not give one tensor that the loss takes; DataError for data that are not there.
    """
    inputs, targets = _tensors(data, data_dir, size_px)
    if callable(optimizer):
        make_optimizer, usual_lr, optimizer = (
            optimizer,
            0.0,
            getattr(optimizer, "__name__", "an optimizer of your own"),
        )
        if lr is None:
            raise DiagnosisError(f"lr: of {optimizer} no usual learning rate is known; give one")
    elif optimizer in OPTIMIZERS:
        make_optimizer, usual_lr = OPTIMIZERS[optimizer]
    else:
        raise DiagnosisError(
            f"optimizer {optimizer!r}: allowed are {', '.join(OPTIMIZERS)}, or FILE.py:FUNCTION of parameters and a rate"
        )
    if lr is not None and not (lr > 0 and math.isfinite(lr)):
        raise DiagnosisError(f"lr {lr}: a number above 0 is needed")
    if batch_size < 1:
        raise DiagnosisError(f"batch_size {batch_size}: at least 1 is needed")
    task: Literal["classification", "regression"] = (
        "regression" if targets.is_floating_point() else "classification"
    )
    order = permutation(0, 0, len(inputs))
    num_held = max(1, round(HELD_OUT_SHARE * len(inputs)))
    held, kept = order[:num_held], order[num_held:]
    chosen: Callable[[Tensor, Tensor], Tensor] = loss or (
        functional.cross_entropy if task == "classification" else functional.mse_loss
    )
    if isinstance(chosen, type):
        chosen = chosen()  # a class, such as torch.nn.CrossEntropyLoss
    problem = Problem(
        build=bound(build, depth),
        name=name,
        inputs=inputs[kept],
        targets=targets[kept],
        held_inputs=inputs[held],
        held_targets=targets[held],
        task=task,
        loss=chosen,
        make_optimizer=make_optimizer,
        optimizer_name=optimizer,
        lr=lr or usual_lr,
        lr_is_given=lr is not None,
        batch_size=min(batch_size, len(kept)),
        guess_loss=1.0,
    )
    outputs = _tried(problem)
    problem = _with_guess(problem, outputs)
    _try_a_step(problem)
    return problem


def load_build(place: str) -> tuple[Callable[..., Any], str]:
    """`path/to/file.py:build` or `package.module:build` to the callable (data, loss and optimizer too) and a name.

    DiagnosisError where it cannot be had.
    """
    module_name, _, attribute = place.rpartition(":")
    if not module_name or not attribute:
        raise DiagnosisError(
            f"{place}: FILE.py:BUILD or MODULE:BUILD is needed, as in net.py:build"
        )
    try:
        if module_name.endswith(".py"):
            path = Path(module_name)
            if not path.is_file():
                raise DiagnosisError(f"{module_name}: there is no such file")
            _find_in(path.resolve().parent)
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None and spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            sys.modules.setdefault(path.stem, module)
            spec.loader.exec_module(module)
        else:
            _find_in(Path.cwd())
            module = importlib.import_module(module_name)
    except DiagnosisError:
        raise
    except (Exception, SystemExit) as error:  # what a stranger's file raises is anybody's guess
        raise DiagnosisError(f"{module_name} cannot be imported: {_told(error)}") from None
    build = getattr(module, attribute, None)
    if not callable(build):
        own = {
            name: value
            for name, value in vars(module).items()
            if callable(value) and not name.startswith("_")
        }
        there = [
            name
            for name, value in own.items()
            if getattr(value, "__module__", None) == module.__name__
        ] or list(own)
        raise DiagnosisError(
            f"{module_name} has no callable {attribute!r}; there are {', '.join(there) or 'none'}"
        )
    return build, f"{Path(module_name).stem}:{attribute}"


def _find_in(folder: Path) -> None:
    """Let a stranger's file import those beside it, as `python FILE.py` does; the command's own path begins elsewhere."""
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def bound(build: Callable[..., nn.Module], depth: int | None) -> Build:
    """As a callable without arguments. DiagnosisError where it needs others than `depth`, or takes none."""
    try:
        parameters = inspect.signature(build).parameters.values()
    except (TypeError, ValueError):
        parameters = ()  # type: ignore[assignment]  # a builtin tells nothing
    needed = [
        one.name
        for one in parameters
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    if depth is None and needed:
        hint = (
            "give --depth N"
            if needed == ["depth"]
            else "give defaults, or a function without arguments"
        )
        raise DiagnosisError(
            f"build needs the argument{'s' * (len(needed) > 1)} {', '.join(needed)}: {hint}"
        )
    if depth is not None and "depth" not in {one.name for one in parameters}:
        raise DiagnosisError(f"depth {depth}: build takes no depth")
    return (lambda: build(depth=depth)) if depth is not None else build


def _tensors(data: Any, data_dir: Path | None, size_px: int | None) -> tuple[Tensor, Tensor]:
    if callable(data):
        try:
            data = data()
        except (Exception, SystemExit) as error:
            raise DiagnosisError(f"the data function failed: {_told(error)}") from None
    if isinstance(data, str | Path):
        dataset = data_room.load(data, data_dir=data_dir, size_px=size_px)
        assert isinstance(dataset.train, data_room.Images)  # stream was not asked for
        return data_room.Preprocess.fit(dataset.train)(dataset.train.pixels), dataset.train.labels
    if isinstance(data, TensorDataset):
        data = data.tensors
    elif isinstance(data, DataLoader):
        data = [torch.cat(parts) for parts in zip(*data, strict=True)]
    if not (isinstance(data, tuple | list) and len(data) == 2):
        raise DiagnosisError(
            f"data are a {type(data).__name__}: a pair (inputs, targets), a name or a folder is needed"
        )
    inputs, targets = (
        _tensor(part, what) for part, what in zip(data, ("inputs", "targets"), strict=True)
    )
    if len(inputs) != len(targets):
        raise DiagnosisError(f"{len(inputs)} inputs and {len(targets)} targets: as many are needed")
    if len(inputs) < 20:
        raise DiagnosisError(f"{len(inputs)} examples: at least 20 are needed")
    if targets.is_floating_point():
        if not torch.isfinite(targets).all():
            raise DiagnosisError("targets are not finite: nan or infinity among them")
        targets = targets.float()
    else:
        targets = targets.long()
        if targets.ndim != 1:
            raise DiagnosisError(
                f"integer targets of shape {tuple(targets.shape)}: classes 0, 1, ... of shape [N] are needed"
            )
        if int(targets.min()) < 0:
            raise DiagnosisError(
                f"integer targets from {int(targets.min())} on: classes 0, 1, ... are needed"
            )
    return (
        inputs.float() if inputs.is_floating_point() or inputs.dtype == torch.uint8 else inputs,
        targets,
    )


def _tensor(part: Any, what: str) -> Tensor:
    try:
        made = torch.as_tensor(part).detach()
    except (TypeError, ValueError, RuntimeError) as error:
        raise DiagnosisError(f"{what} make no tensor: {_told(error)}") from None
    if made.ndim == 0:
        raise DiagnosisError(f"{what} are a single number: a row for each example is needed")
    return made


def _tried(problem: Problem) -> Tensor:
    """Outputs of a fresh network on a few inputs."""
    try:
        net, other = problem.net(0), problem.net(1)
    except (Exception, SystemExit) as error:
        raise DiagnosisError(f"build failed: {_told(error)}") from None
    if not isinstance(net, nn.Module):
        raise DiagnosisError(
            f"build gave {net!r:.40}, of type {type(net).__name__}: an nn.Module is needed"
        )
    if net is other or not {id(one) for one in net.parameters()}.isdisjoint(
        id(one) for one in other.parameters()
    ):
        raise DiagnosisError(
            "build gave the same parameters twice: it must make a new network at each call"
        )
    if any(isinstance(parameter, nn.UninitializedParameter) for parameter in net.parameters()):
        raise DiagnosisError(
            "build gave layers without a size yet (LazyLinear and its like): let it run the network once on an example"
        )
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise DiagnosisError("build gave a network without parameters to train")
    ill = next(
        (name for name, parameter in net.named_parameters() if not torch.isfinite(parameter).all()),
        None,
    )
    if ill is not None:
        raise DiagnosisError(
            f"build gave a network whose {ill} is not finite: nan or infinity among its weights"
        )
    try:
        outputs = net(problem.example)
    except Exception as error:
        raise DiagnosisError(
            f"the network cannot take inputs of shape {tuple(problem.example.shape)}: {_told(error)}"
        ) from None
    if not isinstance(outputs, Tensor):
        raise DiagnosisError(f"the network gives a {type(outputs).__name__}: one tensor is needed")
    if problem.task == "classification":
        classes = int(max(problem.targets.max(), problem.held_targets.max())) + 1
        if outputs.ndim != 2 or outputs.shape[1] < classes:
            raise DiagnosisError(
                f"the network gives {tuple(outputs.shape[1:])} an input, and the targets have {classes} classes"
            )
    elif outputs.shape != problem.targets[: len(outputs)].shape:
        gives = f"the network gives {tuple(outputs.shape[1:])} an input, and targets are {tuple(problem.targets.shape[1:])}"
        raise DiagnosisError(
            gives
            + ("" if problem.targets.ndim > 1 else "; classes are told by whole numbers (int64)")
        )
    return outputs


def _with_guess(problem: Problem, outputs: Tensor) -> Problem:
    """The loss of the best constant answer: class frequencies, the mean, the median or what the loss itself leads to from there."""
    targets = problem.targets
    if problem.task == "classification":
        starts = [
            (torch.bincount(targets, minlength=outputs.shape[1]).float() / len(targets))
            .clamp_min(1e-6)
            .log()
        ]
    else:
        starts = [targets.mean(0), targets.median(0).values]
    guess = min(
        (_best_constant(problem, start) for start in starts),
        key=lambda loss: loss if math.isfinite(loss) else math.inf,
    )
    if not math.isfinite(guess):
        raise DiagnosisError(
            f"the loss of a constant answer is {guess}: is it of (outputs, targets)?"
        )
    if guess <= 1e-4:
        raise DiagnosisError(
            f"nothing to learn: guessing has a loss of {guess:.3g}. All targets are the same, or the loss goes below 0"
        )
    return replace(problem, guess_loss=guess)


def _best_constant(problem: Problem, start: Tensor) -> float:
    """The least loss that a constant answer reaches, from `start` [...] downhill."""
    targets, constant = problem.targets, start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([constant], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = _loss(problem, constant.expand(len(targets), *start.shape), targets)
        torch.autograd.backward(value)
        return value

    least = float(loss().detach())
    half = len(targets) // 2
    part = float(_loss(problem, constant.detach().expand(half, *start.shape), targets[:half]))
    twice = float(
        _loss(
            problem,
            constant.detach().expand(2 * half, *start.shape),
            targets[:half].repeat(2, *[1] * (targets.ndim - 1)),
        )
    )
    if abs(twice - 2 * part) < 1e-3 * abs(part):
        raise DiagnosisError(
            "the loss doubles with the number of examples (reduction='sum'?): a mean over examples is needed"
        )
    optimizer.step(loss)  # type: ignore[no-untyped-call]
    found = float(loss().detach())
    return min(least, found) if math.isfinite(found) else least


def _loss(problem: Problem, outputs: Tensor, targets: Tensor) -> Tensor:
    """One number that can be trained by, or DiagnosisError."""
    try:
        value = problem.loss(outputs, targets)
    except Exception as error:
        raise DiagnosisError(f"the loss cannot take outputs and targets: {_told(error)}") from None
    if not (isinstance(value, Tensor) and value.numel() == 1):
        raise DiagnosisError(f"the loss gives {_kind(value)}: one number as a tensor is needed")
    if outputs.requires_grad and not value.requires_grad:
        raise DiagnosisError(
            "the loss does not depend on the outputs in a way that can be trained by"
        )
    return value


def _try_a_step(problem: Problem) -> None:
    """All that a trial does, once on one batch, so that what cannot be trained is told in a line."""
    net = problem.net(0)
    try:
        optimizer = problem.make_optimizer(net.parameters(), problem.lr)
    except Exception as error:
        raise DiagnosisError(
            f"the optimizer cannot be made of parameters and a rate: {_told(error)}"
        ) from None
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise DiagnosisError(
            f"the optimizer is {_kind(optimizer)}: a torch.optim.Optimizer is needed"
        )
    x, y = problem.inputs[: problem.batch_size], problem.targets[: problem.batch_size]
    try:
        outputs = net.train()(x)
    except Exception as error:
        raise DiagnosisError(
            f"the network cannot take a batch of {len(x)} inputs in training: {_told(error)}"
        ) from None
    torch.autograd.backward(_loss(problem, outputs, y))
    try:
        optimizer.step()
    except Exception as error:
        raise DiagnosisError(f"the optimizer cannot make a step: {_told(error)}") from None
    try:
        net.eval()(problem.held_inputs[:3])
    except Exception as error:
        raise DiagnosisError(f"the network cannot be evaluated: {_told(error)}") from None


def _kind(value: object) -> str:
    return (
        f"a tensor of shape {tuple(value.shape)}"
        if isinstance(value, Tensor)
        else f"a {type(value).__name__}"
    )


def _told(error: BaseException) -> str:
    """What went wrong and where in the user's code, in one line."""
    text = str(error).splitlines()[0] if str(error) else type(error).__name__
    ours = ("/reslearn/diagnose/", "/reslearn/models/", "/torch/", "<")
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not any(part in frame.filename for part in ours)
    ]
    if isinstance(error, SyntaxError) and error.filename:
        return f"{text} ({error.filename}:{error.lineno})"
    return f"{type(error).__name__}: {text}" + (
        f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else ""
    )
