"""A stranger's network under controlled experiment: is depth what hurts it, what else is, and does the repair help?"""

from reslearn.diagnose.conditions import Conditions, Variant, make_conditions
from reslearn.diagnose.experiment import Diagnosis, diagnose
from reslearn.diagnose.patch import Patch, make_patch, write_patch
from reslearn.diagnose.problem import DiagnosisError, Problem, load_build, make_problem
from reslearn.diagnose.proof import Proof
from reslearn.diagnose.trial import Signals, Trial, run_trial
from reslearn.diagnose.verdict import MARGIN, RULES, Scores, Verdict, decide

__all__ = [
    "MARGIN",
    "RULES",
    "Conditions",
    "Diagnosis",
    "DiagnosisError",
    "Patch",
    "Problem",
    "Proof",
    "Scores",
    "Signals",
    "Trial",
    "Variant",
    "Verdict",
    "decide",
    "diagnose",
    "load_build",
    "make_conditions",
    "make_patch",
    "make_problem",
    "run_trial",
    "write_patch",
]
