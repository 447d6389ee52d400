"""Options: declared once, merged from several places, checked against each other."""
