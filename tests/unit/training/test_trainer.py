"""The loop: what a step does, and that nothing but its inputs decides it."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from line_objective import CPU, STEADY, Line, batches
from torch import nn

from izograf.core.types import Batch, Phase
from izograf.schema.errors import InvalidInput
from izograf.training.schedule import LearningRateSchedule
from izograf.training.trainer import TrainingConfig, add_l1_gradient, train


def fit(objective, state, **fields) -> list[dict]:
    config = TrainingConfig(**{"images": 40, "batch_size": 4, "schedule": STEADY, **fields})
    logged = []
    train(
        objective, batches, config, state, CPU,
        lambda state, stats: logged.append({"step": state.step, **stats}),
    )  # fmt: skip
    return logged


def test_the_clock_counts_images_and_stops_at_the_number_asked(state_for) -> None:
    objective = Line()
    state = state_for(objective)
    fit(objective, state, images=38)
    assert objective.seen == list(range(4, 44, 4))
    assert (state.step, state.images_seen) == (10, 40)


def test_the_loss_falls_and_is_logged_with_the_statistics_of_its_phase(state_for) -> None:
    objective = Line(rate=0.5)
    logged = fit(objective, state_for(objective), images=120)
    assert set(logged[0]) == {"step", "fit/loss", "fit/twice", "fit/gradient_norm"}
    assert float(logged[-1]["fit/loss"]) < 0.5 * float(logged[0]["fit/loss"])
    assert float(logged[0]["fit/twice"]) == pytest.approx(2 * float(logged[0]["fit/loss"]))


def test_accumulation_splits_the_batch_and_takes_the_same_steps(state_for) -> None:
    whole, parted = Line(), Line()
    one = fit(whole, state_for(whole))
    four = fit(parted, state_for(parted), accumulation=4)
    assert set(whole.sizes) == {4}
    assert set(parted.sizes) == {1}
    for before, after in zip(one, four, strict=True):
        assert float(after["fit/loss"]) == pytest.approx(float(before["fit/loss"]), rel=1e-5)
    torch.testing.assert_close(
        parted.modules["line"].weight, whole.modules["line"].weight, rtol=1e-5, atol=1e-6
    )


def test_the_gradient_norm_is_clipped_and_logged_unclipped(state_for) -> None:
    objective = Line(rate=1.0)
    before = objective.modules["line"].weight.clone(), objective.modules["line"].bias.clone()
    (logged,) = fit(objective, state_for(objective), images=4, gradient_clip=0.01)
    after = objective.modules["line"].weight, objective.modules["line"].bias
    moved = sum((a - b).detach().square().sum() for a, b in zip(after, before, strict=True)).sqrt()
    assert float(moved) == pytest.approx(0.01, rel=1e-3)
    assert float(logged["fit/gradient_norm"]) > 0.1


def test_l1_is_the_gradient_of_the_sum_of_absolute_weights_but_not_of_biases() -> None:
    weight = nn.Parameter(torch.tensor([[2.0, -3.0, 0.0]]))
    bias = nn.Parameter(torch.tensor([5.0]))
    weight.grad, bias.grad = torch.zeros_like(weight), torch.zeros_like(bias)
    add_l1_gradient([weight, bias], 0.1)
    torch.testing.assert_close(weight.grad, torch.tensor([[0.1, -0.1, 0.0]]))
    assert float(bias.grad) == 0


def test_l1_brings_weights_near_zero(state_for) -> None:
    plain, sparse = Line(rate=0.2), Line(rate=0.2)
    fit(plain, state_for(plain), images=400)
    fit(sparse, state_for(sparse), images=400, l1=0.3)  # more than the identity is worth
    assert float(sparse.modules["line"].weight.detach().abs().mean()) < 0.05
    assert float(plain.modules["line"].weight.detach().diagonal().mean()) > 0.9


def test_a_phase_with_an_interval_runs_at_every_nth_step(state_for) -> None:
    objective = Line()
    lazy = Phase("lazy", "line", objective._loss, every=4)
    phases = (*objective.phases(), lazy)
    objective.phases = lambda: phases
    logged = fit(objective, state_for(objective))
    assert [line["step"] - 1 for line in logged if "lazy/loss" in line] == [0, 4, 8]


def test_a_phase_moves_only_its_own_optimisers_parameters(state_for) -> None:
    objective = Line()
    other = nn.Linear(12, 12)
    objective.modules["other"] = other

    def loss(batch: Batch, rng: torch.Generator):
        del rng
        x = batch.image.flatten(1)
        return (objective.modules["line"](other(x)) - x).square().mean(), {}

    objective.phases = lambda: (Phase("fit", "line", loss),)
    before = other.weight.clone()
    fit(objective, state_for(objective))
    assert torch.equal(other.weight, before)
    assert other.weight.grad is None


def test_a_step_leaves_the_global_random_state_alone(state_for) -> None:
    objective = Line()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    fit(objective, state_for(objective))
    assert torch.equal(torch.rand(3), expected)


def test_the_rate_follows_the_schedule_and_returns_to_its_base(state_for) -> None:
    objective = Line(rate=0.1)
    rates = []
    config = TrainingConfig(
        40, batch_size=4, schedule=LearningRateSchedule(0.0, "linear", decay_share=1.0)
    )
    train(
        objective, batches, config, state_for(objective), CPU,
        lambda *_: rates.append(objective.optimizer.param_groups[0]["lr"]),
    )  # fmt: skip
    assert rates == pytest.approx([0.1 * (1 - k / 10) for k in range(10)])


@pytest.mark.parametrize(
    "fields",
    [
        {"images": 0}, {"batch_size": 0}, {"accumulation": 0}, {"accumulation": 3},
        {"l1": -1.0}, {"l1": float("nan")}, {"l1": float("inf")}, {"gradient_clip": -1.0},
        {"gradient_clip": float("nan")}, {"ema_share": 1.0}, {"ema_share": float("nan")},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(fields) -> None:
    with pytest.raises(InvalidInput):
        TrainingConfig(**{"images": 100, "batch_size": 4, **fields})


shares = st.floats(0, 1, allow_subnormal=False)
schedules = st.builds(
    LearningRateSchedule,
    warmup=shares,
    decay=st.sampled_from(["none", "cosine", "linear"]),
    decay_share=shares,
)


@given(schedules, st.integers(1, 10**7), st.lists(st.floats(0, 1.2), min_size=2, max_size=2))
def test_a_schedule_stays_in_the_unit_interval(schedule, total, positions) -> None:
    for position in positions:
        assert 0 <= schedule.factor(int(position * total), total) <= 1


@given(schedules, st.integers(100, 10**6))
def test_a_schedule_rises_in_its_warmup_and_then_never_again(schedule, total) -> None:
    values = [schedule.factor(total * k // 64, total) for k in range(65)]
    if schedule.warmup + schedule.decay_share >= 1:
        return  # both at once: neither rising nor falling
    for k, (before, after) in enumerate(itertools.pairwise(values)):
        if (k + 1) / 64 <= schedule.warmup:
            assert after >= before
        if k / 64 >= schedule.warmup:
            assert after <= before


@given(st.sampled_from(["cosine", "linear"]), st.floats(0.01, 1), st.integers(100, 10**6))
def test_a_decay_begins_at_one_and_ends_at_zero(decay, share, total) -> None:
    schedule = LearningRateSchedule(0.0, decay, share)
    assert schedule.factor(0, total) == 1
    assert schedule.factor(total, total) == pytest.approx(0, abs=1e-9)
    halfway = round(total * (1 - share / 2))
    assert schedule.factor(halfway, total) == pytest.approx(0.5, abs=2 / (share * total))


def test_without_warmup_or_decay_the_rate_is_constant() -> None:
    schedule = LearningRateSchedule(0.0, "none")
    assert {schedule.factor(n, 1000) for n in range(0, 1001, 50)} == {1.0}


def test_warmup_reaches_the_full_rate_at_its_share_and_never_starts_at_zero() -> None:
    schedule = LearningRateSchedule(warmup=0.1, decay="none")
    assert schedule.factor(0, 1000) == pytest.approx(0.01)
    assert schedule.factor(49, 1000) == pytest.approx(0.5)
    assert schedule.factor(100, 1000) == 1
