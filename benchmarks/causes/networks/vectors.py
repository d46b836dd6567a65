"""Fully connected networks: towers, highway, dense, gated and residual ones.

They are written as users write them, in various styles and without types.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F


def tower(inputs, outputs, depth, width=24, act=nn.ReLU, norm=None, init=None, tail=None):
    """Stack `depth` hidden layers."""
    layers, size = [], inputs
    for _ in range(depth):
        layers.append(nn.Linear(size, width))
        if norm is not None:
            layers.append(norm(width))
        layers.append(act())
        size = width
    layers.append(nn.Linear(size, outputs))
    if tail is not None:
        layers.append(tail())
    if outputs == 1:
        layers.append(nn.Flatten(0))
    net = nn.Sequential(*layers)
    if init is not None:
        net.apply(init)
    return net


class DeepNet(nn.Module):
    """Equal layers in a ModuleList; `skip` adds x every second layer."""

    def __init__(self, inputs, outputs, depth, width=24, act="relu", skip=False, init=None):
        super().__init__()
        self.first = nn.Linear(inputs, width)
        self.hidden = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.last = nn.Linear(width, outputs)
        self.act = getattr(torch, act) if hasattr(torch, act) else getattr(F, act)
        self.skip = skip
        self.squeeze = outputs == 1
        if init is not None:
            self.apply(init)

    def forward(self, x):
        x = self.act(self.first(x))
        for i in range(0, len(self.hidden) - 1, 2):
            h = self.act(self.hidden[i](x))
            h = self.hidden[i + 1](h)
            x = self.act(h + x) if self.skip else self.act(h)
        x = self.last(x)
        return x.squeeze(1) if self.squeeze else x


class NormedBlock(nn.Module):
    def __init__(self, width, norm, skip):
        super().__init__()
        self.fc1 = nn.Linear(width, width, bias=False)
        self.n1 = norm(width)
        self.fc2 = nn.Linear(width, width, bias=False)
        self.n2 = norm(width)
        self.skip = skip

    def forward(self, x):
        out = F.relu(self.n1(self.fc1(x)))
        out = self.n2(self.fc2(out))
        if self.skip:
            out = out + x
        return F.relu(out)


def normed_blocks(inputs, outputs, depth, width=24, norm=nn.BatchNorm1d, skip=False):
    """Blocks of two normalized layers."""
    blocks = [NormedBlock(width, norm, skip) for _ in range(depth // 2)]
    tail = [nn.Flatten(0)] if outputs == 1 else []
    return nn.Sequential(nn.Linear(inputs, width), *blocks, nn.Linear(width, outputs), *tail)


class PreActivation(nn.Module):
    """Residual layers with the norm in front, as in tabular ResNets."""

    def __init__(self, inputs, outputs, depth, width=32, norm=nn.LayerNorm, dropout=0.0, scale=1.0):
        super().__init__()
        self.embed = nn.Linear(inputs, width)
        self.layers = nn.ModuleList()
        for _ in range(depth):
            self.layers.append(
                nn.Sequential(
                    norm(width),
                    nn.Linear(width, 2 * width),
                    nn.ReLU(),
                    nn.Dropout(dropout),
                    nn.Linear(2 * width, width),
                )
            )
        self.norm = norm(width)
        self.out = nn.Linear(width, outputs)
        self.scale = scale

    def forward(self, x):
        x = self.embed(x)
        for layer in self.layers:
            x = x + self.scale * layer(x)
        x = self.out(self.norm(x))
        return x.flatten() if x.shape[1] == 1 else x


class PostNormTower(nn.Module):
    """x = norm(x + f(x)), many times."""

    def __init__(self, inputs, outputs, depth, width=32):
        super().__init__()
        self.inp = nn.Linear(inputs, width)
        self.f = nn.ModuleList([nn.Linear(width, width) for _ in range(depth)])
        self.norms = nn.ModuleList([nn.LayerNorm(width) for _ in range(depth)])
        self.out = nn.Linear(width, outputs)

    def forward(self, x):
        x = self.inp(x)
        for f, norm in zip(self.f, self.norms):
            x = norm(x + F.gelu(f(x)))
        return self.out(x)


class Highway(nn.Module):
    """Srivastava et al.: y = t * h(x) + (1 - t) * x."""

    def __init__(self, inputs, outputs, depth, width=24, gate_bias=-2.0):
        super().__init__()
        self.inp = nn.Linear(inputs, width)
        self.plain = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.gate = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.out = nn.Linear(width, outputs)
        for gate in self.gate:
            gate.bias.data.fill_(gate_bias)

    def forward(self, x):
        x = torch.tanh(self.inp(x))
        for plain, gate in zip(self.plain, self.gate):
            t = torch.sigmoid(gate(x))
            x = t * torch.relu(plain(x)) + (1 - t) * x
        return self.out(x)


class DenselyConnected(nn.Module):
    """Every layer sees all earlier ones."""

    def __init__(self, inputs, outputs, depth, growth=12):
        super().__init__()
        self.layers = nn.ModuleList()
        features = inputs
        for _ in range(depth):
            self.layers.append(nn.Linear(features, growth))
            features += growth
        self.out = nn.Linear(features, outputs)

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, F.relu(layer(x))], dim=1)
        return self.out(x)


class GatedNet(nn.Module):
    """GLU layers, or plain ones with many zeros; `skip` makes them residual."""

    def __init__(self, inputs, outputs, depth, width=24, skip=True):
        super().__init__()
        self.inp = nn.Linear(inputs, width)
        self.mid = nn.ModuleList([nn.Linear(width, 2 * width) for _ in range(depth)])
        self.out = nn.Linear(width, outputs)
        self.skip = skip

    def forward(self, x):
        x = self.inp(x)
        for fc in self.mid:
            y = F.glu(fc(x), dim=-1)
            x = x + y if self.skip else y
        y = self.out(x)
        return y[:, 0] if y.size(1) == 1 else y


def self_normalizing(inputs, outputs, depth, width=32):
    """SELU with LeCun's initialization."""
    net = nn.Sequential()
    for i in range(depth):
        fc = nn.Linear(inputs if i == 0 else width, width)
        nn.init.kaiming_normal_(fc.weight, nonlinearity="linear")
        nn.init.zeros_(fc.bias)
        net.add_module(f"fc{i}", fc)
        net.add_module(f"selu{i}", nn.SELU())
    net.add_module("head", nn.Linear(width, outputs))
    if outputs == 1:
        net.add_module("squeeze", nn.Flatten(0))
    return net


