"""How the steps of a run are executed: in which precision, and whether compiled.

A recipe may leave either to be chosen (``auto``). The choice is made once, before the first step, and kept in the run's folder:
in another precision, or by other kernels, the same step rounds otherwise, and a resumed run must be the run that was never
interrupted. On a CPU, bf16 pays for dense networks where the processor has it, and ``torch.compile`` for depthwise ones, whose
many small operations wait for memory, in a run that is long enough to pay the compiling back. Both differ too much from one
network and processor to the next to be looked up, so a few steps of the network are timed.
"""

from __future__ import annotations

import copy
import gc
import logging
import math
import os
import shutil
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from accelerate import Accelerator
from pydantic import Field
from torch import Tensor, nn

from lesion_hub.config import Options, Switch, validated
from lesion_hub.errors import ConfigError, one_line
from lesion_hub.files import read_json
from lesion_hub.training.claims import from_first
from lesion_hub.training.measure import logits_of

if TYPE_CHECKING:
    from lesion_hub.training.recipe import Recipe
    from lesion_hub.training.run_folder import RunFolder

logger = logging.getLogger(__name__)

Precision = Literal["bf16", "fp16", "fp32"]

# Times as fast, below which a choice is left at fp32 and not compiled: less is within the noise of what is timed.
LEAST_GAIN = 1.1
# Seconds that compiling takes for each layer, about: what a trial will cost, before there was one.
COMPILING_PER_LAYER = 0.25
# A trial may cost this share of the run.
TRIAL_SHARE = 0.1
TIMED_STEPS = 3


class Execution(Options):
    """What is chosen, and why: ``seconds`` are those of the steps that were timed, by what they were."""

    precision: Precision
    compile: Switch
    why: str = ""
    seconds: dict[str, float] = Field(default_factory=dict)

    def applied_to(self, recipe: Recipe) -> Recipe:
        """Return the recipe with nothing left to choose: what is computed, and what its card says."""
        return recipe.model_copy(update={"precision": self.precision, "compile": self.compile})

    def __str__(self) -> str:
        return f"computing in {self.precision}, {'compiled' if self.compile else 'not compiled'}: {self.why}"


# ------------------------------------------------------------------------------------------------ what the machine can do


@dataclass(frozen=True)
class Capabilities:
    """What a run may use: the type of its device, whether that computes in bf16 natively, how many processes there are, and
    what ``torch.compile`` lacks here (None: nothing).
    """

    device: str
    bf16: bool = False
    processes: int = 1
    compiler_lacks: str | None = None

    @classmethod
    def of(cls, accelerator: Accelerator) -> Capabilities:
        """Look at this machine."""
        device = accelerator.device.type
        bf16 = cpu_has_bf16() if device == "cpu" else device == "cuda" and _gpu_has_bf16()
        return cls(device, bf16, accelerator.num_processes, compiler_lacks() if device == "cpu" else None)


