"""Comparison of finished runs: statistics, figures and one report, from run folders alone, without torch."""
