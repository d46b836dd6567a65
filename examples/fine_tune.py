"""Fine-tune other people's weights on a few images of your own. A few seconds.

usage: python examples/fine_tune.py [WEIGHTS]    for example a torchvision resnet18 checkpoint
"""

import sys
import tempfile
from pathlib import Path

import torch
from torch.nn.functional import cross_entropy

import reslearn
from reslearn.interop import dialect_named, identify, write_weights

if len(sys.argv) > 1:
    weights = Path(sys.argv[1])
else:  # without a file: write one with random weights, named as torchvision names them
    weights = Path(tempfile.mkdtemp()) / "resnet18.pth"
    untrained = reslearn.create_model("resnet18", num_classes=1000, shortcut="B")
    write_weights(untrained, weights, dialect_named("torchvision"))

print(identify(weights).dialect.name)  # whose file it is; nothing in it is executed
network = reslearn.create_model("resnet18", pretrained=str(weights), num_classes=2)

# Train the new head alone: two classes, red images and blue images.
images = torch.rand(64, 3, 64, 64)
labels = torch.arange(64) % 2
images[labels == 0, 0] += 1
images[labels == 1, 2] += 1
for name, parameter in network.named_parameters():
    parameter.requires_grad_(name.startswith("head"))
head = [parameter for parameter in network.parameters() if parameter.requires_grad]
optimizer = torch.optim.SGD(head, lr=0.1, momentum=0.9)
batches = list(zip(images.split(16), labels.split(16), strict=True))
readings = reslearn.fit(network, batches, cross_entropy, optimizer, steps=20, read_every_steps=5)
print(f"loss {readings[0].loss:.3f} at first, {readings[-1].loss:.3f} at last")
