"""Comparison: from records to arms, and from arms to what was shown, in numbers and in words."""