def cpu_has_bf16() -> bool:
    """Tell whether this processor multiplies bf16 natively; a PyTorch too old to say does not use it.

    ``torch.cpu.get_capabilities`` is the public way to ask. ``torch.backends.cpu.get_cpu_capability`` names no bf16, and
    ``torch.ops.mkldnn._is_mkldnn_bf16_supported``, which is private, says yes where AVX-512 emulates it, slower than fp32.
    """
    ask = getattr(torch.cpu, "get_capabilities", None)
    found = ask() if ask else {}
    return any(found.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def _gpu_has_bf16() -> bool:
    # Not torch.cuda.is_bf16_supported, which says yes where it is emulated.
    return torch.version.hip is not None or torch.cuda.get_device_capability() >= (8, 0)


def compiler_lacks() -> str | None:
    """Name what ``torch.compile`` would miss on a CPU, for which it writes C++; None where it has all."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        return f"there is no C++ compiler ({compiler})"
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "Python's headers are not installed (python3-dev)"
    return None


# ------------------------------------------------------------------------------------------------ the choice


@dataclass(frozen=True)
class RunFacts:
    """The micro-batches of a run in one process, its phases, each of which is compiled anew, and the network's layers."""

    batches: int
    phases: int
    layers: int

    @classmethod
    def of(cls, network: nn.Module, batches: int, phases: int) -> RunFacts:
        """Count the layers of ``network``."""
        return cls(batches, phases, sum(not any(layer.children()) for layer in network.modules()))


@dataclass(frozen=True)
class Timing:
    """Seconds of a step, forward and backward, and of the first one, which compiles."""

    step: float
    first: float


def choose(
    precision: Precision | Literal["auto"],
    compiled: bool | Literal["auto"],
    able: Capabilities,
    run: RunFacts,
    time_steps: Callable[[Precision, bool], Timing],
) -> Execution:
    """Choose what is ``auto``, and replace a precision that the CPU does not have.

    ``time_steps``, called with a precision and whether to compile, times the steps that have to be known.

    >>> times = {"fp32": Timing(1.7, 2.0), "bf16": Timing(1.0, 2.0)}
    >>> choose("auto", False, Capabilities("cpu", bf16=True), RunFacts(100, 1, 50), lambda kind, _: times[kind]).why
    'bf16 is 1.70 times as fast as fp32'
    """
    timed: dict[str, Timing] = {}

    def seconds(kind: Precision, compiling: bool = False) -> Timing:
        name = f"{kind} compiled" if compiling else kind
        if name not in timed:
            timed[name] = time_steps(kind, compiling)
        return timed[name]

    chosen, reasons = _choose_precision(precision, able, seconds)
    compiling, reason = _choose_compile(compiled, chosen, able, run, seconds)
    rounded = {name: round(timing.step, 4) for name, timing in timed.items()}
    first = {f"{name}, first": round(timing.first, 1) for name, timing in timed.items() if "compiled" in name}
    why = "; ".join(filter(None, (reasons, reason))) or "as the recipe says"
    return Execution(precision=chosen, compile=compiling, why=why, seconds=rounded | first)


def _choose_precision(
    asked: Precision | Literal["auto"], able: Capabilities, seconds: Callable[[Precision], Timing]
) -> tuple[Precision, str]:
    if asked == "auto":
        if not able.bf16:
            return "fp32", f"this {_device_words(able)} has no bf16"
        if able.device != "cpu":
            return "bf16", f"this {_device_words(able)} has bf16"
        gain = seconds("fp32").step / seconds("bf16").step
        if gain >= LEAST_GAIN:
            return "bf16", f"bf16 is {gain:.2f} times as fast as fp32"
        return "fp32", f"bf16 would be {gain:.2f} times as fast"
    if able.device == "cpu" and asked != "fp32" and not (asked == "bf16" and able.bf16):
        return "fp32", f"this CPU has no {asked}"
    return asked, ""


def _choose_compile(
    asked: bool | Literal["auto"],
    precision: Precision,
    able: Capabilities,
    run: RunFacts,
    seconds: Callable[[Precision, bool], Timing],
) -> tuple[bool, str]:
    if asked != "auto":
        if asked and able.compiler_lacks is not None:
            raise ConfigError(f"compile: true: {able.compiler_lacks}; install it, or set compile to false or auto")
        return asked, ""
    if able.device != "cpu":
        return False, "compile: auto compiles on a CPU alone"
    if able.processes > 1:
        return False, "compile: auto compiles in one process alone"
    if able.compiler_lacks is not None:
        return False, able.compiler_lacks
    eager = seconds(precision, False)
    whole, expected = run.batches * eager.step, COMPILING_PER_LAYER * run.layers
    if whole * TRIAL_SHARE < expected:
        return False, f"{whole:.0f} s of training are too few to try compiling, which takes about {expected:.0f} s"
    try:
        trial = seconds(precision, True)
    except RuntimeError as error:  # what dynamo and inductor raise derives from it
        return False, f"it cannot be compiled ({one_line(error)[:100]})"
    gain, cost = eager.step / trial.step, run.phases * trial.first
    if gain < LEAST_GAIN or run.batches * (eager.step - trial.step) <= cost:
        return False, f"compiled it would be {gain:.2f} times as fast, after {cost:.0f} s of compiling"
    back = math.ceil(cost / (eager.step - trial.step))
    return (
        True,
        f"compiled it is {gain:.2f} times as fast: {cost:.0f} s of compiling are paid back by batch {back:,}",
    )


def _device_words(able: Capabilities) -> str:
    return {"cpu": "CPU", "cuda": "GPU"}.get(able.device, able.device)


# ------------------------------------------------------------------------------------------------ timing


def time_steps(
    network: nn.Module,
    images: Tensor,
    metadata: Tensor | None,
    precision: Precision,
    compiled: bool,
    *,
    backward: bool = True,
) -> Timing:
    """Time training steps of a copy of ``network``, which stays as it is; a probe's have no ``backward``.

    ``images`` (N, 3, h, w) and ``metadata`` (N, D) or None are a batch of the run, on the device.
    """
    trained = copy.deepcopy(network).train()
    forward = compiled_once(trained) if compiled else trained
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]
    seconds = []
    for _ in range(1 + TIMED_STEPS):
        started = time.perf_counter()
        with torch.set_grad_enabled(backward), torch.autocast(images.device.type, dtype, enabled=precision != "fp32"):
            loss = logits_of(forward, images, metadata).float().square().mean()
        if backward:
            loss.backward()
            trained.zero_grad()
        loss.detach().item()  # waits for a device that is behind
        seconds.append(time.perf_counter() - started)
    if compiled:
        torch.compiler.reset()
    del trained, forward
    gc.collect()
    return Timing(min(seconds[1:]), seconds[0])


