"""The choice of precision and compilation by "auto", and explicit values of the recipe."""

import pytest
import torch

from reslearn.recipes import Train
from reslearn.train import numerics
from reslearn.train.numerics import choose, choose_device


def test_auto_uses_bf16_for_large_networks_on_processors_with_bf16(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for has_bf16, macs, precision in (
        (True, 40_551_040, "bf16"),
        (True, 2_500_000, "fp32"),
        (False, 40_551_040, "fp32"),
    ):
        monkeypatch.setattr(numerics, "_computes_in_bf16", lambda device, has=has_bf16: has)
        assert (
            choose(Train(), device="cpu", threads=1, macs=macs, num_images=1).precision == precision
        )


def test_auto_compiles_long_trainings() -> None:
    short, long = (
        choose(Train(), device="cpu", threads=1, macs=10**7, num_images=number)
        for number in (10**4, 10**8)
    )
    assert (short.compiled, long.compiled) == (False, True)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("compiled", ["on", "off"])
def test_explicit_values_are_obeyed(precision: str, compiled: str) -> None:
    train = Train.model_validate({"precision": precision, "compile": compiled})
    chosen = choose(train, device="cpu", threads=3, macs=1, num_images=1)
    assert (chosen.precision, chosen.compiled, chosen.threads) == (precision, compiled == "on", 3)
    with chosen.autocast():
        product = torch.nn.functional.linear(torch.ones(1, 1), torch.ones(1, 1))
    assert product.dtype == {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]


@pytest.mark.parametrize("name", ["cuda:99", "tpu?", "abacus", "meta"])
def test_missing_devices_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match=f"--device {name.rstrip('?')}"):
        choose_device(name)
