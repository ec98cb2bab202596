"""Measures what the package costs, beside what one would use instead. No part of the package or its tests."""
