from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from PIL import Image

from lesion_hub.errors import ConfigError
from lesion_hub.training import run
from lesion_hub.training.data import read_run_data
from lesion_hub.training.inputs import BLOCK, content_of, keep_inputs
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.reporting import Report
from lesion_hub.training.run import train_recipe
from lesion_hub.training.run_folder import RunFolder
from lesion_hub.training.start import Lineage, Start
from tests.training.test_loop import PowerCut, cut_power_after, same_weights


def overwrite(image: Path) -> None:
    """Put another picture in the place of one, as of the same time."""
    before = image.stat()
    with Image.open(image) as picture:
        turned = picture.transpose(Image.Transpose.ROTATE_180)
    turned.save(image)
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))


def images_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix in (".jpg", ".png"))


@pytest.mark.slow
def test_a_run_goes_on_with_the_images_that_it_began_with(
    tiny: Recipe, options: LaunchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Overwritten ones are refused; the same bytes elsewhere, of another time, end in the same weights."""
    monkeypatch.setattr(run, "finish", lambda *_: None)
    monkeypatch.setattr(Report, "summary", lambda *_: None)
    straight = options.model_copy(update={"out": tmp_path / "straight"})
    train_recipe(tiny, straight)
    here = options.model_copy(update={"data": Path(shutil.copytree(options.data, tmp_path / "here"))})
    with monkeypatch.context() as patched:
        cut_power_after(patched, 3)
        with pytest.raises(PowerCut):
            train_recipe(tiny, here)
    there = here.model_copy(update={"data": here.data.rename(tmp_path / "there")})
    image = images_below(there.data)[0]
    content = image.read_bytes()
    overwrite(image)
    with pytest.raises(ConfigError, match=rf"image {image.stem} has other content; put back .*, --restart, or .* --out"):
        train_recipe(tiny, there)
    image.write_bytes(content)
    for path in images_below(there.data):
        os.utime(path)
    train_recipe(tiny, there)
    assert same_weights(there.out, straight.out)


def test_what_has_changed_is_named(tiny: Recipe, options: LaunchOptions, tmp_path: Path, cpu_accelerator: Accelerator) -> None:
    folder = RunFolder(tmp_path / "run")
    place = options.model_copy(update={"data": Path(shutil.copytree(options.data, tmp_path / "data"))})
    weights = tmp_path / "start.safetensors"
    weights.write_bytes(b"weights")

    def keep() -> None:
        folder.path.mkdir(exist_ok=True)
        keep_inputs(folder, read_run_data(tiny, place, folder, cpu_accelerator), Lineage(Start(weights)), cpu_accelerator)

    keep()
    overwrite(images_below(place.data)[0])
    keep()  # nothing was trained on them yet
    (folder.path / "checkpoints").mkdir()
    keep()
    weights.write_bytes(b"others")
    with pytest.raises(ConfigError, match=r"the weights that it started from have changed \(.*start\.safetensors\)"):
        keep()
    for path in images_below(place.data)[:3]:
        overwrite(path)
    with pytest.raises(ConfigError, match=r"3 images have changed \(image \S+ has other content\)"):
        keep()
    folder.inputs_file.write_bytes(b"")
    with pytest.raises(ConfigError, match="is damaged; train anew with --restart"):
        keep()
    folder.inputs_file.unlink()
    keep()  # a run of before inputs were kept
    assert not folder.inputs_file.exists()


def test_an_image_is_known_by_its_content(tmp_path: Path) -> None:
    content = np.random.default_rng(0).integers(0, 255, 10 * BLOCK, dtype=np.uint8).tobytes()
    file = tmp_path / "image.bin"
    file.write_bytes(content)
    assert content_of(str(file)) == content_of(content) == content_of({"path": "other.jpg", "bytes": content})
    for place in (0, 5 * BLOCK, 10 * BLOCK - 1):
        assert content_of(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]) != content_of(content)
    assert content_of(content + b"0") != content_of(content)
    assert content_of(str(tmp_path / "gone.jpg")) == "unreadable"
