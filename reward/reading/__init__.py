"""Reading what models and references say: boxes, numbers, mathematics, markup, drawings, code tests."""
