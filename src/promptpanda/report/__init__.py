"""Reports: what the rows of a study say, as one self-contained HTML page and as Markdown and LaTeX tables."""
