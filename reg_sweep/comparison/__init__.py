"""Comparison: from records to arms, and from arms to findings, in numbers and in words."""
