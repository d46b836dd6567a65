"""Train a ResNet on scanned digits and measure its test error. A few seconds."""

import torch
from torch.nn.functional import cross_entropy

import reslearn
from reslearn.data import Augment, Preprocess, eval_batches, load, train_batches
from reslearn.evaluate import evaluate
from reslearn.train import LearningRate

STEPS = 100

digits = load("digits")  # 8 x 8 pixels, embedded in scikit-learn: nothing is downloaded
preprocess = Preprocess.fit(digits.train)
batches = train_batches(
    digits.train,
    preprocess,
    batch_size=64,
    seed=0,
    start_step=0,
    augment=Augment(pad_px=1, flip=False),
)

torch.manual_seed(0)
network = reslearn.create_model("resnet8", num_classes=10, in_channels=1)
optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
# Divide the learning rate by 10 after 80 % of the steps.
schedule = LearningRate(lambda step: 1.0 if step < 0.8 * STEPS else 0.1)
readings = reslearn.fit(
    network, batches, cross_entropy, optimizer, steps=STEPS, learning_rate=schedule
)
for reading in readings:
    print(f"step {reading.step:4d}  loss {reading.loss:.3f}")

network.eval()
metrics = evaluate(network, eval_batches(digits.test, preprocess))
print(f"test error {metrics.top1_error_pct:.2f} % on {len(digits.test)} images")
