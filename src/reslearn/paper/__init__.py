"""The paper as an executable: its claims as studies and analyses, each with a rule written before the data were looked at."""

from reslearn.paper.budgets import demo, paper_budget
from reslearn.paper.claim import Budget, Claim, ClaimModule, Condition, Evidence, Finding, Fit
from reslearn.paper.claims import load_claims
from reslearn.paper.page import as_json, claims_page
from reslearn.paper.runner import ClaimsReport, run_claims
from reslearn.paper.stages import StudyStopped

__all__ = [
    "Budget", "Claim", "ClaimModule", "ClaimsReport", "Condition", "Evidence", "Finding", "Fit", "StudyStopped", "as_json", "claims_page",
    "demo", "load_claims", "paper_budget", "run_claims",
]  # fmt: skip
