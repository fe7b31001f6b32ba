from __future__ import annotations

import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wtal.ablation.statistics import spread, t_probability, t_quantile

# Student's t, 97.5 %, from printed tables
TABLE = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 9: 2.262, 10: 2.228, 29: 2.045, 120: 1.980}


@pytest.mark.parametrize(("freedom", "value"), TABLE.items())
def test_quantiles_are_those_of_the_table(freedom: int, value: float) -> None:
    assert t_quantile(0.975, freedom) == pytest.approx(value, abs=6e-4)


@given(freedom=st.integers(1, 40), t=st.floats(-8, 8))
def test_the_distribution_is_the_integral_of_the_density(freedom: int, t: float) -> None:
    x = np.linspace(0, t, 4001)
    log_scale = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    density = np.exp(log_scale) * (1 + x**2 / freedom) ** (-(freedom + 1) / 2)
    assert t_probability(t, freedom) == pytest.approx(0.5 + np.trapezoid(density, x), abs=1e-5)


@given(values=st.lists(st.floats(-100, 100), min_size=2, max_size=20))
def test_spread_is_mean_and_sample_deviation(values: list[float]) -> None:
    found = spread(values)
    assert found.mean == pytest.approx(statistics.fmean(values), abs=1e-9)
    assert found.deviation == pytest.approx(statistics.stdev(values), abs=1e-9)
    assert found.half_width == pytest.approx(
        t_quantile(0.975, len(values) - 1) * found.deviation / math.sqrt(len(values))
    )


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    assert spread([3.0]).half_width is None
    with pytest.raises(ValueError, match="at least one"):
        spread([])
