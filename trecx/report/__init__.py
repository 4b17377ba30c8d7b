"""From results to the book: catalogue, figures, chapters and the notebook runner."""
