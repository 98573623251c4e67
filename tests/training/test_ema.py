from __future__ import annotations

import io

import pytest
import torch
from torch import nn

from lesion_hub.errors import ConfigError
from lesion_hub.training.ema import ModelEma


def _model(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))


def _walk(model, steps, seed=0):
    """Change a model as training would: weights, running statistics and the batch counter."""
    stream = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=stream))
        model(torch.randn(8, 3, generator=stream))
        yield model


def _same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_the_average_is_the_recurrence_of_its_definition():
    model = _model()
    ema = ModelEma(model, decay=0.9, warmup=False)
    expected = {name: value.clone().double() for name, value in model.state_dict().items()}
    for moved in _walk(model, 5):
        ema.update(moved)
        for name, value in moved.state_dict().items():
            expected[name] = 0.9 * expected[name] + 0.1 * value
    for name, shadow in ema.shadow.items():
        if shadow.is_floating_point():
            torch.testing.assert_close(shadow.double(), expected[name], rtol=1e-5, atol=1e-6)


def test_counters_are_taken_as_they_are():
    model = _model()
    ema = ModelEma(model)
    for moved in _walk(model, 3):
        ema.update(moved)
    assert ema.shadow["1.num_batches_tracked"] == 3 and ema.shadow["1.num_batches_tracked"].dtype == torch.int64


def test_the_decay_warms_up_to_its_value():
    ema = ModelEma(_model(), decay=0.5)
    decays = []
    for moved in _walk(_model(), 12):
        decays.append(ema.current_decay)
        ema.update(moved)
    assert decays == [min(0.5, (1 + n) / (10 + n)) for n in range(12)]
    first = ModelEma(start := _model(), decay=0.999)
    before = start[0].weight.detach().clone()
    first.update(next(_walk(start, 1)))
    torch.testing.assert_close(first.shadow["0.weight"], 0.1 * before + 0.9 * start[0].weight.detach())
    assert ModelEma(_model(), decay=0.5, warmup=False).current_decay == 0.5


def test_inside_the_block_the_model_has_the_average_and_its_own_values_after():
    model = _model()
    ema = ModelEma(model)
    for moved in _walk(model, 2):
        ema.update(moved)
    own = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(KeyError), ema.applied(model) as averaged:
        assert averaged is model and _same(model.state_dict(), ema.shadow)
        raise KeyError
    assert _same(model.state_dict(), own)


def test_the_shadow_of_a_low_precision_model_is_float32():
    model = nn.Linear(4, 4).bfloat16()
    ema = ModelEma(model, decay=0.999, warmup=False)
    with torch.no_grad():
        model.weight.fill_(1.0)
        ema.shadow["weight"].fill_(0.0)
    ema.update(model)
    assert ema.shadow["weight"].dtype == torch.float32
    torch.testing.assert_close(ema.shadow["weight"], torch.full((4, 4), 0.001))
    with ema.applied(model):
        assert model.weight.dtype == torch.bfloat16


def test_an_interrupted_average_resumes_to_the_bit():
    model, twin = _model(), _model()
    whole, first = ModelEma(model, decay=0.99), ModelEma(twin, decay=0.99)
    for moved in _walk(model, 6):
        whole.update(moved)
    walk = _walk(twin, 6)
    for _ in range(3):
        first.update(next(walk))
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    second = ModelEma(_model(seed=5), decay=0.99)
    second.load_state_dict(torch.load(saved))
    for moved in walk:
        second.update(moved)
    assert second.updates == whole.updates == 6
    assert _same(second.shadow, whole.shadow)


def test_an_average_shares_no_memory_with_its_model():
    model = _model()
    ema = ModelEma(model)
    before = ema.shadow["0.weight"].clone()
    next(_walk(model, 1))
    assert torch.equal(ema.shadow["0.weight"], before)


def test_mistakes_are_one_line():
    with pytest.raises(ConfigError, match="between 0 and 1"):
        ModelEma(_model(), decay=1.0)
    with pytest.raises(ConfigError, match="of another model"):
        ModelEma(nn.Linear(1, 1)).load_state_dict(ModelEma(_model()).state_dict())


def test_a_share_of_the_start_stays_in_what_is_applied_and_in_nothing_else() -> None:
    model, plain = _model(), _model()
    plain.load_state_dict(model.state_dict())
    began = {name: value.clone() for name, value in model.state_dict().items()}
    kept, average = ModelEma(model, decay=0.9, start=0.3), ModelEma(plain, decay=0.9)
    for moved in _walk(model, 4):
        kept.update(moved)
        average.update(moved)
    assert _same(kept.shadow, average.shadow)
    with kept.applied(model):
        for name, value in model.state_dict().items():
            expected = 0.7 * average.shadow[name] + 0.3 * began[name] if value.is_floating_point() else average.shadow[name]
            torch.testing.assert_close(value, expected)
