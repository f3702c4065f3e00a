"""Reports: tables, HTML and Markdown pages, contact sheets. Independent of what is reported."""
