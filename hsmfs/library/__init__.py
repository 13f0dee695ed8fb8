"""Media and robots: elements, moves, drives, burning and reading; no files and no catalog here."""
