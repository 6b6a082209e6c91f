"""Architectures: shapes, the text that rebuilds them, and what is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from assay.models import architectures
from assay.models.architectures import CNN, MLP, Normalize, ResNet, cnn, mlp, parse, resnet
from assay.models.text import Sizes, describe
from assay.verify.core.errors import InputError

TEXTS = [
    "mlp",
    "mlp(hidden=20)",
    "mlp(hidden=20-30-20,mean=0.3,std=0.5)",
    "cnn",
    "cnn(channels=4-8-8,hidden=0)",
    "mlp(hidden=20-30,batchnorm=true)",
    "cnn(channels=4-8,hidden=5,batchnorm=true)",
    "resnet(channels=4-8,mean=0.1)",
    "linf-distance(hidden=6-5)",
]


@pytest.mark.parametrize("shape", [(1, 8, 8), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("text", TEXTS)
def test_every_architecture_maps_images_to_logits(text: str, shape: tuple[int, ...]) -> None:
    model = parse(text).build(shape, classes=7)
    assert model(torch.rand(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("text", TEXTS)
def test_the_description_rebuilds_the_same_network(text: str) -> None:
    first = parse(text)
    again = parse(describe(first))
    assert again == first
    ours, theirs = first.build((1, 8, 8), 10), again.build((1, 8, 8), 10)
    theirs.load_state_dict(ours.state_dict())
    x = torch.rand(3, 1, 8, 8)
    assert torch.equal(ours.eval()(x), theirs.eval()(x))


def test_the_description_writes_every_option_out() -> None:
    assert describe(MLP(hidden=Sizes((50, 30)))) == "mlp(hidden=50-30,mean=0.0,std=1.0,batchnorm=False)"


def test_every_name_of_the_table_is_tested() -> None:
    assert {text.partition("(")[0] for text in TEXTS} == set(architectures.TABLE)


@pytest.mark.parametrize("name", ["mlp", "cnn", "resnet"])
def test_factories_and_texts_have_the_same_defaults(name: str) -> None:
    by_function = {"mlp": mlp, "cnn": cnn, "resnet": resnet}[name]((1, 8, 8), 10)
    by_text = parse(name).build((1, 8, 8), 10)
    assert [p.shape for p in by_function.parameters()] == [p.shape for p in by_text.parameters()]


def test_hidden_widths_are_the_widths() -> None:
    widths = [layer.out_features for layer in mlp((1, 8, 8), 10, hidden=(5, 6)) if isinstance(layer, nn.Linear)]
    assert widths == [5, 6, 10]


def test_batch_normalisation_stands_before_every_activation() -> None:
    for text in ("mlp(hidden=20-30,batchnorm=true)", "cnn(channels=4-8,hidden=5,batchnorm=true)"):
        parts = list(parse(text).build((1, 8, 8), 10))  # type: ignore[call-overload]
        activations = [i for i, part in enumerate(parts) if isinstance(part, nn.ReLU)]
        assert len(activations) >= 2
        for i in activations:
            assert isinstance(parts[i - 1], (nn.BatchNorm1d, nn.BatchNorm2d))
            assert parts[i - 2].bias is None  # it would be taken away again with the mean


def test_normalisation_comes_first_and_does_what_it_says() -> None:
    plain, normalised = CNN(hidden=0).build((1, 8, 8), 3), CNN(hidden=0, mean=0.25, std=0.5).build((1, 8, 8), 3)
    missing = normalised.load_state_dict(
        {f"{int(k.split('.')[0]) + 1}.{k.split('.')[1]}": v for k, v in plain.state_dict().items()}, strict=False
    )
    assert missing.missing_keys == ["0.mean", "0.std"]
    x = torch.rand(2, 1, 8, 8)
    assert torch.equal(normalised(x), plain((x - 0.25) / 0.5))


def test_normalisation_per_channel() -> None:
    x = torch.rand(2, 3, 4, 4)
    y = Normalize([0.1, 0.2, 0.3], [1.0, 2.0, 4.0])(x)
    assert torch.equal(y[:, 2], (x[:, 2] - 0.3) / 4)


def test_a_residual_block_adds_its_input() -> None:
    model = ResNet(channels=Sizes((4,))).build((1, 8, 8), 10).eval()
    block = model[3]
    for parameter in block.body.parameters():
        nn.init.zeros_(parameter)
    x = torch.rand(2, 4, 8, 8)
    assert torch.equal(block(x), block.shortcut(x).relu())
    assert not torch.equal(block(x), torch.zeros_like(block(x)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mpl", "unknown architecture 'mpl'; did you mean 'mlp'"),
        ("mlp(width=3)", "unknown option of architecture 'mlp' 'width'"),
        ("mlp(hidden=50-x)", "expected positive numbers such as 50-50, got '50-x'"),
        ("mlp(hidden=50-0)", "expected positive numbers"),
        ("mlp(hidden=)", "expected positive numbers"),
        ("mlp(std=0)", "std > 0"),
        ("mlp(mean=nan)", "finite mean"),
        ("cnn(hidden=-1)", "hidden >= 0"),
        ("cnn(hidden=x)", "expected int, got 'x'"),
        ("mlp(hidden=3", "name\\(option=value"),
    ],
)
def test_bad_texts_are_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse(text)


@pytest.mark.parametrize("text", ["cnn", "resnet"])
def test_convolutions_refuse_samples_that_are_no_images(text: str) -> None:
    with pytest.raises(InputError, match=r"shape \(channels, height, width\), got \(64,\)"):
        parse(text).build((64,), 10)


def test_too_many_halvings_are_refused() -> None:
    with pytest.raises(InputError, match="4 halvings are too many for images of 8 x 8"):
        cnn((1, 8, 8), 10, channels=(2, 2, 2, 2))


def test_normalisation_by_zero_is_refused() -> None:
    with pytest.raises(InputError, match="std > 0"):
        Normalize(0.5, [1.0, 0.0])
