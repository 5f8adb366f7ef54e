"""Data files of all formats as rows: one module a format, `reader.open_rows` for whoever reads them."""
