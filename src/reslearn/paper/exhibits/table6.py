"""Table 6: test error of residual nets on CIFAR-10, last epoch, by the paper's recipe (Sec. 4.2), and their parameters to the digit.

ResNet-1202 is counted; it is trained where --depths asks for it, for it alone is two thirds of the table's arithmetic.
"""

from reslearn.paper import protocol
from reslearn.paper.claim import Budget, Runs, RunSpec
from reslearn.paper.exhibit import (
    MARGIN_PCT,
    Depths,
    Exhibit,
    Line,
    Measured,
    against_paper,
    exact,
    is_papers_own,
    not_run,
)
from reslearn.paper.numbers import numbers, spreads

EXHIBIT = Exhibit(
    name="table6",
    title="Test error on CIFAR-10",
    section="Table 6",
    data="CIFAR-10",
    rule=(
        f"Reproduced: two one-sided t tests at 5 % place the mean of the last epoch's test errors within {MARGIN_PCT:g} points of the "
        "paper's number (for 110 layers a mean of five runs, with its spread). Not reproduced: the 95 % interval lies outside that margin. "
        "At a smaller budget than the paper's 64k steps, or on other data, numbers have no reason to agree, and are not judged. "
        "Parameters: equal in every digit that the paper prints, when rounded to them."
    ),
)
DEPTHS = {
    "smoke": Depths(both=(8, 20)),
    **dict.fromkeys(("short", "medium"), Depths(both=(20, 32, 56, 110))),
    "full": Depths(both=(20, 32, 44, 56, 110)),
}
_HALF_A_DIGIT = {
    "resnet110": 0.05,
    "resnet1202": 0.05,
}  # 1.7 and 19.4; the others have two decimals


def conditions(budget: Budget) -> list[RunSpec]:
    """Residual nets at the paper's learning rate."""
    return protocol.fixed_conditions(budget, ["residual"])


def measure(evidence: Runs) -> Measured:
    """Errors and parameters, net by net."""
    printed, lines = numbers("table6"), []
    curves = {}
    for depth in protocol.depths(evidence.budget, "residual"):
        model = protocol.model_name("residual", depth)
        values = [
            one[0] for one in protocol.by_depth(evidence, "residual", protocol.TEST_ERROR, [depth])
        ]
        curves[model] = values
        if model not in printed:
            lines.append(
                not_run(
                    f"{model}, test error",
                    "the paper's table has no such net",
                    unit="%",
                    values=tuple(values),
                )
            )
        else:
            own, spread = is_papers_own(evidence), spreads("table6").get(model)
            lines.append(
                against_paper(
                    f"{model}, test error", values, printed[model], same_protocol=own, spread=spread
                )
            )
    for model, paper in printed.items():
        if model not in curves:
            lines.append(
                not_run(
                    f"{model}, test error",
                    f"--depths {model.removeprefix('resnet')} trains it",
                    unit="%",
                    paper=paper,
                )
            )
    return Measured(lines=(*lines, *_parameters()), numbers={"test_error_pct": curves})


def _parameters() -> list[Line]:
    import torch

    from reslearn.models import build

    lines = []
    for model, paper in numbers("table6_parameters").items():
        with torch.device("meta"):
            net = build(model, num_classes=10)
        count = sum(parameter.numel() for parameter in net.parameters()) / 1e6
        lines.append(
            exact(
                f"{model}, parameters", "10^6", count, paper, within=_HALF_A_DIGIT.get(model, 0.005)
            )
        )
    return lines
