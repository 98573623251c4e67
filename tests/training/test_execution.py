from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lesion_hub.errors import ConfigError
from lesion_hub.training import execution, run
from lesion_hub.training.execution import (
    Capabilities,
    Execution,
    Precision,
    RunFacts,
    Timing,
    choose,
    compiling_explained,
    here,
)
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.loop import Loop
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.reporting import Report
from lesion_hub.training.run import train_recipe

# Minutes of training of a network of 80 layers, in one phase.
RUN = RunFacts(batches=1000, phases=1, layers=80)


class PowerCut(Exception):
    """Stands for a process that ends without a word."""


def timing(fp32: float, bf16: float = 0.0, compiled: float = 0.0, first: float = 60.0) -> Callable[[Precision, bool], Timing]:
    """Steps that take these seconds; one of none must not be timed."""

    def seconds(precision: Precision, compiling: bool) -> Timing:
        step = compiled if compiling else {"fp32": fp32, "bf16": bf16}[precision]
        assert step, f"{precision}, compiled {compiling}, is not needed"
        return Timing(step, first)

    return seconds


@pytest.mark.parametrize(
    ("able", "seconds", "chosen", "why"),
    [
        (Capabilities("cpu"), timing(0.0), "fp32", "this CPU has no bf16"),
        (Capabilities("cpu", bf16=True), timing(1.7, 1.0), "bf16", "bf16 is 1.70 times as fast as fp32"),
        (Capabilities("cpu", bf16=True), timing(1.0, 0.95), "fp32", "bf16 would be 1.05 times as fast"),
        (Capabilities("cuda", bf16=True), timing(0.0), "bf16", "this GPU has bf16"),
        (Capabilities("cuda"), timing(0.0), "fp32", "this GPU has no bf16"),
    ],
)
def test_auto_takes_the_precision_that_is_faster_here(
    able: Capabilities, seconds: Callable[[Precision, bool], Timing], chosen: str, why: str
) -> None:
    made = choose("auto", False, able, RUN, seconds)
    assert (made.precision, made.compile, made.why) == (chosen, False, why)


def test_a_cpu_computes_in_bf16_where_it_has_it() -> None:
    def asked(precision: Precision, *, bf16: bool) -> str:
        return choose(precision, False, Capabilities("cpu", bf16=bf16), RUN, timing(0.0)).precision

    assert asked("bf16", bf16=True) == "bf16"
    assert asked("bf16", bf16=False) == asked("fp16", bf16=True) == asked("fp32", bf16=True) == "fp32"
    assert choose("fp16", False, Capabilities("cuda"), RUN, timing(0.0)).precision == "fp16"


@pytest.mark.parametrize(
    ("run", "seconds", "compiled", "why"),
    [
        (
            RUN,
            timing(1.0, compiled=0.5),
            True,
            "compiled it is 2.00 times as fast: 60 s of compiling are paid back by batch 120",
        ),
        (RunFacts(150, 1, 80), timing(1.0), False, "150 s of training are too few to try compiling"),
        (RUN, timing(1.0, compiled=0.97), False, "compiled it would be 1.03 times as fast"),
        (RunFacts(1000, 12, 80), timing(1.0, compiled=0.5), False, "compiled it would be 2.00 times as fast, after 720 s"),
    ],
)
def test_auto_compiles_where_the_run_pays_it_back(
    run: RunFacts, seconds: Callable[[Precision, bool], Timing], compiled: bool, why: str
) -> None:
    made = choose("fp32", "auto", Capabilities("cpu"), run, seconds)
    assert made.compile is compiled and made.why.startswith(why), made.why


@pytest.mark.parametrize(
    "able", [Capabilities("cuda", bf16=True), Capabilities("cpu", processes=2), Capabilities("cpu", compiler_lacks="no g++")]
)
def test_auto_times_nothing_where_it_does_not_compile(able: Capabilities) -> None:
    assert not choose("fp32", "auto", able, RUN, timing(0.0)).compile


def test_what_cannot_be_compiled_is_trained_as_it_is() -> None:
    def broken(precision: Precision, compiling: bool) -> Timing:
        if compiling:
            raise RuntimeError("CppCompileError:\nno space left")
        return Timing(1.0, 1.0)

    made = choose("fp32", "auto", Capabilities("cpu"), RUN, broken)
    assert (made.compile, made.why) == (False, "it cannot be compiled (CppCompileError: no space left)")


