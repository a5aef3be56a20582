"""What people and monitoring look at: the figures, the page that shows them, the metrics."""
