"""The paper as an executable: its claims, tables and figures as experiments with decision rules."""

from reslearn.paper.budgets import claims_budget, demo, exhibit_budget
from reslearn.paper.claims import load_claims
from reslearn.paper.exhibits import load_exhibit
from reslearn.paper.experiment import Budget, Experiment, Line, Result, RunSpec
from reslearn.paper.inventory import claims_inventory, inventory
from reslearn.paper.page import claims_json, claims_page, exhibit_json, exhibit_page
from reslearn.paper.run import Report, StudyStopped, jobs_of, run_experiments
from reslearn.paper.text import HEADS, line_texts, reasons_of
from reslearn.paper.trained import Trained, first_specs

__all__ = [
    "HEADS",
    "Budget",
    "Experiment",
    "Line",
    "Report",
    "Result",
    "RunSpec",
    "StudyStopped",
    "Trained",
    "claims_budget",
    "claims_inventory",
    "claims_json",
    "claims_page",
    "demo",
    "exhibit_budget",
    "exhibit_json",
    "exhibit_page",
    "first_specs",
    "inventory",
    "jobs_of",
    "line_texts",
    "load_claims",
    "load_exhibit",
    "reasons_of",
    "run_experiments",
]
