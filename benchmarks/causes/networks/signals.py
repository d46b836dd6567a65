"""Networks for signals and series: dilated convolutions and recurrent cells.

They are written as users write them, in various styles and without types.
"""

import torch
import torch.nn as nn
import torch.nn.functional as F


class TemporalBlock(nn.Module):
    def __init__(self, channels, dilation, skip, norm):
        super().__init__()
        self.conv1 = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.conv2 = nn.Conv1d(channels, channels, 3, padding=dilation, dilation=dilation)
        self.norm = nn.BatchNorm1d(channels) if norm else None
        self.relu = nn.ReLU()
        self.skip = skip

    def forward(self, x):
        out = self.relu(self.conv1(x))
        out = self.conv2(out)
        if self.norm is not None:
            out = self.norm(out)
        if self.skip:
            out = out + x
        return self.relu(out)


class TCN(nn.Module):
    """Dilated convolutions [N, C, L] -> [N, K]; dilations repeat 1, 2, 4."""

    def __init__(self, inputs, outputs, depth, channels=12, skip=False, norm=False):
        super().__init__()
        self.stem = nn.Conv1d(inputs, channels, 5, stride=2, padding=2)
        blocks = [TemporalBlock(channels, 2 ** (i % 3), skip, norm) for i in range(depth // 2)]
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(channels, outputs)

    def forward(self, x):
        x = F.relu(self.stem(x))
        x = self.blocks(x)
        return self.head(x.mean(dim=2))


class CausalConvs(nn.Module):
    """WaveNet-like gates on [N, L, F], padded to the left; returns the last position or all."""

    def __init__(self, features, depth, channels=16, skip=True, every=False):
        super().__init__()
        self.inp = nn.Linear(features, channels)
        self.filters = nn.ModuleList()
        self.gates = nn.ModuleList()
        self.dilations = [2 ** (i % 4) for i in range(depth)]
        for d in self.dilations:
            self.filters.append(nn.Conv1d(channels, channels, 2, dilation=d))
            self.gates.append(nn.Conv1d(channels, channels, 2, dilation=d))
        self.out = nn.Conv1d(channels, 1, 1)
        self.skip, self.every = skip, every

    def forward(self, x):
        x = self.inp(x).transpose(1, 2)
        for d, filt, gate in zip(self.dilations, self.filters, self.gates):
            padded = F.pad(x, (d, 0))
            y = torch.tanh(filt(padded)) * torch.sigmoid(gate(padded))
            x = x + y if self.skip else y
        y = self.out(x)[:, 0]
        return y if self.every else y[:, -1]


def conv_stack(inputs, outputs, depth, channels=10, act=nn.ReLU, skip=False):
    """A plain Sequential of convolutions of length 3."""
    layers = [nn.Conv1d(inputs, channels, 3, stride=2, padding=1), act()]
    for _ in range(depth // 2):
        block = nn.Sequential(
            nn.Conv1d(channels, channels, 3, padding=1),
            act(),
            nn.Conv1d(channels, channels, 3, padding=1),
        )
        layers += [Add(block), act()] if skip else [block, act()]
    return nn.Sequential(
        *layers, nn.AdaptiveMaxPool1d(1), nn.Flatten(), nn.Linear(channels, outputs)
    )


class Add(nn.Module):
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x) + x


class Elman(nn.Module):
    """h = tanh(W x + U h), written out; last state or all of them."""

    def __init__(self, features, outputs, width=24, act=torch.tanh, every=False):
        super().__init__()
        self.w = nn.Linear(features, width)
        self.u = nn.Linear(width, width, bias=False)
        nn.init.orthogonal_(self.u.weight)
        self.out = nn.Linear(width, outputs)
        self.act, self.every = act, every

    def forward(self, x):
        h = x.new_zeros(x.shape[0], self.u.in_features)
        states = []
        for t in range(x.shape[1]):
            h = self.act(self.w(x[:, t]) + self.u(h))
            states.append(h)
        if self.every:
            return self.out(torch.stack(states, 1)).squeeze(-1)
        y = self.out(h)
        return y.squeeze(-1) if y.shape[1] == 1 else y


class GRUNet(nn.Module):
    """nn.GRU with a linear head on [N, L, F]."""

    def __init__(self, features, outputs, hidden=24, layers=1, every=False):
        super().__init__()
        self.gru = nn.GRU(features, hidden, num_layers=layers, batch_first=True)
        self.fc = nn.Linear(hidden, outputs)
        self.every = every

    def forward(self, x):
        out, _ = self.gru(x)
        if self.every:
            return self.fc(out)[..., 0]
        y = self.fc(out[:, -1])
        return y[:, 0] if y.shape[1] == 1 else y


class CellLoop(nn.Module):
    """nn.GRUCell or nn.LSTMCell, unrolled by hand, on signals [N, C, L]."""

    def __init__(self, channels, outputs, cell="gru", hidden=20, stride=4):
        super().__init__()
        self.cell = (
            nn.GRUCell(channels * stride, hidden)
            if cell == "gru"
            else nn.LSTMCell(channels * stride, hidden)
        )
        self.is_lstm = cell != "gru"
        self.stride, self.hidden = stride, hidden
        self.out = nn.Linear(hidden, outputs)

    def forward(self, x):
        batch, channels, length = x.shape
        x = x.view(batch, channels, length // self.stride, self.stride)
        h, c = x.new_zeros(batch, self.hidden), x.new_zeros(batch, self.hidden)
        for t in range(x.shape[2]):
            step = x[:, :, t].flatten(1)
            if self.is_lstm:
                h, c = self.cell(step, (h, c))
            else:
                h = self.cell(step, h)
        return self.out(h)


class TokenRNN(nn.Module):
    """Embedding, LSTM, head."""

    def __init__(self, vocabulary, outputs, width=24, kind="lstm"):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.rnn = (
            nn.LSTM(width, width, batch_first=True)
            if kind == "lstm"
            else nn.GRU(width, width, batch_first=True)
        )
        self.head = nn.Linear(width, outputs)

    def forward(self, tokens):
        states, _ = self.rnn(self.embed(tokens))
        return self.head(states[:, -1])


class TokenConv(nn.Module):
    """Embedding and convolutions over positions, as for text."""

    def __init__(self, vocabulary, outputs, width=24, depth=2, skip=False):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.convs = nn.ModuleList([nn.Conv1d(width, width, 3, padding=1) for _ in range(depth)])
        self.fc = nn.Linear(2 * width, outputs)
        self.skip = skip

    def forward(self, tokens):
        x = self.embed(tokens).permute(0, 2, 1)
        for conv in self.convs:
            y = F.relu(conv(x))
            x = x + y if self.skip else y
        x = torch.cat([x.max(2)[0], x.mean(2)], 1)
        return self.fc(x)


class TokenTower(nn.Module):
    """Concatenated embeddings and a deep tower; `skip` makes it residual."""

    def __init__(self, vocabulary, outputs, length, depth, width=32, skip=False, act=F.relu):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, 8)
        self.inp = nn.Linear(8 * length, width)
        self.hidden = nn.ModuleList()
        for _ in range(depth // 2):
            self.hidden.append(nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width)]))
        self.out = nn.Linear(width, outputs)
        self.skip, self.act = skip, act

    def forward(self, tokens):
        x = self.act(self.inp(self.embed(tokens).flatten(1)))
        for first, second in self.hidden:
            y = second(self.act(first(x)))
            x = self.act(x + y if self.skip else y)
        return self.out(x)
