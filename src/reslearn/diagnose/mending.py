"""Mend several causes, one after another, until the network learns.

A network may have two faults: layers that are not registered, and initial weights that are too
small for its depth. Then the first repair does not help alone, so the repaired network is diagnosed
again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from reslearn.diagnose.problem import Problem
from reslearn.diagnose.proof import Proof
from reslearn.diagnose.repairs import repair_of
from reslearn.diagnose.scores import HALFWAY
from reslearn.diagnose.user_code import DiagnosisError
from reslearn.models import SurgeryError

if TYPE_CHECKING:
    from reslearn.diagnose.diagnosis import Diagnosis

MAX_REPAIRS = 3


def mend(first: Diagnosis, diagnose_again: Callable[[Problem], Diagnosis]) -> Diagnosis:
    """Diagnose the repaired network while it hardly learns; return `first` with all repairs.

    The proof of the result compares the user's network with the network after all repairs.

    Args:
        diagnose_again: Diagnoses a problem in the time that is left.
    """
    last = first
    further: list[Diagnosis] = []
    while len(further) + 1 < MAX_REPAIRS and _needs_more(last):
        try:
            following = diagnose_again(_mended_problem(last))
        except (DiagnosisError, SurgeryError):
            break
        repairs = [diagnosis.proof.repair for diagnosis in (first, *further) if diagnosis.proof]
        proof = following.proof
        if proof is None or not proof.helps or proof.repair in repairs:
            break
        further.append(following)
        last = following
    if not further:
        return first
    assert first.proof is not None and last.proof is not None, "each repair was tried"
    proof = Proof(
        before=first.proof.before,
        after=last.proof.after,
        repair=first.proof.repair,
        further=tuple(diagnosis.proof.repair for diagnosis in further if diagnosis.proof),
    )
    seconds = first.seconds + sum(diagnosis.seconds for diagnosis in further)
    return replace(first, proof=proof, further=tuple(further), seconds=seconds)


def _needs_more(diagnosis: Diagnosis) -> bool:
    proof = diagnosis.proof
    if proof is None or diagnosis.interrupted:
        return False
    return proof.after.train_score > HALFWAY


def _mended_problem(diagnosis: Diagnosis) -> Problem:
    """Return the problem after the repair that a diagnosis tried."""
    problem, proof = diagnosis.problem, diagnosis.proof
    assert proof is not None, "a repair was tried"
    if proof.repair == "given":
        return replace(problem, lr=proof.after.lr)
    if proof.repair == "standardized":
        return diagnosis.variants.by_name["standardized"].problem
    return replace(problem, build=repair_of(proof.repair, problem).applied_to(problem.build))
