"""Many runs: grids, the engine that runs them, statistics, verdicts. Knows nothing of torch."""

from reslearn.study.collect import ERROR_FIELDS, Collection, Group, Incomplete, Row, StudyTable, collect, depth_rows, table
from reslearn.study.engine import Engine, LocalEngine, Outcome, available_cores
from reslearn.study.file import StudyError, StudyFile, load_study, study_from
from reslearn.study.grid import Job, grid, vary
from reslearn.study.ray_engine import RayEngine
from reslearn.study.run import StudyInUseError, StudyReport, run_study
from reslearn.study.statistics import Comparison, Equivalence, Interval, Slope, Summary, bootstrap, compare, equivalence, slope, summary
from reslearn.study.survival import Steps, StepsComparison, compare_steps, restricted_mean, steps_to_threshold
from reslearn.study.verdicts import DegradationVerdict, DepthRow, degradation_verdict
from reslearn.study.warm import WarmStart

__all__ = [
    "ERROR_FIELDS", "Collection", "Comparison", "DegradationVerdict", "DepthRow", "Engine", "Equivalence", "Group", "Incomplete",
    "Interval", "Job", "LocalEngine", "Outcome", "RayEngine", "Row", "Slope", "Steps", "StepsComparison", "StudyError", "StudyFile",
    "StudyInUseError", "StudyReport", "StudyTable", "Summary", "WarmStart", "available_cores", "bootstrap", "collect", "compare",
    "compare_steps", "degradation_verdict", "depth_rows", "equivalence", "grid", "load_study", "restricted_mean", "run_study", "slope",
    "steps_to_threshold", "study_from", "summary", "table", "vary",
]  # fmt: skip
