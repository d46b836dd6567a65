"""Faults that users put into their networks: initializations, tails, wiring and optimizers."""

import torch
import torch.nn as nn
import torch.nn.functional as F

WEIGHTED = (nn.Linear, nn.Conv1d, nn.Conv2d)


# Initializations; `net.apply` calls them for every module.


def he(m):
    """Kaiming's rule, the cure of most of the following."""
    if isinstance(m, WEIGHTED):
        nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
        if m.bias is not None:
            nn.init.zeros_(m.bias)


def xavier(m):
    """Glorot's rule, for tanh."""
    if isinstance(m, WEIGHTED):
        nn.init.xavier_uniform_(m.weight)
        if m.bias is not None:
            m.bias.data.zero_()


def zeros(m):
    """All weights zero."""
    if isinstance(m, WEIGHTED):
        nn.init.zeros_(m.weight)
        nn.init.zeros_(m.bias)


def halves(m):
    """All weights one half."""
    if isinstance(m, WEIGHTED):
        nn.init.constant_(m.weight, 0.5)
        nn.init.constant_(m.bias, 0.0)


def hundredths(m):
    """All weights 0.01."""
    if isinstance(m, WEIGHTED):
        m.weight.data.fill_(0.01)
        m.bias.data.fill_(0.01)


def tiny(m):
    """Weights of deviation 1e-4."""
    if isinstance(m, WEIGHTED):
        nn.init.normal_(m.weight, std=1e-4)
        nn.init.zeros_(m.bias)


def small(m):
    """Weights of deviation 0.01, the habit of 2012."""
    if isinstance(m, WEIGHTED):
        m.weight.data.normal_(0.0, 0.01)
        m.bias.data.zero_()


def unit(m):
    """torch.randn as it comes."""
    if isinstance(m, WEIGHTED):
        m.weight.data = torch.randn_like(m.weight)


def huge(m):
    """Weights of deviation 5."""
    if isinstance(m, WEIGHTED):
        torch.nn.init.normal_(m.weight, 0, 5)


def positive(m):
    """torch.rand as it comes: all weights positive."""
    if isinstance(m, WEIGHTED):
        m.weight.data = torch.rand_like(m.weight)


def negative_bias(m):
    """Biases of -8: no ReLU opens."""
    if isinstance(m, WEIGHTED):
        nn.init.kaiming_normal_(m.weight)
        nn.init.constant_(m.bias, -8.0)


def weak_recurrence(m):
    """Recurrent weights near zero."""
    for name, weight in m.named_parameters(recurse=False):
        if weight.ndim > 1:
            nn.init.normal_(weight, std=1e-5)
        elif "bias" in name:
            nn.init.zeros_(weight)


def strong_recurrence(m):
    """Recurrent weights of deviation 3."""
    for weight in m.parameters(recurse=False):
        if weight.ndim > 1:
            nn.init.normal_(weight, std=3.0)


# Tails.


def softmax(x):
    """Probabilities."""
    return F.softmax(x, dim=1)


def softmax_over_batch(x):
    """Probabilities along the wrong axis."""
    return F.softmax(x, dim=0)


def log_softmax(x):
    """Log-probabilities: under cross-entropy they do no harm."""
    return F.log_softmax(x, dim=1)


def cold_softmax(x):
    """Probabilities, times two."""
    return 2 * torch.softmax(x, -1)


def normalized(x):
    """Outputs of length one."""
    return F.normalize(x, dim=1)


def clamped(x):
    """Outputs between -0.5 and 0.5."""
    return x.clamp(-0.5, 0.5)


def between_zero_and_one(x):
    """Outputs as shares."""
    return torch.sigmoid(x)


# Wiring.


class Unregistered(nn.Module):
    """Hidden layers in a list."""

    def __init__(self, inputs, outputs, depth, width=24, container=list):
        super().__init__()
        self.stem = nn.Linear(inputs, width)
        self.blocks = container([nn.Linear(width, width) for _ in range(depth)])
        self.classify = nn.Linear(width, outputs)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        for block in self.blocks:
            x = torch.relu(block(x))
        return self.classify(x)


class UnregisteredConv(nn.Module):
    """Convolutions in a dictionary of Python."""

    def __init__(self, outputs, depth, container=dict):
        super().__init__()
        self.conv_in = nn.Conv2d(1, 8, 3, padding=1)
        self.convs = container({f"c{i}": nn.Conv2d(8, 8, 3, padding=1) for i in range(depth)})
        self.fc = nn.Linear(8, outputs)

    def forward(self, x):
        x = F.relu(self.conv_in(x))
        for name in self.convs:
            x = F.relu(self.convs[name](x))
        return self.fc(x.amax((2, 3)))


class UnregisteredHeads(nn.Module):
    """Attention whose projections are plain tensors, or parameters."""

    def __init__(self, vocabulary, outputs, length, width=16, wrap=lambda t: t.requires_grad_()):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.position = nn.Parameter(torch.randn(length, width) * 0.1)
        self.q, self.k, self.v = (wrap(torch.randn(width, width) / width) for _ in range(3))
        self.w = wrap(torch.randn(width, 4 * width) * 0.05)
        self.head = nn.Linear(4 * width, outputs)

    def forward(self, tokens):
        x = self.embedding(tokens) + self.position
        scores = (x @ self.q) @ (x @ self.k).transpose(1, 2) / x.size(-1) ** 0.5
        x = scores.softmax(-1) @ (x @ self.v)
        return self.head(torch.relu(x[:, 0] @ self.w))


class MadeInForward(nn.Module):
    """A layer that is created again in each forward, or once."""

    def __init__(self, inputs, outputs, width=24, once=False):
        super().__init__()
        self.fc1 = nn.Linear(inputs, width)
        self.middle = nn.ModuleList([nn.Linear(width, width) for _ in range(3)]) if once else None
        self.fc3 = nn.Linear(width, outputs)

    def forward(self, x):
        x = F.relu(self.fc1(x))
        for i in range(3):
            layer = nn.Linear(24, 24) if self.middle is None else self.middle[i]
            x = F.relu(layer(x))
        return self.fc3(x)


def first_parameters_only(parameters, lr):
    """Adam for the first two parameters only."""
    return torch.optim.Adam(list(parameters)[:2], lr=lr)


# Optimizers.


class WarmedAdam(torch.optim.Adam):
    """Adam whose rate grows over the first steps."""

    warm_up_steps = 80

    def __init__(self, parameters, lr):
        super().__init__(parameters, lr=lr)
        self.num_steps = 0

    @torch.no_grad()
    def step(self, closure=None):
        self.num_steps += 1
        share = min(1.0, self.num_steps / self.warm_up_steps)
        rates = [group["lr"] for group in self.param_groups]
        for group, rate in zip(self.param_groups, rates):
            group["lr"] = rate * share
        result = super().step(closure)
        for group, rate in zip(self.param_groups, rates):
            group["lr"] = rate
        return result


def plain_sgd(parameters, lr):
    """SGD without momentum."""
    return torch.optim.SGD(parameters, lr=lr)


def rmsprop(parameters, lr):
    """RMSprop with its usual settings."""
    return torch.optim.RMSprop(parameters, lr=lr)


def nesterov(parameters, lr):
    """SGD with Nesterov's momentum and weight decay."""
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True, weight_decay=1e-4)
