"""Plain functions behind the pages: parse, ask the policy, call storage, return what the page shows. No Gradio here."""