def compiled_once(network: nn.Module) -> nn.Module:
    """Compile ``network`` for batches of one shape, and forget what was compiled before.

    The shape is fixed: were dynamo to generalise it, the kernels would depend on which batch came first, and so on where a run
    was interrupted. Dynamo compiles no more than a few versions of one function, which phases and folds would use up.
    """
    torch.compiler.reset()
    return torch.compile(network, dynamic=False)  # type: ignore[return-value]


@contextmanager
def compiling_explained() -> Iterator[None]:
    """Turn a network that cannot be compiled, which the first step finds out, into a line that says how to go on."""
    try:
        yield
    except RuntimeError as error:
        # Told by module: importing dynamo for its classes would cost every run that compiles nothing a second.
        if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
            raise
        raise ConfigError(
            f"compile: true: the network cannot be compiled ({one_line(error)[:150]}); set compile to false or auto"
        ) from error


# ------------------------------------------------------------------------------------------------ kept in the run's folder


def keep_execution(
    folder: RunFolder, recipe: Recipe, accelerator: Accelerator, chosen: Callable[[Capabilities], Execution]
) -> Execution:
    """Return how the run in ``folder`` is executed: as it began, or as is ``chosen`` now and kept there.

    The first process looks and chooses. A run that was begun before this was kept did what its recipe says, in fp32 on a CPU.
    """
    result: Execution | str
    try:
        result = _keep(folder, recipe, Capabilities.of(accelerator), chosen) if accelerator.is_main_process else ""
    except ConfigError as error:
        result = str(error)
    result = from_first(result, accelerator)
    if isinstance(result, str):
        raise ConfigError(result)
    return result


def _keep(folder: RunFolder, recipe: Recipe, able: Capabilities, chosen: Callable[[Capabilities], Execution]) -> Execution:
    file = folder.execution_file
    if file.is_file():
        return here(validated(Execution, read_json(file), str(file)), recipe.compile, able)
    if not folder.started:
        made = chosen(able)
        folder.write_json(file.name, made.model_dump())
        return made
    if "auto" in (recipe.precision, recipe.compile):
        raise ConfigError(f"{file}: is gone, and says how this run began; put it back, or train anew with --restart")
    return Execution(precision="fp32" if able.device == "cpu" else recipe.precision, compile=recipe.compile)


def here(kept: Execution, asked: bool | Literal["auto"], able: Capabilities) -> Execution:
    """Return the choice that a run was begun with, without what this machine lacks, which is one line; the file stays.

    >>> here(Execution(precision="bf16", compile=False), False, Capabilities("cpu", bf16=True)).precision
    'bf16'
    """
    changes: dict[str, object] = {}
    if able.device == "cpu" and kept.precision != "fp32" and not (kept.precision == "bf16" and able.bf16):
        logger.warning("this run was begun in %s, which this CPU lacks: going on in fp32, not bit for bit", kept.precision)
        changes["precision"] = "fp32"
    if kept.compile and able.compiler_lacks is not None:
        if asked is True:
            raise ConfigError(f"compile: true: {able.compiler_lacks}; install it, or --restart with compile=false")
        logger.warning("this run was begun compiled, and here %s: going on without, not bit for bit", able.compiler_lacks)
        changes["compile"] = False
    return kept.model_copy(update=changes)
