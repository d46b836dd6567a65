"""The command line: one file a command, each a plain function. Nothing heavy is imported before a command runs."""

from reslearn.cli.commands import app, main

__all__ = ["app", "main"]
