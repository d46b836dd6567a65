"""The paper as an executable: claims, tables and figures as studies and analyses, each with a rule written before the data."""

from reslearn.paper.budgets import demo, paper_budget
from reslearn.paper.claim import Budget, Claim, ClaimModule, Finding, Fit, Runs, RunSpec
from reslearn.paper.claims import load_claims
from reslearn.paper.exhibiting import (
    HEADS,
    ExhibitReport,
    budget_of,
    exhibit_json,
    exhibit_page,
    reasons_of,
    run_exhibit,
    texts,
)
from reslearn.paper.exhibits import load_exhibit
from reslearn.paper.inventory import claims_inventory, inventory
from reslearn.paper.page import as_json, claims_page
from reslearn.paper.runner import ClaimsReport, run_claims
from reslearn.paper.stages import StudyStopped, jobs_of

__all__ = [
    "HEADS",
    "Budget",
    "Claim",
    "ClaimModule",
    "ClaimsReport",
    "ExhibitReport",
    "Finding",
    "Fit",
    "RunSpec",
    "Runs",
    "StudyStopped",
    "as_json",
    "budget_of",
    "claims_inventory",
    "claims_page",
    "demo",
    "exhibit_json",
    "exhibit_page",
    "inventory",
    "jobs_of",
    "load_claims",
    "load_exhibit",
    "paper_budget",
    "reasons_of",
    "run_claims",
    "run_exhibit",
    "texts",
]
