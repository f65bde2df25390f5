"""How the levels of a schedule are grouped into steps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from izograf.diffusion.singlestep import group_sizes

orders = st.integers(1, 3)


@given(st.integers(1, 200), orders, st.booleans())
def test_every_level_is_in_one_group_and_none_is_larger_than_the_order(
    num_levels: int, order: int, to_zero: bool
) -> None:
    sizes = group_sizes(num_levels, order, ends_at_zero=to_zero)
    assert sum(sizes) == num_levels
    assert all(1 <= size <= order for size in sizes)


@given(st.integers(1, 200), orders)
def test_the_step_to_zero_is_alone(num_levels: int, order: int) -> None:
    sizes = group_sizes(num_levels, order, ends_at_zero=True)
    assert sizes[-1] == 1
    assert sizes[:-1] == (
        group_sizes(num_levels - 1, order, ends_at_zero=False) if num_levels > 1 else []
    )


@given(st.integers(2, 200))
def test_order_three_never_needs_a_step_of_order_one_on_the_way(num_levels: int) -> None:
    assert 1 not in group_sizes(num_levels, 3, ends_at_zero=False)


@pytest.mark.parametrize(
    ("num_levels", "sizes"),
    [(1, [1]), (3, [2, 1]), (4, [3, 1]), (9, [3, 3, 2, 1]), (10, [3, 3, 3, 1]), (5, [2, 2, 1])],
)
def test_the_cut_is_that_of_the_fast_solver_where_it_ends_alone(
    num_levels: int, sizes: list[int]
) -> None:
    """Lu et al. 2022a, section 3.4; with 5 theirs ends 3, 2, which cannot go to sigma 0."""
    assert group_sizes(num_levels, 3, ends_at_zero=True) == sizes
