"""The command line: one file per command. Nothing heavy is imported before a command runs."""

from reslearn.cli.commands import app, main

__all__ = ["app", "main"]
