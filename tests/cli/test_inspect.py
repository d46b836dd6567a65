"""`reslearn inspect` counts parameters and multiply-adds exactly, as in the paper."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from reslearn.cli import app


def inspect_json(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["inspect", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.output))


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
def test_counts_agree_with_the_paper(
    arguments: tuple[str, ...], parameters: int, macs: int | None
) -> None:
    cost = inspect_json(*arguments)
    assert cost["parameters"] == parameters == sum(layer["parameters"] for layer in cost["layers"])
    assert cost["macs"] == sum(layer["macs"] for layer in cost["layers"])
    assert macs is None or cost["macs"] == macs


def test_default_sizes_follow_the_family() -> None:
    assert inspect_json("resnet18")["layers"][0]["output_shape"] == [64, 112, 112]
    assert inspect_json("resnet20")["layers"][0]["output_shape"] == [16, 32, 32]
    assert inspect_json("resnet20", "--size-px", "8", "--in-channels", "1")["layers"][0][
        "output_shape"
    ] == [16, 8, 8]


def test_switches_reach_the_network() -> None:
    model = inspect_json(
        "resnet50", "--stride-in", "3x3", "--num-classes", "7", "--no-normalize", "--shortcut", "C"
    )["model"]
    assert (model["stride_in"], model["num_classes"], model["normalize"], model["shortcut"]) == (
        "3x3",
        7,
        False,
        "C",
    )
    zeros = inspect_json("resnet20", "--zero-pad", "split", "--subsample", "average")["model"]
    assert (zeros["zero_pad"], zeros["subsample"]) == ("split", "average")


def test_table_has_one_row_per_layer() -> None:
    output = CliRunner().invoke(app, ["inspect", "resnet20"]).output
    rows = [line.split()[0] for line in output.splitlines() if "." in line.split(" ")[0]]
    assert rows == [layer["name"] for layer in inspect_json("resnet20")["layers"]]
    assert "269,722 parameters, 40,551,040 MACs" in output
