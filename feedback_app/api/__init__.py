"""HTTP API v1, for programs: `create_api` gives the application that `feedback_app.server` mounts at /api/v1."""

from feedback_app.api.app import BATCHES, PATH, create_api

__all__ = ["BATCHES", "PATH", "create_api"]
