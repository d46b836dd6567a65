"""The problem to diagnose: how the network is built, its data, its loss and its optimizer.

`make_problem` checks all of them before anything is trained.

Shapes: inputs [N, ...] float; targets int64 [N] (classes) or float [N, ...] (regression).
A score is a loss divided by the loss of guessing. Guessing is the best constant answer: it has
score 1, and a perfect network has score 0. So scores and margins are comparable between tasks.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from reslearn.data import permutation
from reslearn.diagnose.user_code import (
    Build,
    DiagnosisError,
    bind_depth,
    describe,
    describe_type,
)
from reslearn.diagnose.user_data import load_data
from reslearn.diagnose.wiring import unregistered_modules

Loss = Callable[[Tensor, Tensor], Tensor]
MakeOptimizer = Callable[[Any, float], torch.optim.Optimizer]

HELD_OUT_SHARE = 0.2
MAX_EVALUATED = 2000
"""Number of examples on which a score is measured, at most."""
OPTIMIZERS: dict[str, tuple[MakeOptimizer, float]] = {
    "sgd": (lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9), 0.1),
    "adam": (lambda parameters, lr: torch.optim.Adam(parameters, lr=lr), 1e-3),
    "adamw": (lambda parameters, lr: torch.optim.AdamW(parameters, lr=lr), 1e-3),
}
"""Optimizers by name, each with its usual learning rate."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Problem:
    """A network and its task.

    `lr` is the user's learning rate, or the usual one of the optimizer if none was given. Only a
    learning rate that was given is judged. The experiments try other rates too. `seed` changes all
    random numbers of the trials: weights and the order of examples.
    """

    build: Build
    name: str
    inputs: Tensor
    targets: Tensor
    held_inputs: Tensor
    held_targets: Tensor
    task: Literal["classification", "regression"]
    loss: Loss
    make_optimizer: MakeOptimizer
    optimizer_name: str
    lr: float
    lr_is_given: bool
    batch_size: int
    guess_loss: float
    seed: int = 0

    def net(self, seed: int) -> nn.Module:
        """Build a network with the weights of `seed`; the global generator is restored."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.random_seed(seed))
            return self.build()

    def random_seed(self, seed: int) -> int:
        """Return the seed of the generator for the trial of `seed`."""
        return seed + 10_000 * self.seed

    @property
    def example(self) -> Tensor:
        """The first four inputs, used to trace shapes."""
        return self.inputs[:4]


def make_problem(
    build: Callable[..., nn.Module],
    data: Any,
    *,
    name: str = "network",
    depth: int | None = None,
    loss: Loss | None = None,
    optimizer: str | MakeOptimizer = "sgd",
    lr: float | None = None,
    batch_size: int = 64,
) -> Problem:
    """Put a problem together and check it.

    One step of training is tried, so that errors appear early.

    Args:
        build: Returns a new network. Takes no argument, or `depth`.
        data: Anything that `load_data` accepts: a pair (inputs, targets), for example.
        name: How reports call the network.
        depth: Passed to `build`.
        loss: A function of (outputs, targets), or a class of losses. By default cross-entropy for
            classes and mean squared error for regression.
        optimizer: "sgd", "adam", "adamw", or a function of (parameters, learning rate).
        batch_size: Number of examples per step.

    Raises:
        DiagnosisError: If one of them cannot be used; the message is one line.
    """
    inputs, targets = load_data(data)
    optimizer_name, make_optimizer, usual_lr = _resolve_optimizer(optimizer)
    chosen_lr = _resolve_lr(lr, usual_lr, optimizer_name)
    if batch_size < 1:
        raise DiagnosisError(f"batch_size is {batch_size}: give at least 1")
    task: Literal["classification", "regression"] = "classification"
    if targets.is_floating_point():
        task = "regression"
    order = permutation(0, 0, len(inputs))
    num_held = max(1, round(HELD_OUT_SHARE * len(inputs)))
    held_out, training = order[:num_held], order[num_held:]
    problem = Problem(
        build=bind_depth(build, depth),
        name=name,
        inputs=inputs[training],
        targets=targets[training],
        held_inputs=inputs[held_out],
        held_targets=targets[held_out],
        task=task,
        loss=_resolve_loss(loss, task),
        make_optimizer=make_optimizer,
        optimizer_name=optimizer_name,
        lr=chosen_lr,
        lr_is_given=lr is not None,
        batch_size=min(batch_size, len(training)),
        guess_loss=1.0,
    )
    _check_build(problem)
    problem = _with_guess_loss(problem, _check_outputs(problem))
    _try_a_step(problem)
    return problem


def _resolve_optimizer(optimizer: str | MakeOptimizer) -> tuple[str, MakeOptimizer, float | None]:
    """Return the name, the function and the usual learning rate, if there is one."""
    if not isinstance(optimizer, str):
        return getattr(optimizer, "__name__", "a custom optimizer"), optimizer, None
    if optimizer not in OPTIMIZERS:
        raise DiagnosisError(
            f"optimizer {optimizer!r} is unknown: allowed are {', '.join(OPTIMIZERS)}, or "
            "FILE.py:FUNCTION, a function of parameters and a learning rate"
        )
    return (optimizer, *OPTIMIZERS[optimizer])


def _resolve_lr(lr: float | None, usual_lr: float | None, optimizer_name: str) -> float:
    if lr is None:
        if usual_lr is None:
            raise DiagnosisError(
                f"lr is missing: {optimizer_name} has no usual learning rate; give one"
            )
        return usual_lr
    if not (lr > 0 and math.isfinite(lr)):
        raise DiagnosisError(f"lr is {lr}: give a finite number above 0")
    return lr


def _resolve_loss(loss: Loss | None, task: str) -> Loss:
    if loss is None:
        return functional.cross_entropy if task == "classification" else functional.mse_loss
    if isinstance(loss, type):
        return loss()  # type: ignore[no-any-return]  # a class, such as nn.CrossEntropyLoss
    return loss


def _check_build(problem: Problem) -> None:
    """Check that every call of `build` returns a new module with finite parameters to train."""
    try:
        net, second_net = problem.net(0), problem.net(1)
    except (Exception, SystemExit) as error:
        raise DiagnosisError(f"build failed: {describe(error)}") from None
    if not isinstance(net, nn.Module):
        raise DiagnosisError(
            f"build returned {net!r:.40} of type {type(net).__name__}: return an nn.Module"
        )
    parameters = list(net.parameters())
    identities = {id(parameter) for parameter in parameters}
    is_shared = any(id(parameter) in identities for parameter in second_net.parameters())
    if net is second_net or is_shared:
        raise DiagnosisError(
            "build returned the same parameters twice: create a new network at each call"
        )
    if any(isinstance(parameter, nn.UninitializedParameter) for parameter in parameters):
        raise DiagnosisError(
            "build returned lazy layers without a size (LazyLinear, for example): "
            "run the network once on an example inside build"
        )
    if not any(parameter.requires_grad for parameter in parameters):
        cause = unregistered_modules(net)
        raise DiagnosisError(
            "build returned a network without parameters to train" + (f": {cause}" if cause else "")
        )
    for name, parameter in net.named_parameters():
        if not torch.isfinite(parameter).all():
            raise DiagnosisError(
                f"build returned a network whose {name} is not finite: it holds NaN or infinity"
            )


def _check_outputs(problem: Problem) -> Tensor:
    """Return the outputs of a new network on a few inputs, if they fit the targets."""
    try:
        outputs = problem.net(0)(problem.example)
    except Exception as error:
        raise DiagnosisError(
            f"the network cannot take inputs of shape {tuple(problem.example.shape)}: "
            f"{describe(error)}"
        ) from None
    if not isinstance(outputs, Tensor):
        raise DiagnosisError(
            f"the network returns {describe_type(outputs)}: it must return one tensor"
        )
    shape = tuple(outputs.shape[1:])
    if problem.task == "classification":
        num_classes = int(max(problem.targets.max(), problem.held_targets.max())) + 1
        if outputs.ndim != 2 or outputs.shape[1] < num_classes:
            starts_at_1 = min(problem.targets.min(), problem.held_targets.min()) == 1
            hint = "; they start at 1, so subtract 1 from all of them" if starts_at_1 else ""
            raise DiagnosisError(
                f"the network returns {shape} per input, but the targets have {num_classes} classes"
                f"{hint}"
            )
    elif outputs.shape != problem.targets[: len(outputs)].shape:
        message = (
            f"the network returns {shape} per input, but a target has the shape "
            f"{tuple(problem.targets.shape[1:])}"
        )
        if problem.targets.ndim == 1:
            message += "; if the targets are classes, convert them to integers (int64)"
            if shape == (1,):
                message += (
                    "; if they are numbers, a loss such as mse_loss compares each output with all "
                    "targets, so that only their mean is learned: give targets of shape (N, 1)"
                )
        raise DiagnosisError(message)
    return outputs


def _with_guess_loss(problem: Problem, outputs: Tensor) -> Problem:
    if _are_log_probabilities(problem, outputs):
        problem = replace(problem, loss=_LogProbabilityLoss(problem.loss))
    return replace(problem, guess_loss=_loss_of_guessing(problem, outputs))


def _are_log_probabilities(problem: Problem, outputs: Tensor) -> bool:
    """Return whether a network gives log-probabilities to a loss that needs them, as nll_loss."""
    if problem.task != "classification" or bool((outputs > 0).any()):
        return False
    if bool(((outputs.exp().sum(1) - 1).abs() > 1e-3).any()):
        return False
    targets = problem.targets[: len(outputs)]
    losses = (_checked_loss(problem, outputs + shift, targets) for shift in (0.0, 1.0))
    loss, shifted = (float(value.detach()) for value in losses)
    return abs(loss - shifted) > 1e-3  # cross-entropy does not change, and needs no logarithms


@dataclass(frozen=True)
class _LogProbabilityLoss:
    """A loss of log-probabilities as a loss of any outputs.

    Log-probabilities stay the same. A constant answer or another network, whose outputs are not
    normalized, would make such a loss as small as one likes.
    """

    loss: Loss

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return self.loss(functional.log_softmax(outputs, 1), targets)


def _loss_of_guessing(problem: Problem, outputs: Tensor) -> float:
    """Return the loss of the best constant answer.

    The search starts from class frequencies, or from the mean and the median of the targets.
    """
    targets = problem.targets
    if problem.task == "classification":
        shares = torch.bincount(targets, minlength=outputs.shape[1]).float() / len(targets)
        starts = [shares.clamp_min(1e-6).log()]
    else:
        starts = [targets.mean(0), targets.median(0).values]
    losses = [_best_constant(problem, start) for start in starts]
    guess = min(losses, key=lambda loss: loss if math.isfinite(loss) else math.inf)
    if not math.isfinite(guess):
        raise DiagnosisError(
            f"the loss of a constant answer is {guess}: check that the loss takes "
            "(outputs, targets) in this order"
        )
    if guess <= 1e-4:
        raise DiagnosisError(
            f"there is nothing to learn: guessing has a loss of {guess:.3g}. "
            "All targets are the same, or the loss goes below 0"
        )
    return guess


def _best_constant(problem: Problem, start: Tensor) -> float:
    """Return the smallest loss that a constant answer [...] reaches by descent from `start`."""
    targets, constant = problem.targets, start.clone().requires_grad_()
    optimizer = torch.optim.LBFGS([constant], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = _checked_loss(problem, constant.expand(len(targets), *start.shape), targets)
        torch.autograd.backward(value)
        return value

    first_loss = float(loss().detach())
    _check_that_loss_is_a_mean(problem, constant.detach())
    try:
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    except DiagnosisError:  # some losses take only probabilities, and the search left their range
        return first_loss
    last_loss = float(loss().detach())
    return min(first_loss, last_loss) if math.isfinite(last_loss) else first_loss


def _check_that_loss_is_a_mean(problem: Problem, constant: Tensor) -> None:
    """Refuse a loss that doubles when every example occurs twice."""
    half = len(problem.targets) // 2
    targets = problem.targets[:half]
    doubled = targets.repeat(2, *[1] * (targets.ndim - 1))
    once = float(_checked_loss(problem, constant.expand(half, *constant.shape), targets))
    twice = float(_checked_loss(problem, constant.expand(2 * half, *constant.shape), doubled))
    if abs(twice - 2 * once) < 1e-3 * abs(once):
        raise DiagnosisError(
            "the loss doubles with the number of examples: it must be a mean over examples "
            "(is it reduction='sum'?)"
        )


def _checked_loss(problem: Problem, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss, if it is one number with a gradient."""
    try:
        value = problem.loss(outputs, targets)
    except Exception as error:
        raise DiagnosisError(
            f"the loss cannot take outputs and targets: {describe(error)}"
        ) from None
    if not (isinstance(value, Tensor) and value.numel() == 1):
        raise DiagnosisError(
            f"the loss returns {describe_type(value)}: it must return a tensor of one number"
        )
    if outputs.requires_grad and not value.requires_grad:
        raise DiagnosisError("the loss has no gradient with respect to the outputs")
    return value