def test_a_network_that_fails_to_compile_is_one_line() -> None:
    def broken(graph: object, inputs: object) -> Callable[..., Tensor]:
        raise OSError("no space left on device")

    network = torch.compile(nn.Linear(2, 1), backend=broken)
    with pytest.raises(ConfigError, match=r"no space left on device.*set compile to false or auto"), compiling_explained():
        network(torch.zeros(1, 2))


def test_without_a_compiler_compile_true_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    able = Capabilities("cpu", compiler_lacks=execution.compiler_lacks())
    line = r"compile: true: there is no C\+\+ compiler \(no-such-compiler\); install it, or set compile to false or auto"
    with pytest.raises(ConfigError, match=line):
        choose("fp32", True, able, RUN, timing(0.0))
    assert choose("fp32", "auto", able, RUN, timing(0.0)).why == "there is no C++ compiler (no-such-compiler)"


def test_elsewhere_a_run_goes_on_as_it_was_begun_or_says_so(caplog: pytest.LogCaptureFixture) -> None:
    begun = Execution(precision="bf16", compile=True)
    assert here(begun, "auto", Capabilities("cpu", bf16=True)) == begun and not caplog.messages
    poor = Capabilities("cpu", compiler_lacks="there is no C++ compiler (g++)")
    assert here(begun, "auto", poor) == Execution(precision="fp32", compile=False)
    assert [message.split(":")[0] for message in caplog.messages] == [
        "this run was begun in bf16, which this CPU lacks",
        "this run was begun compiled, and here there is no C++ compiler (g++)",
    ]
    with pytest.raises(ConfigError, match="there is no C"):
        here(begun, True, poor)


def test_steps_are_timed_on_a_copy() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = execution.time_steps(network, torch.randn(2, 3, 8, 8), None, "bf16", False)
    assert found.step > 0 and found.first > 0
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.fixture
def no_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "finish", lambda *_: None)
    monkeypatch.setattr(Report, "summary", lambda *_: None)


def dying_at(batches: int) -> Callable[[Loop, object], None]:
    """A ``Loop.backward`` that dies at that micro-batch."""
    real, done = Loop.backward, 0

    def backward(self: Loop, batch: object) -> None:
        nonlocal done
        done += 1
        if done == batches:
            raise PowerCut
        real(self, batch)  # type: ignore[arg-type]

    return backward


def test_a_run_keeps_what_it_began_with(
    tiny: Recipe, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_finish: None
) -> None:
    """What ``auto`` chose is said once and read again on resuming, when nothing is timed."""
    recipe = tiny.model_copy(update={"epochs": 2, "phases": tiny.phases[1:], "precision": "auto", "compile": "auto"})
    with monkeypatch.context() as patched:
        patched.setattr(Loop, "backward", dying_at(5))
        with pytest.raises(PowerCut):
            train_recipe(recipe, options)
    said = capsys.readouterr().out
    kept = json.loads((options.out / "execution.json").read_text())
    assert said.count("computing in ") == 1 and f"computing in {kept['precision']}, not compiled: " in said
    assert "too few to try compiling" in kept["why"] and kept["seconds"]["fp32"] > 0
    monkeypatch.setattr(run, "time_steps", lambda *_, **__: pytest.fail("timed again"))
    train_recipe(recipe, options)
    assert "computing in" not in capsys.readouterr().out
    (options.out / "execution.json").unlink()
    with pytest.raises(ConfigError, match=r"execution\.json: is gone"):
        train_recipe(recipe, options)


@pytest.mark.slow
def test_a_compiled_run_that_died_goes_on_as_if_it_had_not(
    tiny: Recipe, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch, no_finish: None
) -> None:
    """The network is compiled once, for whole batches: the smaller last one of an epoch and validation compile nothing."""
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)  # a pool of processes takes longer to start
    recipe = tiny.model_copy(update={"epochs": 2, "compile": True, "accumulation": 1, "phases": tiny.phases[1:]})
    whole, died = (options.model_copy(update={"out": options.out / name}) for name in ("whole", "died"))
    counted = torch._dynamo.utils.counters
    counted.clear()
    train_recipe(recipe, whole)
    assert counted["stats"]["unique_graphs"] == 1
    with monkeypatch.context() as patched:
        patched.setattr(Loop, "backward", dying_at(4))
        with pytest.raises(PowerCut):
            train_recipe(recipe, died)
    train_recipe(recipe, died)
    assert counted["stats"]["unique_graphs"] == 3, "once for each start"
    states = [load_file(max((place.out / "checkpoints").glob("step-*.safetensors"))) for place in (whole, died)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
