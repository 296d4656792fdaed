"""Rules over a calibration cache: its text, its scales, its model, its manifest."""

from trtcalib.linting.lint import LintResult, lint_cache
from trtcalib.linting.rules import RULES, SEVERITIES, LintFinding, Rule, Severity

__all__ = ["RULES", "SEVERITIES", "LintFinding", "LintResult", "Rule", "Severity", "lint_cache"]
