"""Table 6: test error of residual networks on CIFAR-10, and their parameters (Sec. 4.2).

ResNet-1202 is counted. It is trained only if --depths asks for it, because it alone takes two
thirds of the arithmetic.
"""

from reslearn.paper.experiment import Experiment, Line, Result, model_name
from reslearn.paper.numbers import numbers, spreads
from reslearn.paper.rules import MARGIN_PCT, against_paper, exact, is_papers_own, not_run
from reslearn.paper.trained import TEST_ERROR, Trained

EXPERIMENT = Experiment(
    name="table6",
    text="Test error on CIFAR-10",
    section="Table 6",
    rule=(
        "Reproduced: two one-sided t tests at 5 % place the mean test error of the last epoch "
        f"within {MARGIN_PCT:g} points of the paper's number (for 110 layers a mean of five runs, "
        "with its spread). Not reproduced: the 95 % interval lies outside that margin. With "
        "another budget than the paper's 64k steps, or on other data, the numbers have no reason "
        "to agree, and there is no verdict. Parameters: reproduced if they equal the printed "
        "number when they are rounded to its digits."
    ),
    kinds=("residual",),
    depths={
        "smoke": (8, 20),
        "short": (20, 32, 56, 110),
        "medium": (20, 32, 56, 110),
        "full": (20, 32, 44, 56, 110),
    },
)
# 1.7 and 19.4 are printed with one decimal, the other numbers of parameters with two.
_HALF_OF_LAST_DIGIT = {"resnet110": 0.05, "resnet1202": 0.05}


def measure(trained: Trained) -> Result:
    """Compare the errors, then the parameters, network by network."""
    errors = {}
    for depth in trained.budget.depths_of("residual"):
        model = model_name("residual", depth)
        errors[model] = [trained.value(model, seed, TEST_ERROR) for seed in trained.seeds]
    lines = [_error_line(model, values, trained) for model, values in errors.items()]
    for model, paper in numbers("table6").items():
        if model not in errors:
            because = f"--depths {model.removeprefix('resnet')} trains it"
            lines.append(not_run(f"{model}, test error", because, unit="%", paper=paper))
    lines += [
        _parameter_line(model, paper) for model, paper in numbers("table6_parameters").items()
    ]
    return Result(lines=tuple(lines), numbers={"test_error_pct": errors})


def _error_line(model: str, values: list[float], trained: Trained) -> Line:
    what = f"{model}, test error"
    paper = numbers("table6").get(model)
    if paper is None:
        because = "the paper's table has no such network"
        return not_run(what, because, unit="%", values=tuple(values))
    return against_paper(
        what,
        values,
        paper,
        same_protocol=is_papers_own(trained),
        spread=spreads("table6").get(model),
    )


def _parameter_line(model: str, paper: float) -> Line:
    import torch

    from reslearn.models import build

    with torch.device("meta"):
        network = build(model, num_classes=10)
    millions = sum(parameter.numel() for parameter in network.parameters()) / 1e6
    within = _HALF_OF_LAST_DIGIT.get(model, 0.005)
    return exact(f"{model}, parameters", "10^6", millions, paper, within=within)
