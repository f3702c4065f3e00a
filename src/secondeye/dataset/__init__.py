"""The dataset that the stages build: schema, tables, files, reader, corrections and report."""
