"""What a person reads and looks at: tables, pages, sheets of pictures. Knows nothing of what is reported."""