def _try_a_step(problem: Problem) -> None:
    """Do everything that a trial does once, on one batch, so that errors appear early."""
    net = problem.net(0)
    try:
        optimizer = problem.make_optimizer(net.parameters(), problem.lr)
    except Exception as error:
        raise DiagnosisError(
            f"the optimizer cannot be created from parameters and a rate: {describe(error)}"
        ) from None
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise DiagnosisError(
            f"the optimizer is {describe_type(optimizer)}: it must be a torch.optim.Optimizer"
        )
    x, y = problem.inputs[: problem.batch_size], problem.targets[: problem.batch_size]
    try:
        outputs = net.train()(x)
    except Exception as error:
        raise DiagnosisError(
            f"the network cannot train on a batch of {len(x)} inputs: {describe(error)}"
        ) from None
    loss = _checked_loss(problem, outputs, y)
    if not loss.requires_grad:
        raise DiagnosisError(
            "the outputs have no gradient with respect to any parameter: forward cuts it, by "
            "detach, .data, torch.no_grad or NumPy; remove the cut"
        )
    torch.autograd.backward(loss)
    try:
        optimizer.step()
    except Exception as error:
        raise DiagnosisError(f"the optimizer cannot make a step: {describe(error)}") from None
    try:
        net.eval()(problem.held_inputs[:3])
    except Exception as error:
        raise DiagnosisError(f"the network cannot be evaluated: {describe(error)}") from None
