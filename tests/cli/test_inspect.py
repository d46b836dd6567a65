"""`reslearn inspect`: the paper's figures to the unit, through the command line."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from reslearn.cli import app


def inspected(*arguments: str) -> dict[str, Any]:
    shown = CliRunner().invoke(app, ["inspect", *arguments, "--json"])
    assert shown.exit_code == 0, shown.output
    return dict(json.loads(shown.output))


@pytest.mark.parametrize(
    ("arguments", "parameters", "macs"),
    [
        (("resnet56",), 853_018, 125_485_696),
        (("resnet20", "--shortcut", "B"), 272_474, None),
        (("resnet18",), 11_515_688, None),
        (("resnet50",), 25_557_032, None),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_counts_are_the_papers(
    arguments: tuple[str, ...], parameters: int, macs: int | None
) -> None:
    counted = inspected(*arguments)
    assert (
        counted["parameters"]
        == parameters
        == sum(layer["parameters"] for layer in counted["layers"])
    )
    assert counted["macs"] == sum(layer["macs"] for layer in counted["layers"])
    assert macs is None or counted["macs"] == macs


def test_sizes_follow_the_family_unless_given() -> None:
    assert inspected("resnet18")["layers"][0]["output_shape"] == [64, 112, 112]
    assert inspected("resnet20")["layers"][0]["output_shape"] == [16, 32, 32]
    assert inspected("resnet20", "--size-px", "8", "--in-channels", "1")["layers"][0][
        "output_shape"
    ] == [16, 8, 8]


def test_switches_reach_the_network() -> None:
    model = inspected(
        "resnet50", "--stride-in", "3x3", "--num-classes", "7", "--no-normalize", "--shortcut", "C"
    )["model"]
    assert (model["stride_in"], model["num_classes"], model["normalize"], model["shortcut"]) == (
        "3x3",
        7,
        False,
        "C",
    )
    zeros = inspected("resnet20", "--zero-pad", "split", "--subsample", "average")["model"]
    assert (zeros["zero_pad"], zeros["subsample"]) == ("split", "average")


def test_table_has_a_row_a_layer() -> None:
    shown = CliRunner().invoke(app, ["inspect", "resnet20"]).output
    rows = [line.split()[0] for line in shown.splitlines() if "." in line.split(" ")[0]]
    assert rows == [layer["name"] for layer in inspected("resnet20")["layers"]]
    assert "269,722 parameters, 40,551,040 MACs" in shown