class WideAndDeep(nn.Module):
    """A linear part beside a deep one."""

    def __init__(self, inputs, outputs, width=64):
        super().__init__()
        self.wide = nn.Linear(inputs, outputs)
        self.deep = nn.Sequential(
            nn.Linear(inputs, width),
            nn.ReLU(),
            nn.Linear(width, width // 2),
            nn.ReLU(),
            nn.Linear(width // 2, outputs),
        )

    def forward(self, x):
        y = self.wide(x) + self.deep(x)
        return y.reshape(-1) if y.shape[-1] == 1 else y


class Maxout(nn.Module):
    """The maximum of three linear pieces per unit."""

    def __init__(self, inputs, outputs, width=20):
        super().__init__()
        self.a = nn.Linear(inputs, 3 * width)
        self.b = nn.Linear(width, 3 * width)
        self.c = nn.Linear(width, outputs)
        self.width = width

    def forward(self, x):
        x = self.a(x).view(-1, 3, self.width).max(1).values
        x = self.b(x).view(-1, 3, self.width).max(1).values
        return self.c(x)


class WithTail(nn.Module):
    """Another network, and a function of its outputs."""

    def __init__(self, body, tail):
        super().__init__()
        self.body = body
        self.tail = tail

    def forward(self, x):
        return self.tail(self.body(x))


def with_tail(make, tail):
    """Build a network and put a function behind it."""
    return WithTail(make(), tail)


def initialized(make, init):
    """Build a network and initialize all of its modules."""
    net = make()
    net.apply(init)
    return net
