"""Residual learning as software: build, train, compare and report networks as deep as the task deserves.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition (2015). Each room below this package is imported by its
own name (`from reslearn.models import build`); importing `reslearn` alone costs nothing and brings no torch.
"""

__version__ = "0.1.0"
