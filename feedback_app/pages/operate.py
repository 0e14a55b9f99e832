"""/operate (being built)."""
import gradio as gr
def build(ctx):
    with gr.Blocks(title="Operate · Feedback") as demo:
        gr.Markdown("…")
    return demo
