"""Measure how good predictions are and how certain that is: scores, intervals, calibration."""

from jaxcnn.evaluation.bootstrap import interval, resampled_measures
from jaxcnn.evaluation.calibration import Reliability, fit_temperature, reliability
from jaxcnn.evaluation.estimates import Estimates, Interval, estimate, mean_estimates
from jaxcnn.evaluation.measures import OVERALL, PER_CLASS, Measures, measures
from jaxcnn.evaluation.roc import RocCurve, roc_curve

__all__ = [
    "OVERALL",
    "PER_CLASS",
    "Estimates",
    "Interval",
    "Measures",
    "Reliability",
    "RocCurve",
    "estimate",
    "fit_temperature",
    "interval",
    "mean_estimates",
    "measures",
    "reliability",
    "resampled_measures",
    "roc_curve",
]
