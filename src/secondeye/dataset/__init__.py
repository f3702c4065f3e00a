"""The dataset that the stages build: schema, tables, files, corrections, and the report on it."""
