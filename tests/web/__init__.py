"""Tests of what people touch in the browser."""
