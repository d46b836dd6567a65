"""Many runs: grids, the engine that runs them, statistics, verdicts. Knows nothing of torch."""

from reslearn.study.statistics import Comparison, Equivalence, Interval, Slope, Summary, bootstrap, compare, equivalence, slope, summary
from reslearn.study.survival import Steps, StepsComparison, compare_steps, restricted_mean, steps_to_threshold
from reslearn.study.verdicts import DegradationVerdict, DepthRow, degradation_verdict
