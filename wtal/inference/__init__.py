"""Branches applied: frame scores, proposals, detections."""
