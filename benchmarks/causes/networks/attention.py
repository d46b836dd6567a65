"""Transformers: pre-norm, post-norm, without shortcuts, torch's own, and for pictures.

They are written as users write them, in various styles and without types.
"""

import math

import torch
import torch.nn as nn
import torch.nn.functional as F


class SelfAttention(nn.Module):
    def __init__(self, dim, heads=2):
        super().__init__()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.heads = heads

    def forward(self, x):
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        att = (q @ k.transpose(-2, -1)) / math.sqrt(d // self.heads)
        x = (att.softmax(-1) @ v).transpose(1, 2).reshape(b, n, d)
        return self.proj(x)


class Block(nn.Module):
    """One layer: "pre", "post" or "none" (no shortcuts)."""

    def __init__(self, dim, mode):
        super().__init__()
        self.attn = SelfAttention(dim)
        self.ff = nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
        self.ln1 = nn.LayerNorm(dim)
        self.ln2 = nn.LayerNorm(dim)
        self.mode = mode

    def forward(self, x):
        if self.mode == "pre":
            x = x + self.attn(self.ln1(x))
            return x + self.ff(self.ln2(x))
        if self.mode == "post":
            x = self.ln1(x + self.attn(x))
            return self.ln2(x + self.ff(x))
        x = self.attn(self.ln1(x))
        return self.ff(self.ln2(x))


class TokenTransformer(nn.Module):
    """Tokens [N, L] to classes."""

    def __init__(self, vocabulary, outputs, length, depth, dim=24, mode="pre", pool="mean"):
        super().__init__()
        self.tok = nn.Embedding(vocabulary, dim)
        self.pos = nn.Embedding(length, dim)
        self.blocks = nn.ModuleList([Block(dim, mode) for _ in range(depth)])
        self.ln = nn.LayerNorm(dim) if mode != "post" else nn.Identity()
        self.head = nn.Linear(dim, outputs)
        self.pool = pool

    def forward(self, idx):
        x = self.tok(idx) + self.pos(torch.arange(idx.shape[1]))
        for block in self.blocks:
            x = block(x)
        x = self.ln(x)
        x = x[:, 0] if self.pool == "first" else x.mean(dim=1)
        return self.head(x)


class SeriesTransformer(nn.Module):
    """Series [N, L, F] or signals [N, F, L] with a learned class token."""

    def __init__(self, features, outputs, length, depth, dim=16, mode="pre", patch=1):
        super().__init__()
        self.patch = patch
        self.inp = nn.Linear(features * patch, dim)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.pos = nn.Parameter(0.1 * torch.randn(1, length // patch + 1, dim))
        self.layers = nn.Sequential(*(Block(dim, mode) for _ in range(depth)))
        self.out = nn.Linear(dim, outputs)

    def forward(self, x):
        if self.patch > 1:
            x = x.unfold(2, self.patch, self.patch).transpose(1, 2).flatten(2)
        x = self.inp(x)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.pos
        x = self.layers(x)[:, 0]
        x = self.out(x)
        return x.squeeze(-1) if x.shape[-1] == 1 else x


class TorchEncoder(nn.Module):
    """nn.TransformerEncoder as in the tutorial, sinusoidal positions."""

    def __init__(self, vocabulary, outputs, length, layers, d_model=24, norm_first=False):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, d_model)
        position = torch.arange(length).unsqueeze(1)
        div_term = torch.exp(torch.arange(0, d_model, 2) * (-math.log(10000.0) / d_model))
        pe = torch.zeros(length, d_model)
        pe[:, 0::2] = torch.sin(position * div_term)
        pe[:, 1::2] = torch.cos(position * div_term)
        self.register_buffer("pe", pe)
        layer = nn.TransformerEncoderLayer(
            d_model,
            nhead=2,
            dim_feedforward=48,
            dropout=0.0,
            batch_first=True,
            norm_first=norm_first,
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.fc = nn.Linear(d_model, outputs)
        self.d_model = d_model

    def forward(self, src):
        src = self.embedding(src) * math.sqrt(self.d_model) + self.pe
        return self.fc(self.encoder(src).mean(1))


class ViT(nn.Module):
    """Patches of 2 x 2 pixels."""

    def __init__(self, channels, outputs, depth, size=8, dim=24, mode="pre"):
        super().__init__()
        self.patch = nn.Conv2d(channels, dim, 2, 2)
        self.pos = nn.Parameter(torch.randn(1, (size // 2) ** 2, dim) * 0.02)
        self.blocks = nn.Sequential(*[Block(dim, mode) for _ in range(depth)])
        self.norm = nn.LayerNorm(dim)
        self.fc = nn.Linear(dim, outputs)

    def forward(self, x):
        x = self.patch(x).flatten(2).mT + self.pos
        return self.fc(self.norm(self.blocks(x)).mean(1))


class GraphAttention(nn.Module):
    """Attention among neighbors only, on [N, V, V + F]."""

    def __init__(self, outputs, depth=2, width=16, nodes=8, features=3):
        super().__init__()
        self.nodes = nodes
        self.inp = nn.Linear(features + nodes, width)
        self.q = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.k = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.v = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
        self.out = nn.Linear(width, outputs)

    def forward(self, graph):
        adj = graph[..., : self.nodes] + torch.eye(self.nodes)
        x = self.inp(graph)
        for q, k, v in zip(self.q, self.k, self.v):
            scores = q(x) @ k(x).transpose(1, 2) / 4
            weights = scores.masked_fill(adj == 0, -1e9).softmax(-1)
            x = x + F.elu(weights @ v(x))
        return self.out(x.mean(1))


def wide_embeddings(make, std):
    """Build a network and enlarge its embeddings, as a habit from other libraries."""
    net = make()
    for module in net.modules():
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=std)
    return net
