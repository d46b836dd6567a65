"""A stranger's network under controlled experiment: is depth what hurts it, what else is, and does the repair help?"""

import sys
from types import ModuleType
from typing import Any

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


class _CallableModule(ModuleType):
    """Make `reslearn.diagnose(problem)` work although this subpackage has the name of its function.

    Python binds a subpackage as an attribute of its parent when it is imported, so a function of
    the same name at the top level would be replaced.
    """

    def __call__(self, *arguments: Any, **options: Any) -> Diagnosis:
        return diagnose(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
