from __future__ import annotations

import psutil
import pytest
import torch
import torch.nn.functional as F

from light_tts.models.layers.packed_linear import PackedLinear

SHAPES = [(24, 60), (52, 24), (320, 448), (640, 320), (896, 1152), (4864, 896)]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
@torch.inference_mode()
def test_it_is_the_linear_layer(inputs: int, outputs: int, with_bias: bool, half: bool) -> None:
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, inputs), torch.randn(outputs) if with_bias else None
    if half:
        weight = weight.half().float()
    linear = PackedLinear(weight, bias)
    for rows in (1, 2, 9):
        x = torch.randn(rows, inputs)
        # Sums of `inputs` products in another order: some of their 2**-24 each.
        torch.testing.assert_close(linear(x), F.linear(x, weight, bias), atol=1e-5 * inputs**0.5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("inputs", "outputs"), SHAPES)
@torch.inference_mode()
def test_a_rows_result_does_not_depend_on_the_rows_beside_it(
    inputs: int, outputs: int, dtype: torch.dtype
) -> None:
    """float16: float32 weights that 16 bits hold."""
    torch.manual_seed(0)
    weight, bias = torch.randn(outputs, inputs, dtype=dtype), torch.randn(outputs, dtype=dtype)
    x = torch.randn(67, inputs, dtype=dtype)
    if dtype == torch.float16:
        weight, bias, x = weight.float(), bias.float(), torch.randn(67, inputs)
    linear = PackedLinear(weight, bias)
    expected = linear(x)
    for rows in (1, 2, 3, 4, 5, 7, 8, 16, 17, 33, 50):
        assert torch.equal(linear(x[:rows]), expected[:rows])
        assert torch.equal(linear(x[-rows:]), expected[-rows:])


def test_other_devices_and_dtypes_use_the_plain_layer() -> None:
    weight = torch.randn(5, 4, dtype=torch.float64)
    x = torch.randn(3, 4, dtype=torch.float64)
    assert torch.equal(PackedLinear(weight, None)(x), F.linear(x, weight))


@pytest.mark.parametrize("number", [1e6, 1e-9, 1 / 3, torch.nan])
@torch.inference_mode()
def test_weights_are_held_in_16_bits_only_where_all_are_such_numbers(number: float) -> None:
    weight = torch.randn(20, 16).half().float()
    weight[3, 4] = number
    x = torch.randn(2, 16)
    expected = F.linear(x, weight)
    torch.testing.assert_close(PackedLinear(weight, None)(x), expected, rtol=1e-5, atol=1e-5, equal_nan=True)


@torch.inference_mode()
def test_many_numbers_of_rows_cost_no_memory() -> None:
    linear = PackedLinear(torch.randn(60, 24), None)
    for rows in (1, 600):
        linear(torch.randn(rows, 24))
    before = psutil.Process().memory_info().rss
    for rows in range(1, 600):
        assert linear(torch.randn(rows, 24)).shape == (rows, 60)
    # Compiled code for each number of rows would be some 350 MB.
    assert psutil.Process().memory_info().rss - before < 40e6
