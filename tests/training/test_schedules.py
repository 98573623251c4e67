from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lesion_hub.errors import ConfigError
from lesion_hub.training.schedules import SCHEDULES, make_schedule


def _rates(name, steps, **options):
    schedule = make_schedule(name, total_steps=steps, **options)
    return [schedule.lr_at(step) for step in range(steps)]


def _torch_rates(make, steps, lr):
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    schedule, rates = make(optimiser), []
    for _ in range(steps):
        rates.append(optimiser.param_groups[0]["lr"])
        optimiser.step()
        schedule.step()
    return rates


def test_constant_is_constant():
    assert set(_rates("constant", 7, lr=0.3)) == {0.3}


def test_cosine_is_torchs():
    expected = _torch_rates(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20, eta_min=0.01), 21, 0.1)
    assert _rates("cosine", 21, lr=0.1, final=0.1) == pytest.approx(expected)


def test_one_cycle_is_torchs():
    expected = _torch_rates(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=41), 40, 0.1)
    assert _rates("one_cycle", 41, lr=0.1)[:40] == pytest.approx(expected)
    assert _rates("one_cycle", 41, lr=0.1)[-1] == pytest.approx(0.1 / 25e4)


def test_steps_come_at_their_milestones():
    rates = _rates("step", 8, lr=1.0, milestones=(0.5, 0.75), factor=0.1)
    assert rates == pytest.approx([1.0] * 4 + [0.1] * 2 + [0.01] * 2)


def test_warm_up_rises_linearly_to_where_the_schedule_begins():
    schedule = make_schedule("cosine", lr=0.5, total_steps=24, warmup_steps=4)
    assert [schedule.lr_at(step) for step in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])
    plain = make_schedule("cosine", lr=0.5, total_steps=20)
    assert [schedule.lr_at(step + 4) for step in range(20)] == pytest.approx([plain.lr_at(step) for step in range(20)])


@given(
    name=st.sampled_from(sorted(SCHEDULES)),
    total=st.integers(1, 200),
    warmup=st.integers(0, 50),
    step=st.integers(0, 400),
)
def test_a_rate_is_finite_and_never_above_the_peak(name, total, warmup, step):
    schedule = make_schedule(name, lr=0.1, total_steps=total, warmup_steps=min(warmup, total - 1))
    assert 0 <= schedule.lr_at(step) <= 0.1 * (1 + 1e-9)
    assert schedule.lr_at(total + step) == schedule.lr_at(total + 1) or name == "plateau"


def test_plateau_is_torchs():
    metrics = [0.1, 0.3, 0.3, 0.2, 0.3, 0.31, 0.3, 0.3, 0.3, 0.3, 0.3, 0.3, 0.5, 0.4, 0.4, 0.4]
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    options = {"mode": "max", "factor": 0.5, "patience": 2, "threshold": 0.0, "threshold_mode": "abs"}
    reference = torch.optim.lr_scheduler.ReduceLROnPlateau(optimiser, **options)
    schedule = make_schedule("plateau", lr=1.0, total_steps=100, factor=0.5, patience=2)
    for step, metric in enumerate(metrics):
        reference.step(metric)
        schedule.observe(metric)
        assert schedule.lr_at(step) == pytest.approx(optimiser.param_groups[0]["lr"])
    assert schedule.reductions == 4


def test_plateau_does_not_fall_below_its_final_rate():
    schedule = make_schedule("plateau", lr=1.0, total_steps=100, factor=0.1, patience=0, final=0.05)
    for _ in range(9):
        schedule.observe(0.0)
    assert schedule.lr_at(50) == 0.05


def test_plateau_ignores_rises_that_are_too_small():
    schedule = make_schedule("plateau", lr=1.0, total_steps=9, factor=0.1, patience=1, min_delta=0.1)
    for metric in (0.5, 0.55, 0.59):
        schedule.observe(metric)
    assert schedule.reductions == 1


@pytest.mark.parametrize("seen", [[], [0.4, 0.3, 0.3, 0.3]])
def test_plateau_resumes_from_json(seen):
    whole, resumed = (make_schedule("plateau", lr=1.0, total_steps=9, patience=1) for _ in range(2))
    for metric in seen:
        whole.observe(metric)
    resumed.load_state_dict(json.loads(json.dumps(whole.state_dict(), allow_nan=False)))
    for metric in (0.2, 0.2, 0.5, 0.1):
        whole.observe(metric)
        resumed.observe(metric)
        assert whole == resumed and math.isfinite(resumed.lr_at(1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "cosin"}, "did you mean 'cosine'"),
        ({"name": "cosine", "factr": 0.1}, "cosine: no option 'factr'"),
        ({"name": "constant", "warmup_steps": 10}, "shorten the warm-up"),
    ],
)
def test_mistakes_are_one_line(options, message):
    with pytest.raises(ConfigError, match=message):
        make_schedule(lr=0.1, total_steps=10, **options)
