"""Many runs: grids, the engine that runs them, statistics, verdicts. Knows nothing of torch."""

from reslearn.study.collect import (
    ERROR_FIELDS,
    Collection,
    Incomplete,
    Row,
    RunGroup,
    StudyTable,
    collect,
    mixed_numerics,
    names_of,
    numerics_of,
    table,
)
from reslearn.study.cost import forward_macs, training_macs
from reslearn.study.die_with_parent import end_with
from reslearn.study.differences import Difference, differences
from reslearn.study.engine import Engine, JobStatus, LocalEngine, available_cores
from reslearn.study.estimate import CONFIDENCE, Interval
from reslearn.study.file import StudyError, StudyFile, load_study, study_from
from reslearn.study.grid import Job, grid, vary
from reslearn.study.launch import WarmStart
from reslearn.study.margin import Answer, equivalence_test, margin_test, withhold
from reslearn.study.power import holm, needed_pairs_text, power_of, runs_needed
from reslearn.study.ray_engine import RayEngine
from reslearn.study.run import StudyInUseError, StudyReport, run_study
from reslearn.study.statistics import (
    Comparison,
    Equivalence,
    Slope,
    Spread,
    Summary,
    bootstrap,
    compare,
    compare_to,
    equivalence,
    equivalence_to,
    proportion,
    slope,
    summary,
)
from reslearn.study.survival import (
    Steps,
    StepsComparison,
    compare_steps,
    restricted_mean,
    steps_to_threshold,
)
from reslearn.study.text import count_text, interval_text, number_text
from reslearn.study.verdicts import (
    DegradationVerdict,
    DepthRow,
    degradation_verdict,
    degradation_verdicts,
    depth_rows,
    training_field,
)

__all__ = [
    "CONFIDENCE",
    "ERROR_FIELDS",
    "Answer",
    "Collection",
    "Comparison",
    "DegradationVerdict",
    "DepthRow",
    "Difference",
    "Engine",
    "Equivalence",
    "Incomplete",
    "Interval",
    "Job",
    "JobStatus",
    "LocalEngine",
    "RayEngine",
    "Row",
    "RunGroup",
    "Slope",
    "Spread",
    "Steps",
    "StepsComparison",
    "StudyError",
    "StudyFile",
    "StudyInUseError",
    "StudyReport",
    "StudyTable",
    "Summary",
    "WarmStart",
    "available_cores",
    "bootstrap",
    "collect",
    "compare",
    "compare_steps",
    "compare_to",
    "count_text",
    "degradation_verdict",
    "degradation_verdicts",
    "depth_rows",
    "differences",
    "end_with",
    "equivalence",
    "equivalence_test",
    "equivalence_to",
    "forward_macs",
    "grid",
    "holm",
    "interval_text",
    "load_study",
    "margin_test",
    "mixed_numerics",
    "names_of",
    "needed_pairs_text",
    "number_text",
    "numerics_of",
    "power_of",
    "proportion",
    "restricted_mean",
    "run_study",
    "runs_needed",
    "slope",
    "steps_to_threshold",
    "study_from",
    "summary",
    "table",
    "training_field",
    "training_macs",
    "vary",
    "withhold",
]
