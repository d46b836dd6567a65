"""Find out by experiment whether depth hurts a network, what else does, and if shortcuts help."""

import sys
from types import ModuleType
from typing import Any

from reslearn.diagnose.diagnosis import Diagnosis, diagnose
from reslearn.diagnose.findings import Screening, ScreeningFinding
from reslearn.diagnose.patch import Patch, make_patch, write_patch
from reslearn.diagnose.problem import Problem, make_problem
from reslearn.diagnose.proof import Proof
from reslearn.diagnose.scores import MARGIN, Scores
from reslearn.diagnose.screening import screen
from reslearn.diagnose.trial import Trial, run_trial
from reslearn.diagnose.user_code import DiagnosisError, load_function
from reslearn.diagnose.user_data import load_data
from reslearn.diagnose.variant import Variant, Variants, make_variants
from reslearn.diagnose.verdict import decide
from reslearn.diagnose.verdict_rules import CHANGED_BY_HAND, RULES, NetworkVerdict, unrepaired

__all__ = [
    "CHANGED_BY_HAND",
    "MARGIN",
    "RULES",
    "Diagnosis",
    "DiagnosisError",
    "NetworkVerdict",
    "Patch",
    "Problem",
    "Proof",
    "Scores",
    "Screening",
    "ScreeningFinding",
    "Trial",
    "Variant",
    "Variants",
    "decide",
    "diagnose",
    "load_data",
    "load_function",
    "make_patch",
    "make_problem",
    "make_variants",
    "run_trial",
    "screen",
    "unrepaired",
    "write_patch",
]


class _CallableModule(ModuleType):
    """Make `reslearn.diagnose(problem)` work although this subpackage has the name of its function.

    Python binds a subpackage as an attribute of its parent when it is imported, so a function of
    the same name at the top level would be replaced.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Diagnosis:
        return diagnose(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
