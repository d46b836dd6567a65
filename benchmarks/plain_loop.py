"""The plainest correct PyTorch training of a residual network, as a tutorial would write it.

`reslearn bench train` compares with it. The networks are the same as ours (Table 1, Sec. 4.2):
option A for CIFAR networks, option B for bottlenecks with the stride in the first 1x1. They are
written out again here, in float32 and NCHW. torch's DataLoader runs in the training process. PIL
pads, crops and mirrors each image. SGD has its default settings. Nothing of reslearn is used.

Shapes: x float32 [B, 3, H, W], y int64 [B].
"""

import random
import re
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

PAD_PX = 4


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, and zeros for new channels."""

    def __init__(self, extra_channels: int) -> None:
        super().__init__()
        self.extra_channels = extra_channels

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 0, self.extra_channels))


class Basic(nn.Module):
    """A block of two 3x3 layers, with a shortcut of option A."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential() if stride == 1 else PaddedShortcut(channels - in_channels)

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))


class Bottleneck(nn.Module):
    """A block of 1x1 (with the stride), 3x3 and 1x1 layers, with a shortcut of option B."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        width = channels // 4
        self.conv1 = nn.Conv2d(in_channels, width, 1, stride, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        return F.relu(self.bn3(self.conv3(out)) + self.shortcut(x))


def network(name: str) -> nn.Sequential:
    """Build resnet50, or a CIFAR network of 6n+2 layers (resnet20, resnet56, ...).

    Raises:
        ValueError: If the name is another.
    """
    match = re.fullmatch(r"resnet(\d+)", name)
    depth = int(match[1]) if match else 0
    if depth != 50 and (depth < 8 or depth % 6 != 2):
        raise ValueError(
            f"--models {name}: the plain loop has resnet50 and the CIFAR networks resnet8, "
            "resnet14, resnet20, ... (6n+2 layers)"
        )
    block: type[Basic] | type[Bottleneck]
    blocks: tuple[int, ...]
    widths: tuple[int, ...]
    if depth == 50:
        block, blocks, widths = Bottleneck, (3, 4, 6, 3), (256, 512, 1024, 2048)
        channels, num_classes = 64, 1000
        layers: list[nn.Module] = [
            nn.Conv2d(3, 64, 7, 2, 3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ]
    else:
        block, blocks, widths = Basic, ((depth - 2) // 6,) * 3, (16, 32, 64)
        channels, num_classes = 16, 10
        layers = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    for stage, (num_blocks, width) in enumerate(zip(blocks, widths, strict=True)):
        for index in range(num_blocks):
            layers.append(block(channels, width, 2 if stage > 0 and index == 0 else 1))
            channels = width
    net = nn.Sequential(
        *layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes)
    )
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return net


class Pictures(Dataset[tuple[Tensor, int]]):
    """Images uint8 [N, H, W, 3]; PIL pads each by 4 pixels, crops and mirrors it at random."""

    def __init__(self, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]) -> None:
        self.pixels = pixels
        self.labels = labels
        mean = pixels.mean(axis=(0, 1, 2), dtype=np.float64) / 255
        std = pixels.std(axis=(0, 1, 2), dtype=np.float64) / 255
        self.mean = torch.from_numpy(mean).float().view(3, 1, 1)
        self.std = torch.from_numpy(std).float().view(3, 1, 1)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.pixels[index])
        width, height = picture.size
        left, top = random.randint(0, 2 * PAD_PX), random.randint(0, 2 * PAD_PX)
        picture = ImageOps.expand(picture, border=PAD_PX).crop(
            (left, top, left + width, top + height)
        )
        if random.random() < 0.5:
            picture = ImageOps.mirror(picture)
        x = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float().div(255)
        return (x - self.mean) / self.std, int(self.labels[index])


def plain_loop(
    name: str,
    pixels: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    *,
    batch_size: int,
    device: str,
) -> Iterator[float]:
    """Train forever; each `next` makes one step of SGD and returns its loss."""
    loader = DataLoader(
        Pictures(pixels, labels), batch_size=batch_size, shuffle=True, drop_last=True
    )
    net = network(name).to(device).train()
    loss_function = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    while True:
        for x, y in loader:
            optimizer.zero_grad()
            loss = loss_function(net(x.to(device)), y.to(device))
            loss.backward()
            optimizer.step()
            yield loss.item()
