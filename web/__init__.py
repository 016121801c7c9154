"""The demo page (Gradio 6).

`wavedistill.assets.load_web_app` loads this folder as the package ``wavedistill_web``, from a checkout or a wheel.
"""
