"""One self-contained page a model version, made to be looked at, and its plots.

`modeling.report.story.Story` says what is told, `modeling.report.write.write_report` writes it, and
`modeling.report.curves.draw_curves` draws the curves alone while training goes on. Nothing is imported here, and
matplotlib only when something is drawn.
"""
