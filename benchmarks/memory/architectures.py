"""Families of image models as tapes: the published shapes, varied in depth, width and resolution.

Shapes after the papers: VGG (arXiv:1409.1556), ResNet (1512.03385), ResNeXt (1611.05431), SE (1709.01507), DenseNet
(1608.06993), MobileNetV2 (1801.04381), EfficientNet (1905.11946), ConvNeXt (2201.03545), ViT (2010.11929), Swin
(2103.14030), MLP-Mixer (2105.01601), SqueezeNet (1602.07360), Inception (1409.4842).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.memory.tape import Tape, Tensor

CLASSES = 1000


@dataclass(frozen=True, slots=True)
class ImageModel:
    name: str
    family: str
    tape: Tape


def _image(tape: Tape, side: int) -> Tensor:
    return tape.tensor(3, side, side)


def _cbr(t: Tape, x: Tensor, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> Tensor:
    return t.relu(t.batch_norm(t.conv(x, channels, kernel, stride, groups)))


def _cbs(t: Tape, x: Tensor, channels: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> Tensor:
    return t.smooth(t.batch_norm(t.conv(x, channels, kernel, stride, groups)))


def _head(t: Tape, x: Tensor) -> None:
    t.linear(t.mean_pool(x), CLASSES)


def _squeeze(t: Tape, x: Tensor, channels: int) -> Tensor:
    return t.multiply(x, t.conv(t.relu(t.conv(t.mean_pool(x), channels, 1)), x.channels, 1))


def vgg(side: int, convs: Sequence[int], width: int, norm: bool, hidden: int) -> Tape:
    t = Tape()
    x = _image(t, side)
    for stage, count in enumerate(convs):
        for _ in range(count):
            x = t.conv(x, min(width << stage, 8 * width))
            x = t.relu(t.batch_norm(x) if norm else x)
        x = t.max_pool(x)
    x = t.reshape(x, x.elements, 1)
    for _ in range(2):
        x = t.dropout(t.relu(t.linear(x, hidden)))
    t.linear(x, CLASSES)
    return t


def resnet(side: int, depths: Sequence[int], width: int, bottleneck: bool, groups: int, squeeze: bool) -> Tape:
    t = Tape()
    x = t.max_pool(_cbr(t, _image(t, side), 64, 7, 2))
    for stage, depth in enumerate(depths):
        inner, outer = width << stage, (64 << stage) * (4 if bottleneck else 1)
        for block in range(depth):
            stride = 2 if stage and not block else 1
            if bottleneck:
                y = _cbr(t, _cbr(t, x, inner, 1), inner, 3, stride, groups)
                y = t.batch_norm(t.conv(y, outer, 1))
            else:
                y = t.batch_norm(t.conv(_cbr(t, x, outer, 3, stride), outer))
            if squeeze:
                y = _squeeze(t, y, outer // 16)
            short = x if block else t.batch_norm(t.conv(x, outer, 1, stride))
            x = t.relu(t.add(y, short))
    _head(t, x)
    return t


def densenet(side: int, depths: Sequence[int], growth: int) -> Tape:
    t = Tape()
    x = t.max_pool(_cbr(t, _image(t, side), 2 * growth, 7, 2))
    for stage, depth in enumerate(depths):
        for _ in range(depth):
            y = t.relu(t.batch_norm(x))
            y = t.conv(t.relu(t.batch_norm(t.conv(y, 4 * growth, 1))), growth)
            x = t.concat(x, y)
        if stage < len(depths) - 1:
            x = t.mean_pool(t.conv(t.relu(t.batch_norm(x)), x.channels // 2, 1), 2)
    _head(t, x)
    return t


def inverted(side: int, width: float, depth: float, expand: int, squeeze: bool, smooth: bool) -> Tape:
    """MobileNetV2 and, with squeeze-and-excitation and SiLU, EfficientNet."""
    t = Tape()
    unit = _cbs if smooth else _cbr
    x = unit(t, _image(t, side), int(32 * width), 3, 2)
    rows = ((1, 16, 1, 1, 3), (expand, 24, 2, 2, 3), (expand, 40, 2, 2, 5), (expand, 80, 3, 2, 3),
            (expand, 112, 3, 1, 5), (expand, 192, 4, 2, 5), (expand, 320, 1, 1, 3))  # fmt: skip
    for ratio, channels, count, stride, kernel in rows:
        out = max(8, int(channels * width) // 8 * 8)
        for block in range(max(1, round(count * depth))):
            inner = x.channels * ratio
            y = unit(t, x, inner, 1) if ratio > 1 else x
            y = unit(t, y, inner, kernel, 1 if block else stride, inner)
            if squeeze:
                y = _squeeze(t, y, max(4, x.channels // 4))
            y = t.batch_norm(t.conv(y, out, 1))
            x = t.add(y, x) if block else y
    _head(t, unit(t, x, int(1280 * max(1.0, width)), 1))
    return t


def convnext(side: int, depths: Sequence[int], width: int) -> Tape:
    t = Tape()
    x = t.layer_norm(t.conv(_image(t, side), width, 4, 4))
    for stage, depth in enumerate(depths):
        if stage:
            x = t.conv(t.layer_norm(x), width << stage, 2, 2)
        for _ in range(depth):
            y = t.layer_norm(t.conv(x, x.channels, 7, 1, x.channels))
            x = t.add(t.linear(t.smooth(t.linear(y, 4 * x.channels)), x.channels), x)
    _head(t, x)
    return t


def _transformer(t: Tape, x: Tensor, depth: int, heads: int, fused: bool, ratio: float, window: int = 0) -> Tensor:
    for _ in range(depth):
        y = t.layer_norm(x)
        if window:
            y = t.reshape(y, y.channels, y.height, y.width)
        x = t.add(t.attention(y, heads, fused, window), x)
        x = t.add(t.linear(t.smooth(t.linear(t.layer_norm(x), int(ratio * x.channels))), x.channels), x)
    return x


def vit(side: int, patch: int, width: int, depth: int, fused: bool, ratio: float = 4.0) -> Tape:
    t = Tape()
    x = t.conv(_image(t, side), width, patch, patch)
    x = t.reshape(x, width, x.height * x.width + 1)
    x = _transformer(t, x, depth, max(1, width // 64), fused, ratio)
    _head(t, t.layer_norm(x))
    return t


def swin(side: int, width: int, depths: Sequence[int], window: int) -> Tape:
    t = Tape()
    x = t.layer_norm(t.conv(_image(t, side), width, 4, 4))
    for stage, depth in enumerate(depths):
        if stage:
            x = t.linear(t.layer_norm(t.reshape(x, 4 * x.channels, x.height // 2, x.width // 2)), width << stage)
        x = _transformer(t, x, depth, max(1, x.channels // 32), False, 4.0, window * window)
    _head(t, t.layer_norm(x))
    return t


def mixer(side: int, patch: int, width: int, depth: int) -> Tape:
    t = Tape()
    x = t.conv(_image(t, side), width, patch, patch)
    x = t.reshape(x, width, x.height * x.width)
    for _ in range(depth):
        y = t.reshape(t.layer_norm(x), x.height, width)
        y = t.linear(t.smooth(t.linear(y, width // 2)), y.channels)
        x = t.add(t.reshape(y, width, x.height), x)
        x = t.add(t.linear(t.smooth(t.linear(t.layer_norm(x), 4 * width)), width), x)
    _head(t, t.layer_norm(x))
    return t


def squeezenet(side: int, width: float) -> Tape:
    t = Tape()
    x = t.max_pool(t.relu(t.conv(_image(t, side), int(64 * width), 3, 2)))
    for index, channels in enumerate((16, 16, 32, 32, 48, 48, 64, 64)):
        small = int(channels * width)
        y = t.relu(t.conv(x, small, 1))
        x = t.concat(t.relu(t.conv(y, 4 * small, 1)), t.relu(t.conv(y, 4 * small, 3)))
        if index in (1, 3):
            x = t.max_pool(x)
    _head(t, t.relu(t.conv(t.dropout(x), CLASSES, 1)))
    return t


def inception(side: int, width: float, blocks: Sequence[int]) -> Tape:
    t = Tape()
    x = t.max_pool(_cbr(t, _cbr(t, _image(t, side), int(64 * width), 7, 2), int(192 * width), 3))
    for stage, count in enumerate(blocks):
        for _ in range(count):
            unit = int(width * (64 << stage))
            parts = (
                _cbr(t, x, unit, 1),
                _cbr(t, _cbr(t, x, unit, 1), int(1.5 * unit), 3),
                _cbr(t, _cbr(t, x, unit // 2, 1), unit // 2, 5),
                _cbr(t, x, unit // 2, 1),
            )
            x = t.concat(*parts)
        if stage < len(blocks) - 1:
            x = t.max_pool(x)
    _head(t, x)
    return t


SIDES = (160, 192, 224, 224, 224, 224, 224, 240, 256, 256, 288, 320, 384)


def _vgg(r: random.Random) -> Tape:
    convs = r.choice(((1, 1, 2, 2, 2), (2, 2, 2, 2, 2), (2, 2, 3, 3, 3), (2, 2, 4, 4, 4)))
    return vgg(r.choice(SIDES), convs, r.choice((32, 48, 64)), r.random() < 0.5, r.choice((1024, 4096)))


def _resnet(r: random.Random) -> Tape:
    depths = r.choice(((1, 1, 1, 1), (2, 2, 2, 2), (3, 4, 6, 3), (3, 4, 23, 3), (3, 8, 36, 3), (3, 4, 14, 3)))
    bottleneck = r.random() < 0.7
    groups = r.choice((1, 1, 32)) if bottleneck else 1
    width = r.choice((64, 64, 96, 128)) if bottleneck else 64
    return resnet(r.choice(SIDES), depths, width * (2 if groups > 1 else 1), bottleneck, groups, r.random() < 0.3)


def _densenet(r: random.Random) -> Tape:
    depths = r.choice(((6, 12, 24, 16), (6, 12, 32, 32), (6, 12, 48, 32)))
    return densenet(r.choice(SIDES[:8]), depths, r.choice((24, 32, 48)))


def _mobile(r: random.Random) -> Tape:
    return inverted(r.choice(SIDES), r.choice((0.35, 0.5, 0.75, 1.0, 1.4)), 1.0, r.choice((4, 6)), False, False)


def _efficient(r: random.Random) -> Tape:
    scale = r.randrange(8)
    side = (224, 240, 260, 300, 380, 456, 528, 600)[scale] if r.random() < 0.3 else r.choice(SIDES)
    return inverted(side, 1.1**scale, 1.2**scale, 6, True, True)


def _convnext(r: random.Random) -> Tape:
    depths = r.choice(((2, 2, 6, 2), (3, 3, 9, 3), (3, 3, 27, 3)))
    return convnext(r.choice(SIDES), depths, r.choice((40, 64, 80, 96, 128, 192)))


def _vit(r: random.Random) -> Tape:
    width, depth = r.choice(((192, 12), (384, 12), (384, 12), (512, 16), (768, 12), (768, 12), (1024, 24)))
    return vit(r.choice((224, 224, 224, 256, 384)), r.choice((16, 16, 16, 32, 14, 8 if width < 400 else 16)),
               width, depth, r.random() < 0.6)  # fmt: skip


def _swin(r: random.Random) -> Tape:
    depths = r.choice(((2, 2, 6, 2), (2, 2, 18, 2)))
    return swin(r.choice((224, 224, 256, 384)), r.choice((48, 96, 96, 128, 192)), depths, r.choice((7, 8, 12, 16)))


def _mixer(r: random.Random) -> Tape:
    return mixer(224, r.choice((16, 32)), r.choice((384, 512, 768, 1024)), r.choice((8, 12, 24)))


def _squeezenet(r: random.Random) -> Tape:
    return squeezenet(r.choice(SIDES), r.choice((0.5, 1.0, 1.5, 2.0)))


def _inception(r: random.Random) -> Tape:
    return inception(r.choice(SIDES), r.choice((0.5, 0.75, 1.0, 1.5)), r.choice(((2, 5, 2), (3, 4, 2), (4, 7, 3))))


#: Family -> (share of a population, maker).
FAMILIES: dict[str, tuple[float, Callable[[random.Random], Tape]]] = {
    "vgg": (0.03, _vgg),
    "resnet": (0.24, _resnet),
    "densenet": (0.04, _densenet),
    "mobilenet": (0.08, _mobile),
    "efficientnet": (0.16, _efficient),
    "convnext": (0.08, _convnext),
    "vit": (0.20, _vit),
    "swin": (0.08, _swin),
    "mixer": (0.04, _mixer),
    "squeezenet": (0.01, _squeezenet),
    "inception": (0.04, _inception),
}


def sample(count: int, seed: int, families: Sequence[str] | None = None) -> list[ImageModel]:
    """`count` models, in the families' shares."""
    generator = random.Random(seed)
    names = list(families or FAMILIES)
    weights = [FAMILIES[name][0] for name in names]
    chosen = generator.choices(names, weights, k=count)
    return [
        ImageModel(f"{family}-{index}", family, FAMILIES[family][1](generator)) for index, family in enumerate(chosen)
    ]
