"""Networks for small pictures: plain, dense, separable, mixers, U-Nets and graphs of patches.

They are written as users write them, in various styles and without types.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F


def small_cnn(channels, outputs, width=8, size=8, act=nn.ReLU, init=None):
    """Two convolutions with pooling and a hidden layer, as in tutorials."""
    net = nn.Sequential(
        nn.Conv2d(channels, width, kernel_size=3, padding=1),
        act(),
        nn.MaxPool2d(2),
        nn.Conv2d(width, 2 * width, kernel_size=3, padding=1),
        act(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(2 * width * (size // 4) ** 2, 32),
        act(),
        nn.Linear(32, outputs),
    )
    if init is not None:
        net.apply(init)
    return net


class ConvTower(nn.Module):
    """3x3 convolutions of one width after a strided one, in pairs."""

    def __init__(self, channels, outputs, depth, width=8, skip=False, norm=False, act=F.relu):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, stride=2, padding=1)
        self.pairs = nn.ModuleList()
        for _ in range(depth // 2):
            pair = [nn.Conv2d(width, width, 3, padding=1) for _ in range(2)]
            self.pairs.append(nn.ModuleList(pair))
        self.norms = nn.ModuleList(
            [nn.BatchNorm2d(width) if norm else nn.Identity() for _ in range(depth // 2)]
        )
        self.fc = nn.Linear(width, outputs)
        self.skip, self.act = skip, act

    def forward(self, x):
        x = self.act(self.conv1(x))
        for (a, b), norm in zip(self.pairs, self.norms):
            y = norm(b(self.act(a(x))))
            x = self.act(y + x) if self.skip else self.act(y)
        return self.fc(x.mean([2, 3]))


class BasicBlock(nn.Module):
    def __init__(self, planes, zero_init):
        super().__init__()
        self.conv1 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        if zero_init:
            nn.init.zeros_(self.bn2.weight)

    def forward(self, x):
        identity = x
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.bn2(self.conv2(x))
        x += identity
        return F.relu(x)


def resnet(channels, outputs, blocks, planes=8, zero_init=False):
    """Basic blocks of one stage."""
    stem = nn.Sequential(
        nn.Conv2d(channels, planes, 3, 2, 1, bias=False), nn.BatchNorm2d(planes), nn.ReLU()
    )
    body = nn.Sequential(*[BasicBlock(planes, zero_init) for _ in range(blocks)])
    return nn.Sequential(
        stem, body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(planes, outputs)
    )


class DenseNet(nn.Module):
    """One dense block with a transition."""

    def __init__(self, channels, outputs, layers=4, growth=6):
        super().__init__()
        num = 8
        self.conv0 = nn.Conv2d(channels, num, 3, padding=1)
        self.dense = nn.ModuleList()
        for _ in range(layers):
            self.dense.append(
                nn.Sequential(nn.BatchNorm2d(num), nn.ReLU(), nn.Conv2d(num, growth, 3, padding=1))
            )
            num += growth
        self.transition = nn.Sequential(nn.Conv2d(num, 16, 1), nn.AvgPool2d(2))
        self.fc = nn.LazyLinear(outputs)

    def forward(self, x):
        x = self.conv0(x)
        for layer in self.dense:
            x = torch.cat((x, layer(x)), 1)
        x = self.transition(x)
        return self.fc(x.flatten(1))


def dense_net(channels, outputs, size=8, **kwargs):
    """Build a DenseNet and run it once, so that the lazy layer gets its size."""
    net = DenseNet(channels, outputs, **kwargs)
    with torch.no_grad():
        net(torch.zeros(2, channels, size, size))
    return net


def separable(channels, outputs, width=16):
    """Depthwise and pointwise convolutions with hard swish."""

    def dw(c):
        return [
            nn.Conv2d(c, c, 3, padding=1, groups=c),
            nn.Conv2d(c, c, 1),
            nn.BatchNorm2d(c),
            nn.Hardswish(),
        ]

    return nn.Sequential(
        nn.Conv2d(channels, width, 3, stride=2, padding=1),
        nn.Hardswish(),
        *dw(width),
        *dw(width),
        *dw(width),
        nn.Flatten(),
        nn.Dropout(0.05),
        nn.LazyLinear(outputs),
    )


def separable_for(channels, outputs, size):
    """Build the separable network for pictures of `size`."""
    net = separable(channels, outputs)
    net.eval()(torch.zeros(1, channels, size, size))
    return net.train()


class MixerLayer(nn.Module):
    def __init__(self, tokens, dim, skip):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.token_mlp = nn.Sequential(nn.Linear(tokens, 24), nn.GELU(), nn.Linear(24, tokens))
        self.channel_mlp = nn.Sequential(nn.Linear(dim, 48), nn.GELU(), nn.Linear(48, dim))
        self.skip = skip

    def forward(self, x):
        y = self.token_mlp(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        x = x + y if self.skip else y
        y = self.channel_mlp(self.norm2(x))
        return x + y if self.skip else y


class MLPMixer(nn.Module):
    """Patches of 2 x 2, token and channel MLPs."""

    def __init__(self, channels, outputs, depth, size=8, dim=24, skip=True):
        super().__init__()
        self.patches = nn.Conv2d(channels, dim, kernel_size=2, stride=2)
        tokens = (size // 2) ** 2
        self.layers = nn.Sequential(*[MixerLayer(tokens, dim, skip) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, outputs)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = self.norm(self.layers(x))
        return self.head(x.mean(1))


class UNet(nn.Module):
    """Down, middle, up; `skip` joins the maps of one size."""

    def __init__(self, width=8, middle=2, skip=True):
        super().__init__()
        self.enc1 = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        self.enc2 = nn.Sequential(nn.Conv2d(width, 2 * width, 3, 2, 1), nn.ReLU())
        mid = []
        for _ in range(middle):
            mid += [nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.ReLU()]
        self.mid = nn.Sequential(*mid)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.dec = nn.Conv2d(2 * width if skip else width, width, 3, padding=1)
        self.final = nn.Conv2d(width, 1, 1)
        self.skip = skip

    def forward(self, x):
        e1 = self.enc1(x)
        e2 = self.enc2(e1)
        d = F.relu(self.up(self.mid(e2)))
        if self.skip:
            d = torch.cat([e1, d], dim=1)
        return self.final(F.relu(self.dec(d)))


class Denoiser(nn.Module):
    """DnCNN: same-size convolutions; `skip` adds the input of every pair."""

    def __init__(self, depth, width=10, skip=False, norm=False):
        super().__init__()
        self.head = nn.Conv2d(1, width, 3, padding=1)
        self.body = nn.ModuleList()
        for _ in range(depth // 2):
            layers = [nn.Conv2d(width, width, 3, padding=1)]
            layers += [nn.BatchNorm2d(width)] if norm else []
            layers += [nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)]
            self.body.append(nn.Sequential(*layers))
        self.tail = nn.Conv2d(width, 1, 3, padding=1)
        self.skip = skip

    def forward(self, x):
        x = F.relu(self.head(x))
        for block in self.body:
            x = F.relu(block(x) + x) if self.skip else F.relu(block(x))
        return self.tail(x)


class GCNLayer(nn.Module):
    def __init__(self, a, b):
        super().__init__()
        self.fc = nn.Linear(a, b)

    def forward(self, adj, x):
        return self.fc(torch.bmm(adj, x))


class GCN(nn.Module):
    """Graph convolutions on [N, V, V + F]; nodes or graphs as outputs."""

    def __init__(self, outputs, depth, width=20, nodes=8, features=3, skip=False, per_node=False):
        super().__init__()
        self.nodes, self.skip, self.per_node = nodes, skip, per_node
        self.first = GCNLayer(features, width)
        self.convs = nn.ModuleList([GCNLayer(width, width) for _ in range(depth - 1)])
        self.readout = nn.Linear(width, outputs)

    def forward(self, graph):
        adj, x = graph[..., : self.nodes], graph[..., self.nodes :]
        adj = adj + torch.eye(self.nodes)
        degree = adj.sum(-1).clamp(min=1).rsqrt()
        adj = degree[:, :, None] * adj * degree[:, None, :]
        x = torch.relu(self.first(adj, x))
        for conv in self.convs:
            y = torch.relu(conv(adj, x))
            x = x + y if self.skip else y
        if self.per_node:
            return self.readout(x).squeeze(-1)
        return self.readout(x.mean(1))


class GIN(nn.Module):
    """Sums over neighbors, an MLP per layer, a sum over nodes."""

    def __init__(self, outputs, depth=2, width=24, nodes=8, features=3, per_node=False):
        super().__init__()
        self.nodes, self.per_node = nodes, per_node
        self.inp = nn.Linear(features + 1, width)
        self.eps = nn.Parameter(torch.zeros(depth))
        self.mlps = nn.ModuleList()
        for _ in range(depth):
            self.mlps.append(
                nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
            )
        self.out = nn.Linear(width, outputs)

    def forward(self, graph):
        adj, x = graph.split([self.nodes, graph.shape[2] - self.nodes], dim=2)
        x = self.inp(torch.cat([x, adj.sum(2, keepdim=True)], 2))
        for i, mlp in enumerate(self.mlps):
            x = x + mlp((1 + self.eps[i]) * x + adj @ x)
        if self.per_node:
            return self.out(x)[..., 0]
        return self.out(x.mean(1))
