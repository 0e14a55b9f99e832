"""The browser pages: layout and wiring only; what they do stands in `feedback_app.handlers`."""

import os

# Before anything imports gradio: it reads both at import.
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
